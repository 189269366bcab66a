"""Precision and recall by COCO's rules, for boxes of all sizes, in little memory. Imports no torch.

The arrays of pycocotools, bit by bit, from columns. In each area, a labelled box of another size is left out as crowds
are, except that only one detection can fall into it; so is a detection of another size that took nothing. Detections
that reach no labelled box are only counted, which takes a few bytes of each. Precision has its peaks at true positives
and recall its steps, so nothing else is looked at.

Legend: T 10 IoU thresholds .50:.05:.95, R 101 recalls 0:.01:1, K classes, A 4 areas (all, small, medium, large),
C detection caps, D detections, M labelled boxes, N candidates (see ``matching.Wishes``) by class and falling score.
"""

from dataclasses import dataclass

import numpy as np

from app.pipeline.evaluate.average_precision import RECALLS
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth, position_in_image
from app.pipeline.evaluate.matching import ROWS_AT_ONCE, Matches, Wishes

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # as pycocotools makes them, to the bit
AREAS = ((0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10))  # square pixels, both ends included
COCO_CAPS = (1, 10, 100)
_SPACING = np.spacing(1)  # which COCO adds to a denominator


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """precision: float64 [T, R, K, A], at the last cap; recall: float64 [T, K, A, C]; -1 without a labelled box.

    caps: how many detections of an image and class count, the best first: COCO's, and one that cuts nothing off where
    there are more. matches: at IoU .5, whatever the area.
    """

    precision: np.ndarray
    recall: np.ndarray
    caps: tuple[int, ...]
    matches: Matches


def measure(truth: GroundTruth, detections: DetectionColumns, by_class: np.ndarray) -> PrecisionRecall:
    """Judge all detections; by_class: int [D], the rows class by class, by falling score."""
    num_classes = len(truth.categories)
    wishes = _find_wishes(truth, detections, by_class)
    rank = _rank_in_class(truth, detections)
    caps = _choose_caps(truth, rank)
    labels, rank = detections.labels[wishes.rows], rank[wishes.rows]
    is_candidate = np.zeros(len(by_class), bool)
    is_candidate[wishes.rows] = True
    places = np.flatnonzero(is_candidate[by_class])
    first_place = np.cumsum(np.append(0, np.bincount(detections.labels, minlength=num_classes + 1)))
    precision = np.full((len(IOU_THRESHOLDS), len(RECALLS), num_classes, len(AREAS)), -1.0)
    recall = np.full((len(IOU_THRESHOLDS), num_classes, len(AREAS), len(caps)), -1.0)
    matches = None
    for index, area in enumerate(AREAS):
        is_left_out = truth.is_crowd | ~_is_within(truth.boxes, area)
        num_truth = np.bincount(truth.labels[~is_left_out], minlength=num_classes + 1)[1:]
        is_counted = _is_within(detections.boxes, area)
        seen = np.append(0, np.cumsum(is_counted[by_class], dtype=np.int32))
        tally = _Tally(labels, is_counted[wishes.rows], seen[places + 1] - seen[first_place[labels]])
        del seen
        lookup = _Recalls.of(num_truth)
        for step, taken in enumerate(wishes.take_turns(IOU_THRESHOLDS, truth.is_crowd, is_left_out)):
            if matches is None:
                matches = Matches.of(len(detections.scores), wishes.rows, taken, truth.is_crowd)
            found, values = tally.true_positives(taken, is_left_out)
            lookup.fill(precision[step, :, :, index], labels[found], values)
            for column, cap in enumerate(caps):
                is_seen = rank[found] < cap
                num_found = np.bincount(labels[found[is_seen]], minlength=num_classes + 1)[1:]
                np.divide(num_found, num_truth, out=recall[step, :, index, column], where=num_truth > 0)
    return PrecisionRecall(precision, recall, caps, matches)


def sort_by_label(detections: DetectionColumns, rows: np.ndarray, num_classes: int) -> np.ndarray:
    """``rows`` class by class, in their order within one."""
    labels = detections.labels[rows].astype(np.min_scalar_type(num_classes))  # narrow ones are sorted in linear time
    return rows[np.argsort(labels, kind="stable")]


def _find_wishes(truth: GroundTruth, detections: DetectionColumns, by_class: np.ndarray) -> Wishes:
    def overlap(detection: np.ndarray, labelled: np.ndarray) -> np.ndarray:
        return _coco_ious(detections.boxes[detection], truth.boxes[labelled], truth.is_crowd[labelled])

    return Wishes.of(truth.group_of(detections), truth.group, overlap, by_class, IOU_THRESHOLDS[0])


