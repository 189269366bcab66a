"""Steps that mix several images: MixUp, Mosaic, Copy-Paste of boxes. Imports no torch.

Legend: N boxes of the image at hand, as rows [N, 5] (xyxy pixels and an index that travels untouched); P boxes that
come from partners. Everything is drawn from the generator handed in, so results repeat with its state.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from app.pipeline.augment.visibility import MIN_VISIBILITY, hide_boxes, visible_rows

NUM_PLACES = 8  # tried for each pasted object
MIN_MOSAIC_SIDE_PX = 4

Strengths = dict[str, float]


@dataclass(frozen=True, eq=False)
class Partner:
    """Another image, resized as the one at hand: uint8 [H, W, 3], boxes float64 [K, 4] within it, labels int64 [K]."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Partners:
    """The images to mix in: ``read`` gives the one at an index below ``count``, None when it cannot be read.

    Training and the preview hand in the images of the train split in the order of the database.
    """

    count: int
    read: Callable[[int], Partner | None]

    def draw(self, dice: np.random.Generator) -> Partner | None:
        """One of them at random; None when there are none, or it cannot be read."""
        return self.read(int(dice.integers(self.count))) if self.count else None


@dataclass(frozen=True, eq=False)
class Mixed:
    """A mixed image of the size it had; rows [n, 5] of its own boxes left, boxes [P, 4] and labels [P] of partners."""

    image: np.ndarray
    rows: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


def mix_up(
    image: np.ndarray, rows: np.ndarray, partners: Partners, dice: np.random.Generator, strengths: Strengths
) -> Mixed | None:
    """``lambda * image + (1 - lambda) * partner`` with lambda ~ Beta(alpha, beta); both keep their boxes.

    Zhang et al., mixup, 2018 (eq. 1), with the boxes of both as in Zhang et al., Bag of Freebies, 2019. The partner is
    fitted into the image's frame from the top left; what it does not reach stays as it is. Of two images the one
    weighing less than MIN_VISIBILITY can hardly be seen: its boxes there are lost.
    """
    weight = float(dice.beta(strengths["alpha"], strengths["beta"]))
    partner = partners.draw(dice)
    if partner is None:
        return None
    height, width = image.shape[:2]
    other_height, other_width = partner.image.shape[:2]
    scale = min(width / other_width, height / other_height)
    fitted = max(1, round(other_width * scale)), max(1, round(other_height * scale))
    other = _resized(partner.image, *fitted)
    mixed = image.copy()
    under = np.ascontiguousarray(image[: fitted[1], : fitted[0]])
    mixed[: fitted[1], : fitted[0]] = cv2.addWeighted(under, weight, other, 1 - weight, 0).reshape(under.shape)
    boxes, labels = partner.boxes * np.array([fitted[0] / other_width, fitted[1] / other_height] * 2), partner.labels
    if weight < MIN_VISIBILITY:
        rows = hide_boxes(rows, np.array([[0, 0, *fitted]]), width, height)
    if 1 - weight < MIN_VISIBILITY:
        boxes, labels = boxes[:0], labels[:0]
    return Mixed(mixed, rows, boxes, labels)


def mosaic(
    image: np.ndarray, rows: np.ndarray, partners: Partners, dice: np.random.Generator, strengths: Strengths
) -> Mixed | None:
    """Parts of the image and of three partners around a center that moves (Bochkovskiy et al., YOLOv4, 2020).

    Each fills its quarter with a part of it, cut anywhere, at a scale between the smallest that fills the quarter and
    the one it has. Boxes are clipped to their quarter; those left with less than MIN_VISIBILITY of their area are lost.
    """
    height, width = image.shape[:2]
    if min(height, width) < MIN_MOSAIC_SIDE_PX:
        return None
    shift_x, shift_y = dice.uniform(-strengths["center"], strengths["center"], 2)
    x, y = round(width * (0.5 + shift_x)), round(height * (0.5 + shift_y))
    cells = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
    own = int(dice.integers(4))
    others = [partners.draw(dice) for _ in range(3)]
    if any(other is None for other in others):
        return None
    canvas = np.empty_like(image)
    kept, boxes, labels = rows[:0], [], []
    for number, cell in enumerate(cells):
        if number == own:
            kept = _fill(canvas, cell, image, rows, dice)
            continue
        partner = others.pop()
        found = _fill(canvas, cell, partner.image, _indexed(partner.boxes), dice)
        boxes.append(found[:, :4])
        labels.append(partner.labels[found[:, 4].astype(np.int64)])
    return Mixed(canvas, kept, np.concatenate(boxes), np.concatenate(labels))


