"""Which class was taken for which: labelled boxes against detections at one score and one IoU. Imports no torch.

Detections take labelled boxes of their own class first, by COCO's rule, so that the diagonal holds exactly the true
positives of those thresholds. What is left over is matched by the same rule whatever its class: those pairs are
confusions. What is left then is a false alarm (a detection without a box: row 0, the background) or missed (a box
without a detection: column 0).

Legend: K classes, C pairs; rows as in ``columns``.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.matching import match_columns, match_whatever_class
from app.pipeline.evaluate.suppression import suppress

BACKGROUND = 0


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Counts with what was counted.

    counts: int64 [K + 1, K + 1], row the labelled class and column the predicted one, 0 the background. Pairs: truth_of
    and detection_of, int64 [C], rows of the GroundTruth and of the DetectionColumns, -1 for the background.
    """

    truth: GroundTruth
    detections: DetectionColumns
    score_threshold: float
    iou_threshold: float
    truth_of: np.ndarray
    detection_of: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        size = len(self.truth.categories) + 1
        cell = self._labels(self.truth.labels, self.truth_of) * size
        cell = cell + self._labels(self.detections.labels, self.detection_of)
        return np.bincount(cell, minlength=size * size).reshape(size, size)

    def cell(self, truth_label: int, predicted_label: int) -> tuple[np.ndarray, np.ndarray]:
        """``truth_of`` and ``detection_of`` of the pairs of a cell, the surest detections first."""
        is_in = (self._labels(self.truth.labels, self.truth_of) == truth_label) & (
            self._labels(self.detections.labels, self.detection_of) == predicted_label
        )
        truth_rows, detection_rows = self.truth_of[is_in], self.detection_of[is_in]
        order = np.argsort(-self._at(self.detections.scores, detection_rows), kind="stable")
        return truth_rows[order], detection_rows[order]

    def to_json(self) -> dict[str, Any]:
        """score_threshold, iou_threshold, labels (names, the background first) and counts (rows of lists)."""
        return {
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "labels": ["background", *self.truth.categories.names],
            "counts": self.counts.tolist(),
        }

    def _labels(self, labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.where(rows >= 0, self._at(labels, rows), BACKGROUND)

    @staticmethod
    def _at(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """``values[rows]``, 0 where the row is -1."""
        return np.append(values, values.dtype.type(0))[rows]


def confuse(
    truth: GroundTruth,
    detections: DetectionColumns,
    score_threshold: float,
    iou_threshold: float = 0.5,
    nms_threshold: float = 1.0,
) -> ConfusionMatrix:
    """Count the detections whose score is at least ``score_threshold``; those that fall into crowds are left out.

    With an ``nms_threshold`` below 1 only those count that NMS of each class leaves.
    """
    shown = np.flatnonzero(detections.scores >= score_threshold)
    if nms_threshold < 1:
        shown = shown[suppress(detections.select(shown), nms_threshold)]
    kept = detections.select(shown)
    first = match_columns(truth, kept, iou_threshold)
    truth_of = np.where(first.is_true_positive, first.truth_of, -1)
    is_free = ~truth.is_crowd
    is_free[truth_of[truth_of >= 0]] = False
    free_boxes = np.flatnonzero(is_free)
    free_detections = np.flatnonzero(first.truth_of < 0)
    second = match_whatever_class(_only(truth, free_boxes), kept.select(free_detections), iou_threshold)
    is_confused = second.truth_of >= 0
    truth_of[free_detections[is_confused]] = free_boxes[second.truth_of[is_confused]]
    is_missed = is_free.copy()
    is_missed[truth_of[truth_of >= 0]] = False
    missed = np.flatnonzero(is_missed)
    counted = np.flatnonzero(~first.is_ignored)
    return ConfusionMatrix(
        truth=truth,
        detections=detections,
        score_threshold=float(score_threshold),
        iou_threshold=float(iou_threshold),
        truth_of=np.concatenate([truth_of[counted], missed]),
        detection_of=np.concatenate([shown[counted], np.full(len(missed), -1)]),
    )


def _only(truth: GroundTruth, rows: np.ndarray) -> GroundTruth:
    """The same images with some of their labelled boxes."""
    return replace(
        truth,
        image_index=truth.image_index[rows],
        boxes=truth.boxes[rows],
        labels=truth.labels[rows],
        is_crowd=truth.is_crowd[rows],
    )
