"""Ground truth and detections of many images as flat columns, the form that evaluation works on. Imports no torch.

Legend: I images, M labelled boxes, D detections, K classes. Boxes are xyxy pixels of the upright image; labels are
1..K; ``image_index`` is the position of a row's image in ``GroundTruth.image_ids``. Detections are many: they take 32
bytes each, their boxes in the float32 that they are stored in. What is computed of them is computed in float64.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.pipeline.data.categories import CategoryMap
from app.pipeline.data.snapshot import Sample, Samples
from app.pipeline.types import Detections

IMAGES_AT_ONCE = 500


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
        if not isinstance(samples, Samples):
            samples = Samples.of(samples)
        if not len(samples):
            raise EvaluationError("there are no images to judge on; choose a split that has some")
        if len(np.unique(samples.image_ids)) != len(samples):
            raise EvaluationError("image ids must be distinct, but some image is listed twice")
        boxes, labels, is_crowd = samples.boxes()
        return cls(
            categories=categories,
            image_ids=samples.image_ids,
            image_index=np.repeat(np.arange(len(samples)), samples.num_boxes),
            boxes=boxes,
            labels=labels,
            is_crowd=is_crowd,
        )

    @classmethod
    def joined(cls, parts: "Sequence[GroundTruth]") -> "GroundTruth":
        """Several one after the other, of the same classes."""
        if len(parts) == 1:
            return parts[0]
        first = np.cumsum([0, *(part.num_images for part in parts)])
        return cls(
            categories=parts[0].categories,
            image_ids=np.concatenate([part.image_ids for part in parts]),
            image_index=np.concatenate([start + part.image_index for start, part in zip(first, parts, strict=False)]),
            boxes=np.concatenate([part.boxes for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
            is_crowd=np.concatenate([part.is_crowd for part in parts]),
        )

    @property
    def num_images(self) -> int:
        return len(self.image_ids)

    @property
    def group(self) -> np.ndarray:
        """int64 [M], a number for each image and class."""
        return self.group_of(self)

    def group_of(self, rows: "GroundTruth | DetectionColumns") -> np.ndarray:
        """The number of each row's image and class, int64."""
        return rows.image_index.astype(np.int64) * (len(self.categories) + 1) + rows.labels


Read = Callable[[Sequence[int]], Mapping[int, Detections]]  # detections of some images, by id


@dataclass(frozen=True, eq=False)
class DetectionColumns:
    """Detections of the images of a GroundTruth, image by image in its order, as given within an image.

    image_index: int [D] ascending. boxes: float [D, 4]. scores: float64 [D]. labels: int [D]. As they are read: int32,
    float32 and int32.
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
        refuse_unknown_images(truth, detections)
        return cls.read(truth, lambda image_ids: detections)

    @classmethod
    def read(cls, truth: GroundTruth, read: Read) -> "DetectionColumns":
        """Columns of what ``read`` gives, IMAGES_AT_ONCE images at a time; those it gives nothing for have none.

        Raises EvaluationError for a label beyond the classes of ``truth``.
        """
        counts, parts = array("q"), (bytearray(), bytearray(), bytearray())
        for start in range(0, truth.num_images, IMAGES_AT_ONCE):
            image_ids = truth.image_ids[start : start + IMAGES_AT_ONCE].tolist()
            found = read(image_ids)
            for one in map(found.get, image_ids):
                counts.append(0 if one is None else len(one))
                if one is not None:
                    for part, values in zip(parts, (one.boxes, one.scores, one.labels), strict=True):
                        part.extend(values.data.cast("B") if len(one) else b"")
        boxes, scores, labels = map(np.frombuffer, parts, (np.float32, np.float32, np.int32))
        if len(labels) and labels.max() > len(truth.categories):
            raise EvaluationError(
                f"detections have label {labels.max()}, but the ground truth has {len(truth.categories)} classes;"
                " were they made for another dataset?"
            )
        return cls(
            image_index=np.repeat(np.arange(truth.num_images, dtype=np.int32), counts),
            boxes=boxes.reshape(-1, 4),
            scores=scores.astype(np.float64),
            labels=labels,
        )

    @classmethod
    def joined(cls, parts: "Sequence[DetectionColumns]", num_images: Sequence[int]) -> "DetectionColumns":
        """Several one after the other, of so many images each."""
        if len(parts) == 1:
            return parts[0]
        first = np.cumsum([0, *num_images], dtype=np.int32)
        return cls(
            image_index=np.concatenate([start + part.image_index for start, part in zip(first, parts, strict=False)]),
            boxes=np.concatenate([part.boxes for part in parts]),
            scores=np.concatenate([part.scores for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
        )

    def select(self, keep: np.ndarray) -> "DetectionColumns":
        """The rows picked by ``keep`` (bool [D]), in their order."""
        return DetectionColumns(self.image_index[keep], self.boxes[keep], self.scores[keep], self.labels[keep])


def position_in_image(image_index: np.ndarray) -> np.ndarray:
    """The place of each row among those of its image, from 0; int64, for ``image_index`` ascending."""
    return np.arange(len(image_index)) - np.searchsorted(image_index, image_index, side="left")


def refuse_unknown_images(truth: GroundTruth, image_ids: Iterable[int]) -> None:
    """Raise EvaluationError when detections are of images that ``truth`` does not list."""
    unknown = np.setdiff1d(np.fromiter(image_ids, np.int64), truth.image_ids)
    if len(unknown):
        shown = ", ".join(map(str, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        raise EvaluationError(
            f"detections name {len(unknown)} images that the ground truth does not have (ids {shown});"
            " judge them on the split they were made for"
        )
