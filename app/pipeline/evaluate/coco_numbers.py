"""What a detector is worth on a split: COCO's twelve figures and those beyond them, by class too. Imports no torch.

Everything is computed from unfiltered detections: a score threshold before mAP lowers it (the same detector scored
.631 unfiltered and .352 above .5). COCO counts at most 100 detections of a class in an image; that cap is raised to
what the images need, so 250 perfect boxes score 1.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.curves import BestF1, ThresholdCurve
from app.pipeline.evaluate.engine import PrecisionRecall, compute_precision_recall
from app.pipeline.evaluate.matching import match_columns
from app.pipeline.evaluate.overlaps import mean_best_iou
from app.pipeline.types import Detections

__all__ = ["Evaluation", "GroundTruth", "evaluate"]

COCO_CAPS = (1, 10, 100)
F1_IOU = 0.5
_IOU_50, _IOU_75 = 0, 5
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
_SIZES = (("s", _SMALL), ("m", _MEDIUM), ("l", _LARGE))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The figures of one set of detections; -1 where there is no labelled box to measure on.

    map, map50, map75: mean over classes of the average precision at IoU .50:.95, .50 and .75.
    f1: the best F1 at IoU .5 over all score thresholds, all classes counted together (micro); f1_threshold is where:
    keep detections whose score is at least that. precision_at, recall_at: there, at IoU .5.
    per_class: dicts of label, name, category_id, ap, ap50, ap75, num_truth, f1, threshold (the class's own best F1), ar
    at the largest cap, and by size aps, apm, apl, ars, arm, arl (areas below 32², up to 96², above).
    coco: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl; when the cap was raised, AR<cap> besides.
    mean_best_iou: over the detections kept at f1_threshold, per_prediction: the mean of each one's best IoU with a
    labelled box of its class; per_truth: the mean of each labelled box's best IoU with a kept detection of its class.
    count_difference: kept detections less labelled boxes of each image, as columns difference and images (how many
    images have it); mean is their mean. Crowds, and detections that fall into them, are counted nowhere.
    curves: "recall" (101 points), "precision" (label -> 101 points at IoU .5), "threshold" (threshold, precision,
    recall, f1: 101 points each, all classes together).
    max_detections: the cap that was used, per image and class.
    """

    map: float
    map50: float
    map75: float
    f1: float
    f1_threshold: float
    precision_at: float
    recall_at: float
    per_class: list[dict[str, Any]]
    coco: dict[str, float]
    mean_best_iou: dict[str, float]
    count_difference: dict[str, Any]
    curves: dict[str, Any]
    max_detections: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values by field name."""
        return asdict(self)


def evaluate(truth: GroundTruth, detections: Mapping[int, Detections]) -> Evaluation:
    """Judge ``detections`` (image id -> all its detections, unfiltered) against ``truth``.

    Images of ``truth`` without an entry count as having no detections. Raises EvaluationError for an image that
    ``truth`` does not have.
    """
    return evaluate_columns(truth, DetectionColumns.from_detections(truth, detections))


def evaluate_columns(truth: GroundTruth, columns: DetectionColumns) -> Evaluation:
    """As :func:`evaluate`, for detections in columns."""
    caps = _choose_caps(truth, columns)
    numbers = compute_precision_recall(truth, columns, caps)
    matches = match_columns(truth, columns, F1_IOU)
    # Sorted once: all that is made of these rows is then in order of score already.
    counted = np.argsort(-columns.scores, kind="stable")
    counted = counted[~matches.is_ignored[counted]]
    outcomes = _Counted(columns.scores[counted], matches.is_true_positive[counted], columns.labels[counted])
    curve = ThresholdCurve.from_outcomes(outcomes.scores, outcomes.is_right, int((~truth.is_crowd).sum()))
    best = curve.best()
    is_kept = (columns.scores >= best.threshold) & ~matches.is_ignored
    coco = _coco_figures(numbers, caps)
    return Evaluation(
        map=coco["AP"],
        map50=coco["AP50"],
        map75=coco["AP75"],
        f1=best.f1,
        f1_threshold=best.threshold,
        precision_at=best.precision,
        recall_at=best.recall,
        per_class=_class_rows(truth, outcomes, numbers),
        coco=coco,
        mean_best_iou=asdict(mean_best_iou(truth, columns, is_kept)),
        count_difference=_count_differences(truth, columns, is_kept),
        curves={
            "recall": np.linspace(0, 1, 101).tolist(),
            "precision": {
                str(label): numbers.precision[_IOU_50, :, label - 1, _ALL, -1].tolist() for label in _labels(truth)
            },
            "threshold": curve.sampled(),
        },
        max_detections=caps[-1],
    )


def _labels(truth: GroundTruth) -> range:
    return range(1, len(truth.categories) + 1)


def _choose_caps(truth: GroundTruth, columns: DetectionColumns) -> list[int]:
    """COCO's caps, and one that cuts nothing off when an image has more than 100 boxes of a class."""
    num_labels = len(truth.categories) + 1
    groups = (source.image_index * num_labels + source.labels for source in (truth, columns))
    most = max((int(np.unique(group, return_counts=True)[1].max()) for group in groups if len(group)), default=0)
    return [*COCO_CAPS, most] if most > COCO_CAPS[-1] else list(COCO_CAPS)


