"""Precision, recall and F1 over the score threshold, and the threshold where F1 is best. Imports no torch."""

from dataclasses import dataclass

import numpy as np

NUM_CURVE_POINTS = 101
NO_TRUTH = -1.0  # COCO's mark of "nothing to measure"


@dataclass(frozen=True, slots=True)
class BestF1:
    """The best F1 and where: keep detections whose score is at least ``threshold``. All -1 without labelled boxes."""

    f1: float
    threshold: float
    precision: float
    recall: float


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """Counts at every distinct score, falling. scores: float64 [S]; tp, fp: int32 [S], of all scores >= it."""

    scores: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    num_truth: int

    @classmethod
    def from_outcomes(cls, scores: np.ndarray, is_true_positive: np.ndarray, num_truth: int) -> "ThresholdCurve":
        """From each detection's score (float [D]) and outcome (bool [D]); leave ignored detections out before."""
        order = np.argsort(-scores, kind="stable")
        return cls.from_sorted(scores[order], is_true_positive[order], num_truth)

    @classmethod
    def from_sorted(cls, scores: np.ndarray, is_true_positive: np.ndarray, num_truth: int) -> "ThresholdCurve":
        """As :meth:`from_outcomes`, of detections by falling score."""
        is_last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
        tp = np.cumsum(is_true_positive, dtype=np.int32)[is_last]
        fp = np.arange(1, len(scores) + 1, dtype=np.int32)[is_last]
        fp -= tp
        return cls(scores[is_last], tp, fp, num_truth)

    @property
    def f1(self) -> np.ndarray:
        """F1 = 2 TP / (2 TP + FP + FN), float64 [S]; made in place, since there are as many as detections."""
        counted = self.tp + self.fp
        counted += self.num_truth
        f1 = 2.0 * self.tp
        f1 /= np.maximum(counted, 1, out=counted)
        return f1

    def best(self) -> BestF1:
        """The highest F1; among equals the highest threshold. 0 at threshold 0 when nothing was detected."""
        if not self.num_truth:
            return BestF1(NO_TRUTH, 0.0, NO_TRUTH, NO_TRUTH)
        if not len(self.scores):
            return BestF1(0.0, 0.0, 0.0, 0.0)
        index = int(np.argmax(self.f1))
        tp, fp = int(self.tp[index]), int(self.fp[index])
        return BestF1(float(self.f1[index]), float(self.scores[index]), tp / (tp + fp), tp / self.num_truth)

    def sampled(self) -> dict[str, list[float]]:
        """precision, recall and f1 at the thresholds 0, .01 … 1, for drawing. Precision of nothing is 1."""
        thresholds = np.linspace(0, 1, NUM_CURVE_POINTS)
        count = np.searchsorted(-self.scores, -thresholds, side="right")
        tp = np.append(0, self.tp)[count]
        fp = np.append(0, self.fp)[count]
        shown = tp + fp
        precision = np.divide(tp, shown, out=np.ones(len(tp)), where=shown > 0)
        return {
            "threshold": thresholds.tolist(),
            "precision": precision.tolist(),
            "recall": (tp / max(self.num_truth, 1)).tolist(),
            "f1": (2 * tp / np.maximum(shown + self.num_truth, 1)).tolist(),
        }
