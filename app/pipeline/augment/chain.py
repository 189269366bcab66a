"""The augmentation chain: the one object that training and the preview both apply.

Legend: N boxes in, M boxes out. Boxes are xyxy in absolute float pixels of the image handed in, whose size never
changes. Imports albumentations (and with it torch): for job processes and the warm helper only.
"""

import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from app.pipeline.augment.catalogue import Step
from app.pipeline.augment.transforms import BUILDERS, MIN_VISIBILITY, A, Transform

MIN_SIDE_PX = 1.0
_PCG_INCREMENT = 0xDA3E39CB94B95BDB5851F42D4C957F2D  # odd, as PCG64 wants; the state is what differs


@dataclass(frozen=True, eq=False)
class Augmented:
    """An augmented image with its boxes.

    image: uint8 [H, W, 3], size as handed in. boxes: float32 [M, 4], inside the image, each side at least 1 px.
    labels: [M]. kept: int64 [M], the rows of the input that they come from. num_lost = N - M.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    kept: np.ndarray
    num_lost: int


class Chain:
    """An ordered chain of augmentations. Safe to use from several threads, and picklable to loader processes.

    Each step draws from its own stream, made of (seed, epoch, image_id, step): results repeat exactly, whatever the
    order of images and number of workers, and changing one step leaves the dice of the others as they were.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = tuple(steps)
        self._streams_of_thread = threading.local()

    @classmethod
    def build(cls, steps: Sequence[Step]) -> "Chain":
        """The chain of the enabled ``steps``, in order."""
        return cls(steps)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Chain, (self.steps,))

    def apply(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, *, seed: int, epoch: int, image_id: int
    ) -> Augmented:
        """Augment ``image`` (uint8 [H, W, 3] RGB) with ``boxes`` ([N, 4] xyxy pixels) and ``labels`` ([N]).

        Boxes are clipped to the image; those left with a side below 1 px, or less than a tenth of their area after a
        step, are lost together with their labels. Without a step that fires, ``image`` itself comes back; it is never
        written to. Raises ValueError when shapes or lengths do not fit.
        """
        boxes, labels = _checked(image, boxes, labels)
        height, width = image.shape[:2]
        rows = np.concatenate([boxes, np.arange(len(boxes))[:, None]], axis=1)
        rows = _valid_rows(rows, width, height)
        stages = self._stages()
        if stages.transforms:
            stages.reseed(seed, epoch, image_id)
            image, rows = stages.apply(image, rows)
            rows = _valid_rows(rows, width, height)
        kept = rows[:, 4].round().astype(np.int64)
        return Augmented(image, rows[:, :4].astype(np.float32), labels[kept], kept, len(boxes) - len(kept))

    def _stages(self) -> "_Stages":
        if not hasattr(self._streams_of_thread, "stages"):
            self._streams_of_thread.stages = _Stages(self.steps)
        return self._streams_of_thread.stages


class _Stages:
    """The transforms of one thread with their random streams."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.transforms: list[Transform] = []
        self._streams: list[tuple[bytes, np.random.PCG64, random.Random]] = []
        keys: list[bytes] = []
        seen: Counter[str] = Counter()
        for step in steps:
            seen[step.name] += 1
            if step.is_enabled and step.probability > 0:
                self.transforms.append(BUILDERS[step.name](step.strengths(), step.probability))
                keys.append(f"{step.name}:{seen[step.name]}".encode())
        self.moves_boxes = any(isinstance(transform, A.DualTransform) for transform in self.transforms)
        params = A.BboxParams(
            "pascal_voc", min_visibility=MIN_VISIBILITY, min_width=MIN_SIDE_PX, min_height=MIN_SIDE_PX
        )
        self.compose = A.Compose(self.transforms, bbox_params=params if self.moves_boxes else None)
        for key, transform in zip(keys, self.transforms, strict=True):  # after Compose, which seeds them all alike
            bits, dice = np.random.PCG64(0), random.Random(0)
            transform.set_random_state(np.random.Generator(bits), dice)
            self._streams.append((key, bits, dice))

    def apply(self, image: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run the transforms on an image and rows [N, 5] (xyxy pixels, index)."""
        if not self.moves_boxes:
            return self.compose(image=image)["image"], rows
        result = self.compose(image=image, bboxes=rows)
        left = result["bboxes"]
        return result["image"], left if len(left) else rows[:0]

    def reseed(self, seed: int, epoch: int, image_id: int) -> None:
        """Start every step's stream anew.

        Compose's own seeding gives all steps the same dice: two flips at one half would always fire together.
        """
        prefix = f"{seed}:{epoch}:{image_id}:".encode()
        for key, bits, dice in self._streams:
            digest = blake2b(prefix + key, digest_size=32).digest()
            bits.state = {
                "bit_generator": "PCG64",
                "state": {"state": int.from_bytes(digest[:16]), "inc": _PCG_INCREMENT},
                "has_uint32": 0,
                "uinteger": 0,
            }
            dice.seed(int.from_bytes(digest[16:]))


def _checked(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    labels = np.asarray(labels).reshape(-1)
    if len(boxes) != len(labels):
        raise ValueError(f"boxes and labels must have one length, got {len(boxes)} and {len(labels)}")
    if not np.isfinite(boxes).all():
        raise ValueError("boxes must be finite")
    return boxes, labels


def _valid_rows(rows: np.ndarray, width: int, height: int) -> np.ndarray:
    """Rows [N, 5] (xyxy, index) clipped to the image, without those whose width or height is below MIN_SIDE_PX."""
    rows = rows.copy()
    rows[:, [0, 2]] = rows[:, [0, 2]].clip(0, width)
    rows[:, [1, 3]] = rows[:, [1, 3]].clip(0, height)
    sides = (rows[:, 2:4] - rows[:, :2]).astype(np.float32)
    return rows[(sides >= MIN_SIDE_PX - 1e-4).all(axis=1)]
