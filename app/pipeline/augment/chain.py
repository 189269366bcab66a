"""The augmentation chain: the one object that training and the preview both apply.

Legend: N boxes in, M boxes out. Boxes are xyxy in absolute float pixels of the image handed in, whose size never
changes. Steps that mix images take the others from Partners. Imports albumentations (and with it torch): for job
processes and the warm helper only.
"""

import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from app.pipeline.augment.catalogue import CATALOGUE, Step
from app.pipeline.augment.mixing import MIXERS, Partners
from app.pipeline.augment.transforms import BUILDERS, A
from app.pipeline.augment.visibility import MIN_VISIBILITY, visible_rows

_PCG_INCREMENT = 0xDA3E39CB94B95BDB5851F42D4C957F2D  # odd, as PCG64 wants; the state is what differs


@dataclass(frozen=True, eq=False)
class Augmented:
    """An augmented image with its boxes.

    image: uint8 [H, W, 3], size as handed in. boxes: float32 [M, 4], inside the image, each side at least 1 px.
    labels: [M]. kept: int64 [M], the rows of the input that they come from, -1 for boxes of partners. num_lost: how
    many of the N are gone.
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
        self._of_thread = threading.local()

    @classmethod
    def build(cls, steps: Sequence[Step]) -> "Chain":
        """The chain of the enabled ``steps``, in order."""
        return cls(steps)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Chain, (self.steps,))

    def apply(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray,
        *,
        seed: int,
        epoch: int,
        image_id: int,
        partners: Partners | None = None,
        strong_share: float = 1.0,
    ) -> Augmented:
        """Augment ``image`` (uint8 [H, W, 3] RGB) with ``boxes`` ([N, 4] xyxy pixels) and ``labels`` ([N]).

        Boxes are clipped to the image; those left with a side below 1 px, or less than a tenth of their area after a
        step, are lost together with their labels. Without a step that fires, ``image`` itself comes back; it is never
        written to. ``partners`` are the images that steps may mix in; without them such steps do nothing.
        ``strong_share`` (0..1) scales the probabilities of the strong steps. Raises ValueError when shapes or lengths
        do not fit.
        """
        boxes, labels = _checked(image, boxes, labels)
        num_boxes = len(boxes)
        height, width = image.shape[:2]
        rows = np.concatenate([boxes, np.arange(num_boxes)[:, None]], axis=1)
        rows = visible_rows(rows, width, height, min_visibility=0)
        prefix = f"{seed}:{epoch}:{image_id}:".encode()
        for stage in self._stages():
            if stage.fires(prefix, strong_share):
                image, rows, labels = stage.apply(image, rows, labels, partners)
        indices = rows[:, 4].round().astype(np.int64)
        kept = np.where(indices < num_boxes, indices, -1)
        return Augmented(
            image, rows[:, :4].astype(np.float32), labels[indices], kept, num_boxes - int((kept >= 0).sum())
        )

    def _stages(self) -> "list[_Stage]":
        """This thread's own transforms: they keep their dice and last parameters in themselves."""
        if not hasattr(self._of_thread, "stages"):
            seen: Counter[str] = Counter()
            self._of_thread.stages = []
            for step in self.steps:
                seen[step.name] += 1
                if step.is_enabled:
                    self._of_thread.stages.append(_Stage(step, seen[step.name]))
        return self._of_thread.stages


class _Stage:
    """A step as a transform with its own random streams.

    Rows are [N, 5]: xyxy pixels and the index of the box's label among all labels so far.
    """

    def __init__(self, step: Step, occurrence: int) -> None:
        self.key = f"{step.name}:{occurrence}".encode()
        self.probability = step.probability
        self.is_strong = CATALOGUE[step.name].is_strong
        self.strengths = step.strengths()
        self.bits, self.dice = np.random.PCG64(0), random.Random(0)
        self.generator = np.random.Generator(self.bits)
        self.mix = MIXERS.get(step.name)
        if self.mix is None:
            self.transform = BUILDERS[step.name](self.strengths)
            self.moves_boxes = isinstance(self.transform, A.DualTransform)
            self.transform.set_random_state(self.generator, self.dice)

    def apply(
        self, image: np.ndarray, rows: np.ndarray, labels: np.ndarray, partners: Partners | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The image, rows and labels after this step; :meth:`fires` has been asked."""
        if self.mix is not None:
            return self._mixed(image, rows, labels, partners)
        if not self.moves_boxes:
            return self.transform(force_apply=True, image=image)["image"], rows, labels
        height, width = image.shape[:2]
        scale = np.array([width, height, width, height, 1.0])
        result = self.transform(force_apply=True, image=image, bboxes=rows / scale)
        rows = np.asarray(result["bboxes"], np.float64).reshape(-1, 5) * scale
        return result["image"], visible_rows(rows, width, height, MIN_VISIBILITY), labels

    def _mixed(
        self, image: np.ndarray, rows: np.ndarray, labels: np.ndarray, partners: Partners | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The partners' boxes come behind the others, their labels behind all labels so far."""
        mixed = None if partners is None else self.mix(image, rows, partners, self.generator, self.strengths)
        if mixed is None:
            return image, rows, labels
        indices = len(labels) + np.arange(len(mixed.boxes))
        height, width = image.shape[:2]
        others = np.concatenate([mixed.boxes, indices[:, None]], axis=1)
        rows = visible_rows(np.concatenate([mixed.rows, others]), width, height, min_visibility=0)
        return mixed.image, rows, np.concatenate([labels, mixed.labels])

    def fires(self, prefix: bytes, strong_share: float) -> bool:
        """Throw the dice; when the step fires, start its streams anew.

        Albumentations' Compose would seed all transforms alike: two flips at one half would always fire together.
        """
        digest = blake2b(prefix + self.key, digest_size=40).digest()
        probability = self.probability * strong_share if self.is_strong else self.probability
        if int.from_bytes(digest[32:]) >= probability * 2**64:
            return False
        self.bits.state = {
            "bit_generator": "PCG64",
            "state": {"state": int.from_bytes(digest[:16]), "inc": _PCG_INCREMENT},
            "has_uint32": 0,
            "uinteger": 0,
        }
        self.dice.seed(int.from_bytes(digest[16:32]))
        return True


def _checked(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    labels = np.asarray(labels, np.int64).reshape(-1)
    if len(boxes) != len(labels):
        raise ValueError(f"boxes and labels must have one length, got {len(boxes)} and {len(labels)}")
    if not np.isfinite(boxes).all():
        raise ValueError("boxes must be finite")
    return boxes, labels
