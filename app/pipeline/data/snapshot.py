"""The frozen dataset of a run: a COCO file with paths and splits, and its reading as arrays. Imports no torch.

Legend: N boxes of an image, xyxy float pixels of the upright image; labels 1..K (see CategoryMap).
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import orjson

from app.pipeline.data.categories import CategoryMap


@dataclass(frozen=True, eq=False)
class Sample:
    """One image and its boxes.

    boxes: float64 [N, 4] xyxy pixels of the upright image, labels: int64 [N] in 1..K, is_crowd: bool [N].
    ``rotation`` is degrees clockwise applied after EXIF. ``sha256`` is that of the image's file, "" where not known.
    """

    image_id: int
    path: Path
    file_name: str
    split: str
    width: int
    height: int
    rotation: int
    boxes: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray
    sha256: str = ""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All images of a run by split, with the class list."""

    categories: CategoryMap
    samples: tuple[Sample, ...]
    sha256: str

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of one split, in file order."""
        return tuple(sample for sample in self.samples if sample.split == name)

    def count_boxes(self, split: str) -> list[int]:
        """How many boxes of each class (label 1 first) a split has, crowds left out."""
        labels = [sample.labels[~sample.is_crowd] for sample in self.split(split)]
        counts = np.bincount(np.concatenate([*labels, np.zeros(0, np.int64)]), minlength=len(self.categories) + 1)
        return counts[1:].tolist()

    @cached_property
    def max_objects(self) -> int:
        """Objects in the most crowded image; 0 without any."""
        return max((len(sample.boxes) for sample in self.samples), default=0)


def load_snapshot(path: Path) -> Snapshot:
    """Read a snapshot written as COCO JSON.

    Each image has, besides COCO's keys, ``path`` (relative to the file's folder), ``split``, ``rotation`` and, if
    known, ``sha256``. Raises ValueError naming the image when a box is not finite or has no area.
    """
    data = path.read_bytes()
    document = orjson.loads(data)
    categories = CategoryMap.from_coco(document["categories"])
    label_of = {category_id: index + 1 for index, category_id in enumerate(categories.ids)}
    by_image: dict[int, list[dict]] = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    samples = []
    for image in document["images"]:
        annotations = by_image[image["id"]]
        xywh = np.array([annotation["bbox"] for annotation in annotations], np.float64).reshape(-1, 4)
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        if not np.isfinite(boxes).all() or (xywh[:, 2:] <= 0).any():
            raise ValueError(f"{path.name}: image {image['id']} ({image['file_name']}) has a box without area")
        samples.append(
            Sample(
                image_id=image["id"],
                path=(path.parent / image["path"]).resolve(),
                file_name=image["file_name"],
                split=image["split"],
                width=image["width"],
                height=image["height"],
                rotation=image.get("rotation", 0),
                boxes=boxes,
                labels=np.array([label_of[annotation["category_id"]] for annotation in annotations], np.int64),
                is_crowd=np.array([bool(annotation.get("iscrowd", 0)) for annotation in annotations], bool),
                sha256=image.get("sha256", ""),
            )
        )
    return Snapshot(categories, tuple(samples), hashlib.sha256(data).hexdigest())
