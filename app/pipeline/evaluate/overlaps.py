"""How far detections and labelled boxes overlap, whether or not COCO's rule lets them take each other.

Legend: D detections, M labelled boxes, P pairs; frames and dtypes as in ``columns``. Crowd boxes are left out: no
single object is meant by them. Pairs are looked at in pieces, so that memory does not grow with crowded images.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.matching import box_ious, pairs_of_equal_group


@dataclass(frozen=True, eq=False)
class BestOverlaps:
    """The labelled box that each detection overlaps most: one of its own class, and one of any other.

    own_iou, other_iou: float64 [D], 0 without. own, other: int32 [D], row in the GroundTruth, -1 where nothing overlaps
    (among equal overlaps the first row).
    """

    own_iou: np.ndarray
    own: np.ndarray
    other_iou: np.ndarray
    other: np.ndarray


@dataclass(frozen=True)
class MeanBestIou:
    """The mean over detections of the best IoU with a labelled box of their class, and the reverse; -1 without any."""

    per_prediction: float
    per_truth: float


def best_overlaps(truth: GroundTruth, detections: DetectionColumns) -> BestOverlaps:
    """The best partners of every detection within its image."""
    num_detections = len(detections.scores)
    own_iou, other_iou = np.zeros(num_detections), np.zeros(num_detections)
    own, other = (np.full(num_detections, -1, np.int32) for _ in range(2))
    for detection, labelled, iou in _overlapping_pairs(truth, detections, truth.image_index, detections.image_index):
        is_own = detections.labels[detection] == truth.labels[labelled]
        for chosen, best_iou, best in ((is_own, own_iou, own), (~is_own, other_iou, other)):
            _keep_best(detection[chosen], labelled[chosen], iou[chosen], best_iou, best)
    return BestOverlaps(own_iou, own, other_iou, other)


def mean_best_iou(truth: GroundTruth, detections: DetectionColumns, is_kept: np.ndarray) -> MeanBestIou:
    """Over the detections with ``is_kept`` (bool [D]) and all labelled boxes but crowds; overlaps within a class."""
    of_detection, of_truth = np.zeros(len(detections.scores)), np.zeros(len(truth.labels))
    kept = detections.select(is_kept)
    rows = np.flatnonzero(is_kept)
    for detection, labelled, iou in _overlapping_pairs(truth, kept, truth.group, truth.group_of(kept)):
        np.maximum.at(of_detection, rows[detection], iou)
        np.maximum.at(of_truth, labelled, iou)
    return MeanBestIou(_mean(of_detection[is_kept]), _mean(of_truth[~truth.is_crowd]))


def _overlapping_pairs(
    truth: GroundTruth, detections: DetectionColumns, truth_group: np.ndarray, group: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows of detection and labelled box, and their IoU, where they overlap; each detection's pairs come together."""
    for detection, labelled in pairs_of_equal_group(group, truth_group):
        iou = box_ious(detections.boxes[detection], truth.boxes[labelled], np.zeros(len(labelled), bool))
        keep = (iou > 0) & ~truth.is_crowd[labelled]
        yield detection[keep], labelled[keep], iou[keep]


def _keep_best(
    detection: np.ndarray, labelled: np.ndarray, iou: np.ndarray, best_iou: np.ndarray, best: np.ndarray
) -> None:
    """Write the best pair of each detection into ``best_iou`` and ``best``."""
    order = np.lexsort((labelled, -iou, detection))
    is_first = np.append(True, np.diff(detection[order]) > 0)[: len(order)]
    chosen = order[is_first]
    best_iou[detection[chosen]] = iou[chosen]
    best[detection[chosen]] = labelled[chosen]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else -1.0
