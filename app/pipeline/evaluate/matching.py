"""Which detection found which labelled box: COCO's greedy rule, for one image or for all of them at once.

The rule: within an image and a class, detections take their turn by falling score (equal scores in the given order).
Each takes the free labelled box it overlaps most, if their IoU reaches the threshold (equal IoUs: the later box). If
none is free it may fall into a crowd box, which any number of detections may do; the overlap with a crowd box is the
share of the detection that lies inside it. So a detection is a true positive (TP), a false positive (FP) or ignored,
and a labelled box is found or a false negative (FN). ``widgets/matching.js`` is the same rule in the browser.

Detections below a score threshold come last in turn, so they never change what the others got: matching once without
a threshold answers for every threshold.

Legend: I images, M labelled boxes, D detections; frames and dtypes as in ``columns``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.types import Detections

# As pycocotools: an overlap of exactly 1 must still count when the threshold is 1.
LARGEST_THRESHOLD = 1 - 1e-10
# Small enough for a processor's cache: memory stays flat, and time with it.
ROWS_AT_ONCE = 1 << 13
PAIRS_AT_ONCE = 1 << 13


@dataclass(frozen=True, eq=False)
class Matches:
    """The box that each detection took, whatever its score.

    truth_of: int32 [D], row in the GroundTruth, -1 without. is_ignored: bool [D], fell into a crowd box.
    """

    truth_of: np.ndarray
    is_ignored: np.ndarray

    @classmethod
    def of(cls, num_detections: int, candidates: np.ndarray, taken: np.ndarray, is_crowd: np.ndarray) -> "Matches":
        """From what the candidates took (rows of both, -1 for nothing)."""
        truth_of, is_ignored = np.full(num_detections, -1, np.int32), np.zeros(num_detections, bool)
        truth_of[candidates] = taken
        is_ignored[candidates[taken >= 0]] = is_crowd[taken[taken >= 0]]
        return cls(truth_of, is_ignored)

    @property
    def is_true_positive(self) -> np.ndarray:
        """bool [D]"""
        return (self.truth_of >= 0) & ~self.is_ignored


@dataclass(frozen=True, eq=False)
class ImageMatch:
    """One image at one pair of thresholds.

    shown: int64 [S], detections whose score reaches the threshold, in their order. truth_of: int64 [S], labelled box
    that each took, -1 for a false positive. is_ignored: bool [S]. missed: int64, labelled boxes nobody took.
    """

    shown: np.ndarray
    truth_of: np.ndarray
    is_ignored: np.ndarray
    missed: np.ndarray

    @property
    def num_tp(self) -> int:
        return int(((self.truth_of >= 0) & ~self.is_ignored).sum())

    @property
    def num_fp(self) -> int:
        return int((self.truth_of < 0).sum())

    @property
    def num_fn(self) -> int:
        return len(self.missed)


@dataclass(frozen=True, eq=False)
class ErrorCounts:
    """TP, FP and FN of each image; int64 [I] each."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """FP + FN, int64 [I]."""
        return self.fp + self.fn


def match(
    boxes: np.ndarray,
    labels: np.ndarray,
    detections: Detections,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.0,
    is_crowd: np.ndarray | None = None,
) -> ImageMatch:
    """Match the detections of one image against its labelled boxes (float [M, 4] xyxy) and their labels (int [M])."""
    shown = np.flatnonzero(detections.scores.astype(np.float64) >= score_threshold)
    crowd = np.zeros(len(labels), bool) if is_crowd is None else np.asarray(is_crowd, bool)
    matches = _match_groups(
        np.asarray(labels, np.int64),
        np.asarray(boxes, np.float64).reshape(-1, 4),
        crowd,
        detections.labels[shown].astype(np.int64),
        detections.boxes[shown].astype(np.float64),
        detections.scores[shown].astype(np.float64),
        (iou_threshold,),
    )[0]
    found = np.zeros(len(labels), bool)
    found[matches.truth_of[matches.truth_of >= 0]] = True
    return ImageMatch(shown, matches.truth_of, matches.is_ignored, np.flatnonzero(~found & ~crowd))


def match_columns(truth: GroundTruth, detections: DetectionColumns, iou_threshold: float = 0.5) -> Matches:
    """Match all images at once, without a score threshold."""
    return match_columns_at(truth, detections, (iou_threshold,))[0]


def match_columns_at(
    truth: GroundTruth, detections: DetectionColumns, iou_thresholds: Sequence[float]
) -> list[Matches]:
    """Match all images at once, without a score threshold, at each of the IoU thresholds."""
    return _match_groups(
        truth.group,
        truth.boxes,
        truth.is_crowd,
        truth.group_of(detections),
        detections.boxes,
        detections.scores,
        iou_thresholds,
    )


def match_whatever_class(truth: GroundTruth, detections: DetectionColumns, iou_threshold: float) -> Matches:
    """Match all images at once by the same rule, as if all boxes had one class."""
    return _match_groups(
        truth.image_index,
        truth.boxes,
        truth.is_crowd,
        detections.image_index,
        detections.boxes,
        detections.scores,
        (iou_threshold,),
    )[0]


def count_errors(
    truth: GroundTruth, detections: DetectionColumns, matches: Matches, score_threshold: float
) -> ErrorCounts:
    """TP, FP and FN of every image with the detections whose score is at least ``score_threshold``."""
    is_shown = detections.scores >= score_threshold

    def per_image(index: np.ndarray) -> np.ndarray:
        return np.bincount(index, minlength=truth.num_images)

    tp = per_image(detections.image_index[is_shown & matches.is_true_positive])
    fp = per_image(detections.image_index[is_shown & (matches.truth_of < 0)])
    return ErrorCounts(tp=tp, fp=fp, fn=per_image(truth.image_index[~truth.is_crowd]) - tp)


def box_ious(first: np.ndarray, second: np.ndarray, is_crowd: np.ndarray) -> np.ndarray:
    """IoU of corresponding rows, float64 [P]; with a crowd box the union is the first box alone. 0 without area."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    width = np.minimum(first[:, 2], second[:, 2]) - np.maximum(first[:, 0], second[:, 0])
    height = np.minimum(first[:, 3], second[:, 3]) - np.maximum(first[:, 1], second[:, 1])
    intersection = np.maximum(width, 0) * np.maximum(height, 0)  # by columns: np.prod over two is five times slower
    union = (first[:, 2] - first[:, 0]) * (first[:, 3] - first[:, 1])
    other = (second[:, 2] - second[:, 0]) * (second[:, 3] - second[:, 1])
    union = np.where(is_crowd, union, union + other - intersection)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def _match_groups(
    truth_group: np.ndarray,
    truth_boxes: np.ndarray,
    is_crowd: np.ndarray,
    group: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    iou_thresholds: Sequence[float],
) -> list[Matches]:
    """Match rows of equal group (an image and a class), once for each threshold."""

    def overlap(detection: np.ndarray, candidate: np.ndarray) -> np.ndarray:
        return box_ious(boxes[detection], truth_boxes[candidate], is_crowd[candidate])

    lowest = min((*iou_thresholds, LARGEST_THRESHOLD))
    wishes = Wishes.of(group, truth_group, overlap, np.argsort(-scores, kind="stable"), lowest)
    turns = wishes.take_turns(iou_thresholds, is_crowd, is_last=is_crowd)
    return [Matches.of(len(scores), wishes.rows, taken, is_crowd) for taken in turns]


