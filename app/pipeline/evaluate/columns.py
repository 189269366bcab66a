"""Ground truth and detections of many images as flat columns, the form that evaluation works on. Imports no torch.

Legend: I images, M labelled boxes, D detections, K classes. Boxes are float64 xyxy pixels of the upright image;
labels are 1..K; ``image_index`` is the position of a row's image in ``GroundTruth.image_ids``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.pipeline.data.categories import CategoryMap
from app.pipeline.data.snapshot import Sample
from app.pipeline.types import Detections


class EvaluationError(ValueError):
    """Truth and detections that do not belong together; the message says which image or label is at fault."""


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The labelled boxes of a split; images without boxes count too.

    image_ids: int64 [I] distinct. image_index: int64 [M] ascending. boxes: float64 [M, 4]. labels: int64 [M].
    is_crowd: bool [M]; a crowd box is neither found nor missed, detections inside it are left out of the count.
    """

    categories: CategoryMap
    image_ids: np.ndarray
    image_index: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray

    @classmethod
    def from_samples(cls, samples: Sequence[Sample], categories: CategoryMap) -> "GroundTruth":
        """Columns of ``samples``, in their order. Raises EvaluationError when there are none or an id comes twice."""
        image_ids = np.array([sample.image_id for sample in samples], np.int64)
        if not len(image_ids):
            raise EvaluationError("there are no images to judge on; choose a split that has some")
        if len(np.unique(image_ids)) != len(image_ids):
            raise EvaluationError("image ids must be distinct, but some image is listed twice")
        return cls(
            categories=categories,
            image_ids=image_ids,
            image_index=np.repeat(np.arange(len(samples)), [len(sample.boxes) for sample in samples]),
            boxes=np.concatenate([np.asarray(sample.boxes, np.float64).reshape(-1, 4) for sample in samples]),
            labels=np.concatenate([np.asarray(sample.labels, np.int64) for sample in samples]),
            is_crowd=np.concatenate([np.asarray(sample.is_crowd, bool) for sample in samples]),
        )

    @property
    def num_images(self) -> int:
        return len(self.image_ids)


@dataclass(frozen=True, eq=False)
class DetectionColumns:
    """Detections of the images of a GroundTruth, image by image in its order, as given within an image.

    image_index: int64 [D] ascending. boxes: float64 [D, 4]. scores: float64 [D]. labels: int64 [D].
    """

    image_index: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    @classmethod
    def from_detections(cls, truth: GroundTruth, detections: Mapping[int, Detections]) -> "DetectionColumns":
        """Columns of ``detections`` (image id -> Detections); images of ``truth`` without an entry have none.

        Raises EvaluationError for an image that ``truth`` does not list and for a label beyond its classes.
        """
        _refuse_unknown_images(truth, detections)
        empty = Detections.empty()
        rows = [detections.get(int(image_id), empty) for image_id in truth.image_ids]
        labels = np.concatenate([row.labels for row in rows]).astype(np.int64)
        if len(labels) and labels.max() > len(truth.categories):
            raise EvaluationError(
                f"detections have label {labels.max()}, but the ground truth has {len(truth.categories)} classes;"
                " were they made for another dataset?"
            )
        return cls(
            image_index=np.repeat(np.arange(len(rows)), [len(row) for row in rows]),
            boxes=np.concatenate([row.boxes for row in rows]).astype(np.float64),
            scores=np.concatenate([row.scores for row in rows]).astype(np.float64),
            labels=labels,
        )

    def select(self, keep: np.ndarray) -> "DetectionColumns":
        """The rows picked by ``keep`` (bool [D]), in their order."""
        return DetectionColumns(self.image_index[keep], self.boxes[keep], self.scores[keep], self.labels[keep])


def position_in_image(image_index: np.ndarray) -> np.ndarray:
    """The place of each row among those of its image, from 0; int64, for ``image_index`` ascending."""
    return np.arange(len(image_index)) - np.searchsorted(image_index, image_index, side="left")


def _refuse_unknown_images(truth: GroundTruth, detections: Mapping[int, Detections]) -> None:
    unknown = sorted(set(detections) - set(truth.image_ids.tolist()))
    if unknown:
        shown = ", ".join(str(image_id) for image_id in unknown[:5]) + (", …" if len(unknown) > 5 else "")
        raise EvaluationError(
            f"detections name {len(unknown)} images that the ground truth does not have (ids {shown});"
            " judge them on the split they were made for"
        )