def _coco_figures(numbers: PrecisionRecall, caps: list[int]) -> dict[str, float]:
    def ap(iou: slice | int = slice(None), area: int = _ALL) -> float:
        return _mean(numbers.precision[iou][..., area, -1])

    def ar(cap: int = -1, area: int = _ALL) -> float:
        return _mean(numbers.recall[:, :, area, cap])

    figures = {"AP": ap(), "AP50": ap(_IOU_50), "AP75": ap(_IOU_75)}
    figures |= {"APs": ap(area=_SMALL), "APm": ap(area=_MEDIUM), "APl": ap(area=_LARGE)}
    figures |= {f"AR{cap}": ar(index) for index, cap in enumerate(caps)}
    return figures | {"ARs": ar(area=_SMALL), "ARm": ar(area=_MEDIUM), "ARl": ar(area=_LARGE)}


def _mean(values: np.ndarray) -> float:
    """The mean of what could be measured; -1 when nothing could."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else -1.0


def _count_differences(truth: GroundTruth, columns: DetectionColumns, is_kept: np.ndarray) -> dict[str, Any]:
    """The histogram of kept detections less labelled boxes, over images."""
    labelled = truth.image_index[~truth.is_crowd]
    difference = np.bincount(columns.image_index[is_kept], minlength=truth.num_images) - np.bincount(
        labelled, minlength=truth.num_images
    )
    values, images = np.unique(difference, return_counts=True)
    return {"difference": values.tolist(), "images": images.tolist(), "mean": float(difference.mean())}


@dataclass(frozen=True, eq=False)
class _Counted:
    """Detections that count, by falling score: scores float64, is_right bool and labels int64, [S] each."""

    scores: np.ndarray
    is_right: np.ndarray
    labels: np.ndarray


def _class_rows(truth: GroundTruth, outcomes: _Counted, numbers: PrecisionRecall) -> list[dict[str, Any]]:
    by_label = np.argsort(outcomes.labels, kind="stable")
    ends = np.searchsorted(outcomes.labels[by_label], np.arange(1, len(truth.categories) + 2))
    num_truth = np.bincount(truth.labels[~truth.is_crowd], minlength=len(truth.categories) + 1)
    rows = []
    for label in _labels(truth):
        chosen = by_label[ends[label - 1] : ends[label]]
        curve = ThresholdCurve.from_outcomes(outcomes.scores[chosen], outcomes.is_right[chosen], int(num_truth[label]))
        rows.append(_class_row(truth, curve, numbers, label))
    return rows


def _class_row(truth: GroundTruth, curve: ThresholdCurve, numbers: PrecisionRecall, label: int) -> dict[str, Any]:
    best: BestF1 = curve.best()
    precision, recall = numbers.precision[:, :, label - 1], numbers.recall[:, label - 1]
    return {
        "label": label,
        "name": truth.categories.name_of(label),
        "category_id": truth.categories.id_of(label),
        "ap": _mean(precision[:, :, _ALL, -1]),
        "ap50": _mean(precision[_IOU_50, :, _ALL, -1]),
        "ap75": _mean(precision[_IOU_75, :, _ALL, -1]),
        "num_truth": curve.num_truth,
        "f1": best.f1,
        "threshold": best.threshold,
        "ar": _mean(recall[:, _ALL, -1]),
        **{f"ap{size}": _mean(precision[:, :, area, -1]) for size, area in _SIZES},
        **{f"ar{size}": _mean(recall[:, area, -1]) for size, area in _SIZES},
    }
