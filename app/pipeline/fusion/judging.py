"""The figures of one trial after another on the same images: those of ``evaluate``, many times as fast.

Fusing is tuned by hundreds of trials, for which ``evaluate`` is too thorough: sizes, curves, classes. Tests hold the
two equal. Imports no torch.
"""

from dataclasses import dataclass

import numpy as np

from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.curves import ThresholdCurve
from app.pipeline.evaluate.matching import LARGEST_THRESHOLD

IOU_THRESHOLDS = np.minimum(np.linspace(0.5, 0.95, 10), LARGEST_THRESHOLD)
_IOU_50, _IOU_75 = 0, 5


@dataclass(frozen=True)
class Figures:
    """map, map50, map75, and F1 at IoU .5 of the detections whose score is at least ``threshold``; 0..1.

    -1 where there is no labelled box to measure on.
    """

    map: float
    map50: float
    map75: float
    f1: float
    threshold: float


class Judge:
    """Labelled boxes sorted for matching. Raises nothing; images without boxes count too."""

    def __init__(self, truth: GroundTruth) -> None:
        self._num_labels = len(truth.categories) + 1
        group = truth.image_index * self._num_labels + truth.labels
        order = np.argsort(group, kind="stable")
        self._first = np.searchsorted(group[order], np.arange(truth.num_images * self._num_labels + 1))
        self._boxes = np.ascontiguousarray(truth.boxes[order])
        self._is_crowd = truth.is_crowd[order]
        self._num_truth = np.bincount(truth.labels[~truth.is_crowd], minlength=self._num_labels)[1:]

    @property
    def num_objects(self) -> int:
        """Labelled boxes that can be found."""
        return int(self._num_truth.sum())

    def judge(self, columns: DetectionColumns, threshold: float | None = None) -> Figures:
        """Figures of detections; F1 is the best one and ``threshold`` where it is, unless a threshold is given."""
        from app.pipeline.fusion.judging_kernel import IGNORED, TRUE, judge_rows  # loads numba

        order = np.argsort(-columns.scores, kind="stable")
        precision, outcome = judge_rows(
            order,
            columns.image_index.astype(np.int64) * self._num_labels + columns.labels,
            columns.labels.astype(np.int64, copy=False),
            columns.boxes.astype(np.float64, copy=False),
            self._first,
            self._boxes,
            self._is_crowd,
            self._num_truth,
            IOU_THRESHOLDS,
        )
        counted = outcome[_IOU_50] != IGNORED
        scores, is_true = columns.scores[order][counted], outcome[_IOU_50][counted] == TRUE
        curve = ThresholdCurve.from_outcomes(scores, is_true, self.num_objects)
        best = curve.best()
        measured = precision[:, self._num_truth > 0]
        return Figures(
            map=_mean(measured),
            map50=_mean(measured[_IOU_50]),
            map75=_mean(measured[_IOU_75]),
            f1=best.f1 if threshold is None else _f1_at(curve, threshold),
            threshold=best.threshold if threshold is None else threshold,
        )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else -1.0


def _f1_at(curve: ThresholdCurve, threshold: float) -> float:
    """F1 of the detections whose score is at least ``threshold``."""
    count = int(np.searchsorted(-curve.scores, -threshold, side="right"))
    if not curve.num_truth:
        return -1.0
    return float(curve.f1[count - 1]) if count else 0.0