def _coco_ious(boxes: np.ndarray, labelled: np.ndarray, is_crowd: np.ndarray) -> np.ndarray:
    """As ``matching.box_ious``, rounded as where boxes are x, y, width and height."""
    boxes, labelled = boxes.astype(np.float64, copy=False), labelled.astype(np.float64, copy=False)
    sides, others = boxes[:, 2:] - boxes[:, :2], labelled[:, 2:] - labelled[:, :2]
    both = np.minimum(boxes[:, :2] + sides, labelled[:, :2] + others) - np.maximum(boxes[:, :2], labelled[:, :2])
    np.maximum(both, 0, out=both)
    intersection, union = both[:, 0] * both[:, 1], sides[:, 0] * sides[:, 1]
    union = np.where(is_crowd, union, union + others[:, 0] * others[:, 1] - intersection)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def _is_within(boxes: np.ndarray, area: tuple[float, float]) -> np.ndarray:
    """bool, whether the boxes are of that size."""
    is_within = np.empty(len(boxes), bool)
    for start in range(0, len(boxes), ROWS_AT_ONCE):
        piece = boxes[start : start + ROWS_AT_ONCE].astype(np.float64, copy=False)
        size = (piece[:, 2] - piece[:, 0]) * (piece[:, 3] - piece[:, 1])
        is_within[start : start + ROWS_AT_ONCE] = (size >= area[0]) & (size <= area[1])
    return is_within


def _rank_in_class(truth: GroundTruth, detections: DetectionColumns) -> np.ndarray:
    """How many detections of its image and class are surer than each (of equal ones the earlier is), int32 [D]."""
    image_index = detections.image_index
    rank, start = np.empty(len(image_index), np.int32), 0
    while start < len(image_index):
        last = image_index[min(start + ROWS_AT_ONCE, len(image_index)) - 1]
        end = int(np.searchsorted(image_index, last, side="right"))
        rows = slice(start, end)
        group = image_index[rows].astype(np.int64) * (len(truth.categories) + 1) + detections.labels[rows]
        order = np.lexsort((-detections.scores[rows], group))
        rank[start + order] = position_in_image(group[order])
        start = end
    return rank


def _choose_caps(truth: GroundTruth, rank: np.ndarray) -> tuple[int, ...]:
    _, counts = np.unique(truth.group, return_counts=True)
    most = max(int(rank.max(initial=-1)) + 1, int(counts.max(initial=0)))
    return (*COCO_CAPS, most) if most > COCO_CAPS[-1] else COCO_CAPS


@dataclass(frozen=True, eq=False)
class _Tally:
    """Candidates in one area. labels: int [N]. is_counted: bool [N], of the area's size, so that it counts if it takes
    nothing. num_seen: int [N], how many of its class do up to it, as if nobody took anything."""

    labels: np.ndarray
    is_counted: np.ndarray
    num_seen: np.ndarray

    def true_positives(self, taken: np.ndarray, is_left_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which candidates are, and the precision up to each; taken: int [N], labelled boxes, -1 for none."""
        took = taken >= 0
        is_true = took.copy()
        is_true[took] = ~is_left_out[taken[took]]
        changed = np.where(took, is_true.astype(np.int8) - self.is_counted, 0)
        found = np.flatnonzero(is_true)
        num_found = _count_within(self.labels[found], np.ones(len(found), np.int64))
        num_seen = self.num_seen[found] + _count_within(self.labels, changed)[found]
        return found, num_found / (num_seen + _SPACING)


def _count_within(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The running sum of ``values`` within each label; labels: ascending."""
    total = np.append(0, np.cumsum(values, dtype=np.int64))
    return total[1:] - total[np.searchsorted(labels, labels, side="left")]


@dataclass(frozen=True, eq=False)
class _Recalls:
    """needed: of each class with labelled boxes, the place of the true positive that reaches each recall, int [R]."""

    needed: dict[int, np.ndarray]

    @classmethod
    def of(cls, num_truth: np.ndarray) -> "_Recalls":
        return cls(
            {
                label + 1: np.searchsorted(np.arange(1, count + 1) / count, RECALLS)
                for label, count in enumerate(num_truth.tolist())
                if count
            }
        )

    def fill(self, points: np.ndarray, labels: np.ndarray, precision: np.ndarray) -> None:
        """Write the highest precision at or behind each recall into ``points`` [R, K], from that of true positives."""
        for label, needed in self.needed.items():
            first, end = np.searchsorted(labels, (label, label + 1))
            falling = np.maximum.accumulate(precision[first:end][::-1])[::-1]
            points[:, label - 1] = np.append(falling, 0.0)[np.minimum(needed, end - first)]
