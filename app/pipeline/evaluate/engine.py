"""Precision and recall arrays by COCO's rules: hotcoco, or faster-coco-eval where hotcoco cannot be imported.

Legend: T 10 IoU thresholds .50:.05:.95, R 101 recalls 0:.01:1, K classes, A 4 areas (all, small, medium, large),
C detection caps. Both engines get xywh columns of the same numbers; a class's id is its label.

Labelled boxes are numbered from 1: pycocotools and its kin take a match with annotation 0 for none. Roboflow numbers
from 0, so pycocotools run on such a file finds one box too few (AP .458 for .478 on a small test split).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth

try:
    import hotcoco
except ImportError:  # young, and compiled: where its wheel does not fit, the slower engine gives the same numbers
    hotcoco = None


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """precision: float64 [T, R, K, A, C]; recall: float64 [T, K, A, C]; -1 where there is no labelled box."""

    precision: np.ndarray
    recall: np.ndarray


def compute_precision_recall(truth: GroundTruth, detections: DetectionColumns, caps: list[int]) -> PrecisionRecall:
    """Judge all detections; ``caps`` (ascending) are how many per image and class count, best first."""
    if not len(detections.scores):
        return _without_detections(truth, caps)
    run = _run_faster_coco_eval if hotcoco is None else _run_hotcoco
    result = run(truth, detections, caps)
    return PrecisionRecall(np.asarray(result["precision"]), np.asarray(result["recall"]))


def build_hotcoco(truth: GroundTruth, detections: DetectionColumns) -> "hotcoco.COCOeval":
    """hotcoco's judge with both sides loaded, not yet run."""
    xywh = _to_xywh(truth.boxes)
    labelled = hotcoco.COCO.from_arrays(
        _image_records(truth),
        _category_records(truth),
        truth.image_index + 1,
        truth.labels,
        xywh,
        area=xywh[:, 2] * xywh[:, 3],
        iscrowd=truth.is_crowd,
    )
    return hotcoco.COCOeval(labelled, labelled.load_res(_result_rows(detections)), "bbox")


def _run_hotcoco(truth: GroundTruth, detections: DetectionColumns, caps: list[int]) -> dict[str, Any]:
    evaluation = build_hotcoco(truth, detections)
    evaluation.params.max_dets = caps
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval


def _run_faster_coco_eval(truth: GroundTruth, detections: DetectionColumns, caps: list[int]) -> dict[str, Any]:
    from faster_coco_eval import COCO, COCOeval_faster

    xywh = _to_xywh(truth.boxes)
    annotations = [
        {"id": row + 1, "image_id": image + 1, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": c}
        for row, (image, label, box, c) in enumerate(
            zip(
                truth.image_index.tolist(),
                truth.labels.tolist(),
                xywh.tolist(),
                truth.is_crowd.astype(int).tolist(),
                strict=True,
            )
        )
    ]
    labelled = COCO(
        {"images": _image_records(truth), "categories": _category_records(truth), "annotations": annotations}
    )
    results = [
        {"image_id": int(row[0]), "bbox": row[1:5], "score": row[5], "category_id": int(row[6])}
        for row in _result_rows(detections).tolist()
    ]
    evaluation = COCOeval_faster(labelled, labelled.loadRes(results), "bbox", print_function=_be_silent)
    evaluation.params.maxDets = caps
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval


def _without_detections(truth: GroundTruth, caps: list[int]) -> PrecisionRecall:
    """Nothing found: 0 where there is something to find in a class and area, else -1."""
    area = np.prod(truth.boxes[:, 2:] - truth.boxes[:, :2], axis=1)
    limits = ((0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10))
    value = np.full((len(truth.categories), len(limits)), -1.0)
    for column, (low, high) in enumerate(limits):
        counts = (area >= low) & (area <= high) & ~truth.is_crowd
        value[truth.labels[counts] - 1, column] = 0.0
    recall = np.broadcast_to(value[None, :, :, None], (10, *value.shape, len(caps))).copy()
    return PrecisionRecall(np.repeat(recall[:, None], 101, axis=1), recall)


def _image_records(truth: GroundTruth) -> list[dict[str, Any]]:
    # Positions instead of the ids: engines order images by id, and equal scores then keep the order of the columns.
    return [{"id": index + 1, "width": 1, "height": 1, "file_name": ""} for index in range(truth.num_images)]


def _category_records(truth: GroundTruth) -> list[dict[str, Any]]:
    return [{"id": label, "name": str(label)} for label in range(1, len(truth.categories) + 1)]


def _result_rows(detections: DetectionColumns) -> np.ndarray:
    """float64 [D, 7]: image, x, y, w, h, score, class."""
    return np.column_stack(
        [detections.image_index + 1, _to_xywh(detections.boxes), detections.scores, detections.labels]
    ).astype(np.float64, copy=False)


def _to_xywh(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _be_silent(*_: object) -> None:
    """Stand in for the engine's print."""