def copy_paste(
    image: np.ndarray, rows: np.ndarray, partners: Partners, dice: np.random.Generator, strengths: Strengths
) -> Mixed | None:
    """Rectangles of some objects of a partner, pasted at their own size where they fit and hide least.

    As in Ghiasi et al., Simple Copy-Paste, 2021, but boxes instead of masks. Of NUM_PLACES places the one that hides
    the smallest part of the image's boxes is taken; pasted rectangles do not overlap. What they hide is shrunk or lost
    (see :func:`hide_boxes`); parts of other objects inside a rectangle come along with their labels.
    """
    partner = partners.draw(dice)
    if partner is None or not len(partner.boxes):
        return None
    height, width = image.shape[:2]
    num_objects = int(dice.integers(1, int(strengths["objects"]) + 1))
    canvas, pasted, boxes, labels = image.copy(), np.zeros((0, 4), np.int64), [], []
    for index in dice.permutation(len(partner.boxes))[:num_objects]:
        left, top = np.floor(partner.boxes[index, :2]).astype(int)
        right, bottom = np.ceil(partner.boxes[index, 2:]).astype(int)
        place = _find_place(right - left, bottom - top, width, height, rows, pasted, dice)
        if place is None:
            continue
        x, y = place
        canvas[y : y + bottom - top, x : x + right - left] = partner.image[top:bottom, left:right]
        pasted = np.concatenate([pasted, [[x, y, x + right - left, y + bottom - top]]])
        inside = _indexed(partner.boxes - [left, top, left, top])
        found = visible_rows(inside, right - left, bottom - top, MIN_VISIBILITY)
        boxes.append(found[:, :4] + [x, y, x, y])
        labels.append(partner.labels[found[:, 4].astype(np.int64)])
    if not len(pasted):
        return None
    return Mixed(canvas, _hide(rows, pasted, width, height), np.concatenate(boxes), np.concatenate(labels))


def _find_place(
    object_width: int,
    object_height: int,
    width: int,
    height: int,
    rows: np.ndarray,
    pasted: np.ndarray,
    dice: np.random.Generator,
) -> tuple[int, int] | None:
    """The left top corner, of NUM_PLACES at random, at which the object hides least; None when it fits nowhere."""
    if object_width > width or object_height > height:
        return None
    corners = np.stack(
        [
            dice.integers(0, width - object_width + 1, NUM_PLACES),
            dice.integers(0, height - object_height + 1, NUM_PLACES),
        ],
        axis=1,
    )
    places = np.concatenate([corners, corners + [object_width, object_height]], axis=1)
    hidden = _overlaps(places, rows[:, :4]) / np.maximum((rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1]), 1e-9)
    is_free = (_overlaps(places, pasted) == 0).all(axis=1)
    if not is_free.any():
        return None
    best = np.where(is_free, hidden.sum(axis=1), np.inf).argmin()
    return int(corners[best, 0]), int(corners[best, 1])


def _overlaps(places: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """[places, boxes]: the area that each pair of xyxy boxes shares."""
    low = np.maximum(places[:, None, :2], boxes[None, :, :2])
    high = np.minimum(places[:, None, 2:4], boxes[None, :, 2:4])
    return (high - low).clip(0).prod(axis=2)


def _hide(rows: np.ndarray, holes: np.ndarray, width: int, height: int) -> np.ndarray:
    """As :func:`hide_boxes`, in the order of ``rows``; only those that a hole touches are looked at pixel by pixel."""
    is_touched = (_overlaps(rows[:, :4], holes) > 0).any(axis=1)
    hidden = np.concatenate([rows[~is_touched], hide_boxes(rows[is_touched], holes, width, height)])
    return hidden[hidden[:, 4].argsort(kind="stable")]


def _fill(
    canvas: np.ndarray, cell: tuple[int, int, int, int], source: np.ndarray, rows: np.ndarray, dice: np.random.Generator
) -> np.ndarray:
    """Fill a cell (xyxy) of the canvas with a part of ``source``; returns its rows in pixels of the canvas."""
    x1, y1, x2, y2 = cell
    width, height = x2 - x1, y2 - y1
    source_height, source_width = source.shape[:2]
    covering = max(width / source_width, height / source_height)
    scale = dice.uniform(covering, max(covering, 1.0))
    part_width = min(source_width, max(1, round(width / scale)))
    part_height = min(source_height, max(1, round(height / scale)))
    left = int(dice.integers(source_width - part_width + 1))
    top = int(dice.integers(source_height - part_height + 1))
    canvas[y1:y2, x1:x2] = _resized(source[top : top + part_height, left : left + part_width], width, height)
    moved = rows.copy()
    moved[:, :4] = (rows[:, :4] - [left, top, left, top]) * np.array([width / part_width, height / part_height] * 2)
    moved = visible_rows(moved, width, height, MIN_VISIBILITY)
    moved[:, :4] += [x1, y1, x1, y1]
    return moved


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3]; linear down to half the size, where area averaging begins to look better."""
    if image.shape[:2] == (height, width):
        return image
    is_much_smaller = width * 2 < image.shape[1] or height * 2 < image.shape[0]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if is_much_smaller else cv2.INTER_LINEAR)


def _indexed(boxes: np.ndarray) -> np.ndarray:
    """Boxes [N, 4] as rows [N, 5]."""
    return np.concatenate([boxes, np.arange(len(boxes))[:, None]], axis=1)


Mixer = Callable[[np.ndarray, np.ndarray, Partners, np.random.Generator, Strengths], Mixed | None]
MIXERS: dict[str, Mixer] = {"MixUp": mix_up, "Mosaic": mosaic, "CopyPaste": copy_paste}