def pairs_of_equal_group(group: np.ndarray, truth_group: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every (detection, labelled box) of one group as two index columns, in pieces of about PAIRS_AT_ONCE.

    At least one piece comes. A detection's pairs come in one piece, detections in their order.
    """
    by_group = np.argsort(truth_group, kind="stable")
    sorted_group = truth_group[by_group]
    for start in range(0, max(len(group), 1), ROWS_AT_ONCE):
        here = group[start : start + ROWS_AT_ONCE]
        first = np.searchsorted(sorted_group, here, side="left")
        length = np.searchsorted(sorted_group, here, side="right") - first
        piece = np.cumsum(length) // PAIRS_AT_ONCE
        for rows in np.split(np.arange(len(here)), np.flatnonzero(np.diff(piece)) + 1):
            lengths = length[rows]
            detection = np.repeat(rows, lengths)
            offset = np.arange(len(detection)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            yield start + detection, by_group[np.repeat(first[rows], lengths) + offset]


@dataclass(frozen=True, eq=False)
class Wishes:
    """The labelled boxes that detections overlap enough to take, in pairs; N candidates: detections that have any.

    rows: int32 [N], the candidates in the order in which they take their turns. candidate: int32 [P] ascending, place
    in ``rows``. truth: int32 [P], row of the labelled box. iou: float64 [P]. A candidate's pairs come by falling IoU,
    of equal ones the later box first.
    """

    rows: np.ndarray
    candidate: np.ndarray
    truth: np.ndarray
    iou: np.ndarray

    @classmethod
    def of(
        cls,
        group: np.ndarray,
        truth_group: np.ndarray,
        overlap: Callable[[np.ndarray, np.ndarray], np.ndarray],
        turns: np.ndarray,
        lowest: float,
    ) -> "Wishes":
        """Pairs of equal group whose ``overlap`` (of rows of both) is at least ``lowest``; turns: int [D], all rows."""
        parts = []
        for detection, truth in pairs_of_equal_group(group, truth_group):
            iou = overlap(detection, truth)
            keep = iou >= lowest
            parts.append((detection[keep].astype(np.int32), truth[keep].astype(np.int32), iou[keep]))
        detection, truth, iou = (np.concatenate(column) for column in zip(*parts, strict=True))
        has_any = np.zeros(len(group), bool)
        has_any[detection] = True
        rows = turns[has_any[turns]].astype(np.int32)
        number = np.empty(len(group), np.int32)
        number[rows] = np.arange(len(rows))
        candidate = number[detection]
        order = np.lexsort((-truth, -iou, candidate))
        return cls(rows, candidate[order], truth[order], iou[order])

    def take_turns(
        self, iou_thresholds: Sequence[float], is_crowd: np.ndarray, is_last: np.ndarray
    ) -> Iterator[np.ndarray]:
        """What the candidates take at each threshold, int64 [N], rows of labelled boxes, -1 for nothing.

        Any number can fall into a box with ``is_crowd``; boxes with ``is_last`` (bool [M]) are taken only by those for
        whom nothing else is free.
        """
        order = np.argsort(2 * self.candidate + is_last[self.truth], kind="stable")
        candidate, truth, iou = self.candidate[order], self.truth[order], self.iou[order]
        for threshold in iou_thresholds:
            reaches = iou >= min(threshold, LARGEST_THRESHOLD)
            yield _assign(candidate[reaches], truth[reaches], len(self.rows), is_crowd)


def _assign(candidate: np.ndarray, wish: np.ndarray, num_candidates: int, is_crowd: np.ndarray) -> np.ndarray:
    """The wish that each candidate gets when they choose in turn; int64 [N], -1 for none.

    candidate: int [P] ascending, numbered by turn; wish: int [P], a candidate's dearest first. All ask at once and a
    box keeps the one whose turn is first, the others ask for their next wish (Gale and Shapley 1962). Boxes that all
    prefer by the same turn make this equal to choosing one after the other, in few rounds.
    """
    taken = np.full(num_candidates, -1, np.int64)
    num_wishes = np.bincount(candidate, minlength=num_candidates)
    end = np.cumsum(num_wishes)
    position = end - num_wishes
    holder = np.full(len(is_crowd), num_candidates, np.int64)
    asking = np.flatnonzero(num_wishes)
    while len(asking):
        asked = wish[position[asking]]
        is_free = is_crowd[asked]
        taken[asking[is_free]] = asked[is_free]
        asking, asked = asking[~is_free], asked[~is_free]
        before = holder[asked]
        np.minimum.at(holder, asked, asking)
        got_it = holder[asked] == asking
        taken[asking[got_it]] = asked[got_it]
        displaced = before[got_it & (before < num_candidates)]
        taken[displaced] = -1
        rejected = np.concatenate([asking[~got_it], displaced])
        position[rejected] += 1
        asking = rejected[position[rejected] < end[rejected]]
    return taken
