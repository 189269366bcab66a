"""Detections of several members on many images as flat columns, the form that fusing works on. Imports no torch.

Legend: I images, T members, D rows (boxes). Boxes are float64 xyxy in 0..1 of the upright image's sides, a frame that
exists in this package only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from app.pipeline.types import Detections


class Picture(Protocol):
    """An image of a known size in pixels; a Sample of a snapshot is one."""

    image_id: int
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class Columns:
    """Boxes of I images; the rows of image i are ``first[i]`` to ``first[i + 1]``.

    first: int64 [I + 1]. boxes: float64 [D, 4] with an area. scores: float64 [D]. labels: int32 [D], at least 1.
    sizes: float64 [I, 2], width and height in pixels.
    """

    first: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray

    @property
    def num_images(self) -> int:
        return len(self.sizes)

    @cached_property
    def image_index(self) -> np.ndarray:
        """The image of each row, int64 [D]."""
        return np.repeat(np.arange(self.num_images), np.diff(self.first))

    def to_pixels(self) -> np.ndarray:
        """The boxes in pixels of their images, rounded as they are stored: float32 [D, 4]."""
        return (self.boxes * np.tile(self.sizes, 2)[self.image_index]).astype(np.float32)

    def to_detections(self) -> list[Detections]:
        """One for each image, as given within it."""
        boxes, scores = self.to_pixels(), np.clip(self.scores, 0, 1).astype(np.float32)
        slices = [slice(*span) for span in zip(self.first[:-1], self.first[1:], strict=True)]
        return [Detections(boxes[rows], scores[rows], self.labels[rows]) for rows in slices]


@dataclass(frozen=True, eq=False)
class MemberColumns(Columns):
    """Boxes of T members; those of an image lie member by member. members: int32 [D], 0..T-1."""

    members: np.ndarray
    num_members: int

    @classmethod
    def from_detections(
        cls, members: Sequence[Mapping[int, Detections]], pictures: Sequence[Picture]
    ) -> "MemberColumns":
        """Columns of ``pictures``, in their order, from the detections of each member by image id.

        A picture that a member does not have counts as one without detections. Boxes are cut at the image's edge;
        those without an area, and those with a score of 0, are left out.
        """
        empty = Detections.empty()
        found = [member.get(picture.image_id, empty) for picture in pictures for member in members]
        sizes = np.array([(picture.width, picture.height) for picture in pictures], np.float64).reshape(-1, 2)
        lengths = np.array([len(each) for each in found], np.int64)
        image = np.repeat(np.repeat(np.arange(len(pictures)), len(members)), lengths)
        member = np.repeat(np.tile(np.arange(len(members), dtype=np.int32), len(pictures)), lengths)
        boxes = _joined([each.boxes for each in found], np.zeros((0, 4)))
        scores = _joined([each.scores for each in found], np.zeros(0))
        labels = _joined([each.labels for each in found], np.zeros(0)).astype(np.int32)
        boxes /= np.tile(sizes, 2)[image]
        np.clip(boxes, 0, 1, out=boxes)
        keep = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (scores > 0)
        first = np.concatenate([[0], np.cumsum(np.bincount(image[keep], minlength=len(pictures)))])
        return cls(first, boxes[keep], scores[keep], labels[keep], sizes, member[keep], len(members))

    @classmethod
    def joined(cls, parts: Sequence["MemberColumns"]) -> "MemberColumns":
        """Columns of the images of all parts, one part after the other; at least one, all of the same members."""
        counts = np.concatenate([np.diff(part.first) for part in parts])
        rows = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("boxes", "scores", "labels", "sizes", "members")
        )
        return cls(np.concatenate([[0], np.cumsum(counts)]), *rows, parts[0].num_members)

    def of_members(self, chosen: Sequence[int]) -> "MemberColumns":
        """Only the rows of some members, which are then members 0, 1 … in the given order."""
        number = np.full(self.num_members, -1, np.int32)
        number[list(chosen)] = np.arange(len(chosen))
        keep = number[self.members] >= 0
        part = self._rows(keep, self.image_index[keep], self.sizes)
        return replace(part, members=number[part.members], num_members=len(chosen))

    def of_images(self, chosen: np.ndarray) -> "MemberColumns":
        """Only some images (bool [I])."""
        keep = chosen[self.image_index]
        position = np.cumsum(chosen) - 1
        return self._rows(keep, position[self.image_index[keep]], self.sizes[chosen])

    def _rows(self, keep: np.ndarray, image: np.ndarray, sizes: np.ndarray) -> "MemberColumns":
        first = np.concatenate([[0], np.cumsum(np.bincount(image, minlength=len(sizes)))])
        columns = (self.boxes[keep], self.scores[keep], self.labels[keep])
        return MemberColumns(first, *columns, sizes, self.members[keep], self.num_members)


def _joined(parts: list[np.ndarray], empty: np.ndarray) -> np.ndarray:
    """float64, and so that there may be no parts at all."""
    return np.concatenate([empty, *parts], dtype=np.float64)
