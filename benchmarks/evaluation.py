"""Seconds to judge stored predictions, against pycocotools, faster-coco-eval and torchmetrics, with the deviation.

    python -m benchmarks.evaluation [--rounds 5]            1,000 images, 3 classes, 100,000 detections
    python -m benchmarks.evaluation --large [--rounds 3]    5,000 images, 80 classes, 500,000 detections

Everybody starts from columns in memory and ends with the twelve figures; ours has besides them per-class figures, F1,
curves, mean best IoU and the histogram of counts. The rounds take turns. torchmetrics is no dependency: it takes part
where it is installed (`pip install torchmetrics`).
"""

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from app.pipeline.evaluate.coco_numbers import evaluate_columns
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.confusion import confuse
from app.pipeline.evaluate.error_budget import spend_errors
from benchmarks.judged_sets import detect, make_set

try:
    from torchmetrics.detection import MeanAveragePrecision
except ImportError:
    MeanAveragePrecision = None

# torchmetrics' names of the twelve figures, in pycocotools' order
TORCHMETRICS_NAMES = (
    *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
    *("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"),
)
SMALL, LARGE = (1000, 3, 100_000), (5000, 80, 500_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    values = parser.parse_args()
    num_images, num_classes, num_detections = LARGE if values.large else SMALL
    truth, chance = make_set(num_images, num_classes, num_detections)
    columns = detect(truth, chance, num_detections)
    print(f"{num_images} images, {num_classes} classes, {len(truth.labels)} boxes, {len(columns.scores)} detections")
    judges: dict[str, Callable[[], Any]] = {
        "ours": lambda: np.array(list(evaluate_columns(truth, columns).coco.values())),
        "pycocotools": lambda: with_coco(COCO, COCOeval, truth, columns),
        "faster-coco-eval": lambda: with_coco(FasterCOCO, COCOeval_faster, truth, columns),
    }
    if MeanAveragePrecision is None:
        print("torchmetrics is not installed and takes no part")
    else:
        judges["torchmetrics"] = lambda: with_torchmetrics(truth, columns)
    compare(judges, values.rounds)
    for name, judge in (("error budget", spend_errors), ("confusion matrix", lambda *both: confuse(*both, 0.5))):
        print(f"{name:>17}: {statistics.median(seconds(lambda j=judge: j(truth, columns))[0] for _ in range(3)):.2f} s")


def compare(judges: dict[str, Callable[[], Any]], num_rounds: int) -> None:
    """Medians, the ratio to ours with its range, and the largest deviation from ours."""
    taken: dict[str, list[float]] = {name: [] for name in judges}
    figures: dict[str, np.ndarray] = {}
    for _ in range(num_rounds):
        for name, judge in judges.items():
            spent, figures[name] = seconds(judge)
            taken[name].append(spent)
    for name, spent in taken.items():
        ratios = [theirs / ours for theirs, ours in zip(spent, taken["ours"], strict=True)]
        print(
            f"{name:>17}: {statistics.median(spent):7.3f} s, ratio {statistics.median(ratios):5.1f} "
            f"({min(ratios):.1f} to {max(ratios):.1f}, {num_rounds} rounds), "
            f"largest deviation {np.abs(figures[name] - figures['ours']).max():.1e}"
        )


def with_coco(dataset: type, judge: type, truth: GroundTruth, columns: DetectionColumns) -> np.ndarray:
    """The twelve figures by an evaluator that is used as pycocotools is."""
    annotations = [
        {"id": row + 1, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for row, (image, label, box) in enumerate(rows_of(truth.image_index, truth.labels, truth.boxes))
    ]
    results = [
        {"image_id": image, "category_id": label, "bbox": box, "score": score}
        for (image, label, box), score in zip(
            rows_of(columns.image_index, columns.labels, columns.boxes), columns.scores.tolist(), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        labelled = dataset()
        labelled.dataset = {
            "images": [{"id": n, "width": 640, "height": 640} for n in range(truth.num_images)],
            "categories": [{"id": n + 1, "name": str(n)} for n in range(len(truth.categories))],
            "annotations": annotations,
        }
        labelled.createIndex()
        evaluation = judge(labelled, labelled.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.array(evaluation.stats[:12])


def with_torchmetrics(truth: GroundTruth, columns: DetectionColumns) -> np.ndarray:
    """The twelve figures by torchmetrics, which is fed tensors image by image."""
    metric = MeanAveragePrecision()
    metric.warn_on_many_detections = False
    found = [
        {"boxes": boxes, "labels": labels, "scores": scores}
        for boxes, labels, scores in zip(
            *(
                tensors_by_image(truth, columns.image_index, part)
                for part in (columns.boxes, columns.labels, columns.scores)
            ),
            strict=True,
        )
    ]
    wanted = [
        {"boxes": boxes, "labels": labels}
        for boxes, labels in zip(
            *(tensors_by_image(truth, truth.image_index, part) for part in (truth.boxes, truth.labels)), strict=True
        )
    ]
    metric.update(found, wanted)
    figures = metric.compute()
    return np.array([float(figures[name]) for name in TORCHMETRICS_NAMES])


def tensors_by_image(truth: GroundTruth, image_index: np.ndarray, rows: np.ndarray) -> list[torch.Tensor]:
    """The rows of each image; ``image_index`` rises."""
    starts = np.searchsorted(image_index, np.arange(1, truth.num_images))
    return [torch.from_numpy(part) for part in np.split(rows, starts)]


def rows_of(image_index: np.ndarray, labels: np.ndarray, boxes: np.ndarray) -> Any:  # noqa: ANN401 (a zip)
    """Image, class and xywh box of each row, as Python values."""
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return zip(image_index.tolist(), labels.tolist(), xywh.tolist(), strict=True)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall seconds of ``work``, and what it gave."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


if __name__ == "__main__":
    main()
