"""What keeps AP50 down: every false detection and every missed object has one kind, and each kind its price.

The kinds and their prices are those of TIDE (Bolya, Foley, Hays and Hoffman, ECCV 2020, section 2): with t_f = .5 and
t_b = .1, a detection that took no labelled box is, by its largest overlap,

- localization: t_b <= IoU <= t_f with a box of its class;
- classification: IoU >= t_f with a box of another class;
- duplicate: IoU >= t_f with a box of its class, which a surer one took;
- background: IoU <= t_b with all boxes;
- both: what is left, a poor overlap with a box of another class.

Missed is a labelled box that nobody took and that no localization or classification error lies on. The price of a kind
is the AP50 gained by mending it alone: a localization or classification error becomes a true positive if it is the
surest of those on its box and nobody took the box, every other false detection is struck out, and a missed box is no
longer asked for. Where the paper leaves room, the order of the tests and the pairing follow its authors' program
(tidecv 1.0); the mean is COCO's, over the classes that have labelled boxes, so that the budget starts from mAP50.

Legend: D detections, M labelled boxes; rows as in ``columns``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from app.pipeline.evaluate.average_precision import average_precision
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.matching import Matches, match_columns
from app.pipeline.evaluate.overlaps import BestOverlaps, best_overlaps

FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.1

# What people do about each kind.
ADVICE = {
    "classification": "See which pairs the confusion matrix shows: merge classes, mend their labels, add examples.",
    "localization": "Label tightly and alike; train longer or on larger images, with an IoU loss for the boxes.",
    "both": "Rarely worth a step of its own: it falls with the errors of class and of place.",
    "duplicate": "Lower the NMS threshold, so that fewer boxes remain on one object.",
    "background": "First look for objects without a label; then add images without objects, and train longer.",
    "missed": "Train on larger images, with anchors that reach these sizes, and with more examples of them.",
}
KINDS = tuple(ADVICE)
TOTALS = ("false_positives", "false_negatives")  # of all kinds that are false detections; of all that was not found
NO_ERROR = -1
_CLASSIFICATION, _LOCALIZATION, _BOTH, _DUPLICATE, _BACKGROUND, _MISSED = range(len(KINDS))


@dataclass(frozen=True, eq=False)
class ErrorBudget:
    """The errors of one set of detections, and what AP50 each kind costs.

    ap50: the mAP50 they are measured from. gains: kind -> AP50 gained by mending that kind alone, at least 0.
    false_positives, false_negatives: AP50 gained if every false detection came last, if nothing was missed.
    kind_of: int8 [D], index into KINDS, NO_ERROR for detections that are right or left out. concerns: int32 [D], the
    labelled box that a detection's error lies on, -1 without. missed, not_found: int64, rows of the missed boxes, and
    of all boxes that nobody took.
    """

    ap50: float
    gains: dict[str, float]
    false_positives: float
    false_negatives: float
    kind_of: np.ndarray
    concerns: np.ndarray
    missed: np.ndarray
    not_found: np.ndarray

    def rows(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """The detections and the labelled boxes of the errors of a kind or total: rows, -1 for none of it."""
        if kind in ("missed", "false_negatives"):
            boxes = self.missed if kind == "missed" else self.not_found
            return np.full(len(boxes), -1), boxes
        is_meant = self.kind_of != NO_ERROR if kind == "false_positives" else self.kind_of == KINDS.index(kind)
        rows = np.flatnonzero(is_meant)
        return rows, self.concerns[rows]

    def count(self, kind: str) -> int:
        """How many errors are of a kind or total."""
        return len(self.rows(kind)[0])

    def to_json(self) -> dict[str, Any]:
        """ap50, kinds (kind, d_ap50, count, advice), totals (the same without advice) and the prices of these."""
        prices = {"false_positives": self.false_positives, "false_negatives": self.false_negatives}
        kinds = [
            {"kind": kind, "d_ap50": self.gains[kind], "count": self.count(kind), "advice": ADVICE[kind]}
            for kind in KINDS
        ]
        totals = [{"kind": kind, "d_ap50": prices[kind], "count": self.count(kind)} for kind in TOTALS]
        return {"ap50": self.ap50, "kinds": kinds, "totals": totals, **prices}


def spend_errors(truth: GroundTruth, detections: DetectionColumns) -> ErrorBudget:
    """Sort the errors of all detections, whatever their score, into kinds and price them."""
    matches = match_columns(truth, detections, FOREGROUND_IOU)
    overlaps = best_overlaps(truth, detections)
    kind_of = _sort_into_kinds(matches, overlaps)
    concerns = _concerned_boxes(kind_of, overlaps)
    del overlaps
    is_taken = np.zeros(len(truth.labels), bool)
    is_taken[matches.truth_of[matches.is_true_positive]] = True
    is_reachable = np.zeros(len(truth.labels), bool)
    is_mendable = (kind_of == _CLASSIFICATION) | (kind_of == _LOCALIZATION)
    is_reachable[concerns[is_mendable]] = True
    missed = np.flatnonzero(~is_taken & ~is_reachable & ~truth.is_crowd)
    becomes_right = _surest_on_each_free_box(detections, concerns, is_mendable, is_taken)
    ledger = _Ledger(truth, detections, matches)
    gains = {}
    for number, kind in enumerate(KINDS):
        if number == _MISSED:
            gains[kind] = ledger.price(num_truth=ledger.num_truth - ledger.count_boxes(missed))
            continue
        is_mended = kind_of == number
        labels = detections.labels.copy()
        if number == _CLASSIFICATION:
            labels[is_mended] = truth.labels[concerns[is_mended]]
        is_right = ledger.is_right | (is_mended & becomes_right)
        gains[kind] = ledger.price(is_right, labels, is_counted=ledger.is_counted & (~is_mended | becomes_right))
    return ErrorBudget(
        ap50=ledger.ap50,
        gains={kind: max(gain, 0.0) for kind, gain in gains.items()},
        false_positives=ledger.price(is_first=ledger.is_right),
        false_negatives=ledger.price(num_truth=ledger.count_boxes(np.flatnonzero(is_taken))),
        kind_of=kind_of,
        concerns=concerns,
        missed=missed,
        not_found=np.flatnonzero(~is_taken & ~truth.is_crowd),
    )


def _sort_into_kinds(matches: Matches, overlaps: BestOverlaps) -> np.ndarray:
    """int8 [D]; the first test that holds decides."""
    own, other = overlaps.own_iou, overlaps.other_iou
    tests = [
        (own >= BACKGROUND_IOU) & (own <= FOREGROUND_IOU),
        other >= FOREGROUND_IOU,
        own >= FOREGROUND_IOU,
        np.maximum(own, other) <= BACKGROUND_IOU,
    ]
    *kinds, both = np.array([_LOCALIZATION, _CLASSIFICATION, _DUPLICATE, _BACKGROUND, _BOTH], np.int8)
    return np.where(matches.truth_of < 0, np.select(tests, kinds, both), np.int8(NO_ERROR))


def _concerned_boxes(kind_of: np.ndarray, overlaps: BestOverlaps) -> np.ndarray:
    lies_on_own = (kind_of == _LOCALIZATION) | (kind_of == _DUPLICATE)
    lies_on_other = (kind_of == _CLASSIFICATION) | (kind_of == _BOTH)
    return np.select([lies_on_own, lies_on_other], [overlaps.own, overlaps.other], np.int32(-1))


def _surest_on_each_free_box(
    detections: DetectionColumns, concerns: np.ndarray, is_mendable: np.ndarray, is_taken: np.ndarray
) -> np.ndarray:
    """bool [D]: of the errors on a box that nobody took, the one with the highest score (the first of equals)."""
    rows = np.flatnonzero(is_mendable)
    rows = rows[~is_taken[concerns[rows]]]
    rows = rows[np.lexsort((rows, -detections.scores[rows], concerns[rows]))]
    is_surest = np.append(True, np.diff(concerns[rows]) > 0)[: len(rows)]
    chosen = np.zeros(len(concerns), bool)
    chosen[rows[is_surest]] = True
    return chosen


class _Ledger:
    """AP50 as it is, and as it would be with other outcomes; all averages over the classes that have labelled boxes."""

    def __init__(self, truth: GroundTruth, detections: DetectionColumns, matches: Matches) -> None:
        self._num_classes = len(truth.categories)
        self._truth_labels = truth.labels
        self._labels = detections.labels
        self._scores = detections.scores
        self._by_score = np.argsort(-detections.scores, kind="stable").astype(np.int32)
        self.is_right = matches.is_true_positive
        self.is_counted = ~matches.is_ignored
        self.num_truth = self.count_boxes(np.flatnonzero(~truth.is_crowd))
        self.ap50 = self._mean_ap(self.is_right, self._labels, self.is_counted, self.num_truth, self._by_score)

    def count_boxes(self, rows: np.ndarray) -> np.ndarray:
        """int64 [K], how many of these labelled boxes each class has."""
        return np.bincount(self._truth_labels[rows], minlength=self._num_classes + 1)[1:]

    def price(
        self,
        is_right: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        is_counted: np.ndarray | None = None,
        num_truth: np.ndarray | None = None,
        is_first: np.ndarray | None = None,
    ) -> float:
        """AP50 with what is given in place of what is, less AP50 as it is; ``is_first`` come before all others."""
        order = self._by_score
        if is_first is not None:
            order = order[np.argsort(~is_first[order], kind="stable")]
        changed = self._mean_ap(
            self.is_right if is_right is None else is_right,
            self._labels if labels is None else labels,
            self.is_counted if is_counted is None else is_counted,
            self.num_truth if num_truth is None else num_truth,
            order,
        )
        return changed - self.ap50

    def _mean_ap(
        self,
        is_right: np.ndarray,
        labels: np.ndarray,
        is_counted: np.ndarray,
        num_truth: np.ndarray,
        order: np.ndarray,
    ) -> float:
        """The mean; a class that lost all its boxes counts 0 while it has detections, and else leaves the mean."""
        order = order[is_counted[order]]
        narrow = labels[order].astype(np.min_scalar_type(self._num_classes))  # sorted in linear time
        order = order[np.argsort(narrow, kind="stable")]
        ends = np.searchsorted(labels[order], np.arange(1, self._num_classes + 2))
        values = []
        for label in np.flatnonzero(self.num_truth) + 1:
            rows = order[ends[label - 1] : ends[label]]
            if num_truth[label - 1]:
                values.append(average_precision(is_right[rows], int(num_truth[label - 1])))
            elif len(rows):
                values.append(0.0)
        return float(np.mean(values)) if values else -1.0
