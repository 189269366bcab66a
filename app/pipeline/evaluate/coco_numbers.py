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
from app.pipeline.evaluate.overlaps import mean_best_iou
from app.pipeline.evaluate.precision_recall import PrecisionRecall, measure, sort_by_label
from app.pipeline.types import Detections

__all__ = ["Evaluation", "GroundTruth", "evaluate"]

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
    by_score = np.argsort(-columns.scores, kind="stable").astype(np.int32)
    by_class = sort_by_label(columns, by_score, len(truth.categories))
    numbers = measure(truth, columns, by_class)
    rows = _class_rows(truth, columns, numbers, by_class)
    del by_class  # here and below: what is sorted takes as much memory as what it is sorted from
    is_ignored = numbers.matches.is_ignored
    curve = _pooled_curve(truth, columns, numbers, by_score)
    best, sampled = curve.best(), curve.sampled()
    del curve, by_score
    is_kept = (columns.scores >= best.threshold) & ~is_ignored
    coco = _coco_figures(numbers)
    return Evaluation(
        map=coco["AP"],
        map50=coco["AP50"],
        map75=coco["AP75"],
        f1=best.f1,
        f1_threshold=best.threshold,
        precision_at=best.precision,
        recall_at=best.recall,
        per_class=rows,
        coco=coco,
        mean_best_iou=asdict(mean_best_iou(truth, columns, is_kept)),
        count_difference=_count_differences(truth, columns, is_kept),
        curves={
            "recall": np.linspace(0, 1, 101).tolist(),
            "precision": {
                str(label): numbers.precision[_IOU_50, :, label - 1, _ALL].tolist() for label in _labels(truth)
            },
            "threshold": sampled,
        },
        max_detections=numbers.caps[-1],
    )


def _pooled_curve(
    truth: GroundTruth, columns: DetectionColumns, numbers: PrecisionRecall, by_score: np.ndarray
) -> ThresholdCurve:
    """Of all classes together."""
    counted = by_score[~numbers.matches.is_ignored[by_score]]
    scores, is_right = columns.scores[counted], numbers.matches.truth_of[counted] >= 0
    del counted
    return ThresholdCurve.from_sorted(scores, is_right, int((~truth.is_crowd).sum()))


def _labels(truth: GroundTruth) -> range:
    return range(1, len(truth.categories) + 1)


def _coco_figures(numbers: PrecisionRecall) -> dict[str, float]:
    def ap(iou: slice | int = slice(None), area: int = _ALL) -> float:
        return _mean(numbers.precision[iou][..., area])

    def ar(cap: int = -1, area: int = _ALL) -> float:
        return _mean(numbers.recall[:, :, area, cap])

    figures = {"AP": ap(), "AP50": ap(_IOU_50), "AP75": ap(_IOU_75)}
    figures |= {"APs": ap(area=_SMALL), "APm": ap(area=_MEDIUM), "APl": ap(area=_LARGE)}
    figures |= {f"AR{cap}": ar(index) for index, cap in enumerate(numbers.caps)}
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


def _class_rows(
    truth: GroundTruth, columns: DetectionColumns, numbers: PrecisionRecall, by_class: np.ndarray
) -> list[dict[str, Any]]:
    counted = by_class[~numbers.matches.is_ignored[by_class]]
    ends = np.cumsum(np.bincount(columns.labels[counted], minlength=len(truth.categories) + 1))
    num_truth = np.bincount(truth.labels[~truth.is_crowd], minlength=len(truth.categories) + 1)
    rows = []
    for label in _labels(truth):
        chosen = counted[ends[label - 1] : ends[label]]
        is_right = numbers.matches.truth_of[chosen] >= 0
        curve = ThresholdCurve.from_sorted(columns.scores[chosen], is_right, int(num_truth[label]))
        rows.append(_class_row(truth, curve, numbers, label))
    return rows


def _class_row(truth: GroundTruth, curve: ThresholdCurve, numbers: PrecisionRecall, label: int) -> dict[str, Any]:
    best: BestF1 = curve.best()
    precision, recall = numbers.precision[:, :, label - 1], numbers.recall[:, label - 1]
    return {
        "label": label,
        "name": truth.categories.name_of(label),
        "category_id": truth.categories.id_of(label),
        "ap": _mean(precision[:, :, _ALL]),
        "ap50": _mean(precision[_IOU_50, :, _ALL]),
        "ap75": _mean(precision[_IOU_75, :, _ALL]),
        "num_truth": curve.num_truth,
        "f1": best.f1,
        "threshold": best.threshold,
        "ar": _mean(recall[:, _ALL, -1]),
        **{f"ap{size}": _mean(precision[:, :, area]) for size, area in _SIZES},
        **{f"ar{size}": _mean(recall[:, area, -1]) for size, area in _SIZES},
    }
