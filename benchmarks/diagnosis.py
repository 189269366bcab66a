"""Seconds to say why detections are wrong, each part beside the plain way to the same numbers.

    python -m benchmarks.diagnosis [--images 1000] [--boxes 100] [--classes 3] [--rounds 5]

ours               the other side
error budget       one run of pycocotools at IoU .5, which gives AP50 alone: no kinds, no prices. tidecv, which prices
                   the same kinds, takes part where it is installed (`pip install tidecv`)
confusion matrix   image by image: overlaps of all pairs, and the rule of confusion.py by Python loops
curves             precision, recall and F1 at 101 thresholds, by counting what is left at each
worst images       pycocotools at IoU .5, then a loop over its images that counts errors at a score, and a sort

Everybody starts from columns in memory; the rounds take turns. Where the other side gives the same numbers, the
largest deviation from them is printed.
"""

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.confusion import confuse
from app.pipeline.evaluate.curves import ThresholdCurve
from app.pipeline.evaluate.error_budget import spend_errors
from app.pipeline.evaluate.matching import box_ious, count_errors, match_columns
from benchmarks.evaluation import rows_of
from benchmarks.judged_sets import SIZE_PX, detect, make_set

try:
    import tidecv
except ImportError:
    tidecv = None

SCORE, IOU = 0.3, 0.5
THRESHOLDS = np.linspace(0, 1, 101)
BOXES_PER_LABEL = 14  # as many detections as make_set gives a labelled box


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 1000), ("boxes", 100), ("classes", 3), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    values = parser.parse_args()
    num_detections = values.images * values.boxes
    truth, chance = make_set(values.images, values.classes, num_detections)
    columns = detect(truth, chance, num_detections)
    print(f"{values.images} images, {values.classes} classes, {len(truth.labels)} labels, {num_detections} detections")
    compare(
        "error budget", values.rounds, lambda: budget(truth, columns), {"pycocotools": lambda: ap50(truth, columns)}
    )
    if tidecv is None:
        print(f"{'':>17}  tidecv is not installed and takes no part")
    else:
        compare("error budget", values.rounds, lambda: prices(truth, columns), {"tidecv": lambda: tide(truth, columns)})
    both = (truth, columns)
    compare("confusion matrix", values.rounds, lambda: confusions(*both), {"loops": lambda: confusions_by_loops(*both)})
    outcomes = outcomes_of(truth, columns)
    compare("curves", values.rounds, lambda: curves(*outcomes), {"counting": lambda: curves_by_counting(*outcomes)})
    compare("worst images", values.rounds, lambda: worst(*both), {"pycocotools": lambda: worst_by_loops(*both)})


def compare(what: str, num_rounds: int, ours: Callable[[], np.ndarray], others: dict[str, Callable[[], Any]]) -> None:
    """Medians of both, the ratio with its range, and the largest deviation."""
    for name, other in others.items():
        taken: dict[str, list[float]] = {"ours": [], name: []}
        for _ in range(num_rounds):
            spent, mine = seconds(ours)
            taken["ours"].append(spent)
            spent, theirs = seconds(other)
            taken[name].append(spent)
        ratios = [theirs / ours for theirs, ours in zip(taken[name], taken["ours"], strict=True)]
        print(
            f"{what:>17}: {statistics.median(taken['ours']):7.4f} s, {name} {statistics.median(taken[name]):7.4f} s, "
            f"ratio {statistics.median(ratios):6.1f} ({min(ratios):.1f} to {max(ratios):.1f}, {num_rounds} rounds), "
            f"largest deviation {np.abs(np.asarray(mine, float) - np.asarray(theirs, float)).max():.1e}"
        )


# ---- the error budget ------------------------------------------------------------------------------------------------


def budget(truth: GroundTruth, columns: DetectionColumns) -> np.ndarray:
    return np.array([spend_errors(truth, columns).ap50])


def ap50(truth: GroundTruth, columns: DetectionColumns) -> np.ndarray:
    """AP at IoU .5 over all detections, by pycocotools."""
    judged = evaluate_at_iou(truth, columns)
    with contextlib.redirect_stdout(io.StringIO()):
        judged.accumulate()
    precision = judged.eval["precision"]
    return np.array([precision[precision > -1].mean()])


def evaluate_at_iou(truth: GroundTruth, columns: DetectionColumns) -> COCOeval:
    """pycocotools at one IoU and one size, with no cap that cuts detections off; matched, not yet summed up."""
    labels = zip(rows_of(truth.image_index, truth.labels, truth.boxes), range(1, len(truth.labels) + 1), strict=True)
    found = zip(rows_of(columns.image_index, columns.labels, columns.boxes), columns.scores.tolist(), strict=True)
    with contextlib.redirect_stdout(io.StringIO()):
        labelled = COCO()
        labelled.dataset = {
            "images": [{"id": n, "width": SIZE_PX, "height": SIZE_PX} for n in range(truth.num_images)],
            "categories": [{"id": n + 1, "name": str(n)} for n in range(len(truth.categories))],
            "annotations": [
                {"id": n, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
                for (image, label, box), n in labels
            ],
        }
        labelled.createIndex()
        results = [{"image_id": i, "category_id": c, "bbox": box, "score": score} for (i, c, box), score in found]
        judged = COCOeval(labelled, labelled.loadRes(results), "bbox")
        judged.params.iouThrs, judged.params.maxDets = np.array([IOU]), [len(results)]
        judged.params.areaRng, judged.params.areaRngLbl = judged.params.areaRng[:1], judged.params.areaRngLbl[:1]
        judged.evaluate()
    return judged


def prices(truth: GroundTruth, columns: DetectionColumns) -> np.ndarray:
    """AP50 that mending each kind alone would bring, in our order."""
    return np.array(list(spend_errors(truth, columns).gains.values()))


def tide(truth: GroundTruth, columns: DetectionColumns) -> np.ndarray:
    """The same by tidecv, whose prices are of 100 and whose recalls differ from COCO's in the last bit."""
    labelled, found = (tidecv.Data(name, max_dets=len(columns.scores)) for name in ("labels", "found"))
    for image, label, box in rows_of(truth.image_index, truth.labels, truth.boxes):
        labelled.add_ground_truth(image, label, box)
    rows = rows_of(columns.image_index, columns.labels, columns.boxes)
    for (image, label, box), score in zip(rows, columns.scores.tolist(), strict=True):
        found.add_detection(image, label, score, box)
    program = tidecv.TIDE()
    program.evaluate(labelled, found, mode=tidecv.TIDE.BOX)
    by_name = program.get_main_errors()["found"]
    return np.array([by_name[name] for name in ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")]) / 100


# ---- the confusion matrix --------------------------------------------------------------------------------------------


def confusions(truth: GroundTruth, columns: DetectionColumns) -> np.ndarray:
    return confuse(truth, columns, SCORE, IOU).counts


def confusions_by_loops(truth: GroundTruth, columns: DetectionColumns) -> np.ndarray:
    """The rule as it is told: detections in turn take a free box of their class, those left over any free box."""
    size = len(truth.categories) + 1
    counts = np.zeros((size, size), np.int64)
    first = np.searchsorted(truth.image_index, np.arange(truth.num_images + 1))
    begin = np.searchsorted(columns.image_index, np.arange(truth.num_images + 1))
    for image in range(truth.num_images):
        boxes, labels = (part[first[image] : first[image + 1]] for part in (truth.boxes, truth.labels))
        rows = slice(begin[image], begin[image + 1])
        is_shown = columns.scores[rows] >= SCORE
        found, classes, scores = (part[rows][is_shown] for part in (columns.boxes, columns.labels, columns.scores))
        ious = pairwise_ious(found, boxes)
        is_free, left = [True] * len(labels), []
        for detection in np.argsort(-scores, kind="stable").tolist():
            taken = best_free(ious[detection], is_free, labels == classes[detection])
            if taken < 0:
                left.append(detection)
            else:
                is_free[taken] = False
                counts[labels[taken], classes[detection]] += 1
        for detection in left:
            taken = best_free(ious[detection], is_free, labels > 0)
            if taken >= 0:
                is_free[taken] = False
            counts[labels[taken] if taken >= 0 else 0, classes[detection]] += 1
        for label, was_missed in zip(labels.tolist(), is_free, strict=True):
            counts[label, 0] += was_missed
    return counts


def pairwise_ious(found: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU of every detection with every label, float64 [D, M]."""
    pairs = np.repeat(found, len(boxes), axis=0), np.tile(boxes, (len(found), 1))
    return box_ious(*pairs, np.zeros(len(pairs[0]), bool)).reshape(len(found), len(boxes))


def best_free(ious: np.ndarray, is_free: list[bool], is_meant: np.ndarray) -> int:
    """The free box of a class that overlaps most, the later of equals; -1 where none reaches the threshold."""
    best, reached = -1, IOU
    for place, overlap in enumerate(ious.tolist()):
        if is_free[place] and is_meant[place] and overlap >= reached:
            best, reached = place, overlap
    return best


# ---- curves ----------------------------------------------------------------------------------------------------------


def outcomes_of(truth: GroundTruth, columns: DetectionColumns) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores, which detections are right, and how many boxes there are to find."""
    return columns.scores, match_columns(truth, columns, IOU).is_true_positive, len(truth.labels)


def curves(scores: np.ndarray, is_right: np.ndarray, num_truth: int) -> np.ndarray:
    sampled = ThresholdCurve.from_outcomes(scores, is_right, num_truth).sampled()
    return np.array([sampled[name] for name in ("precision", "recall", "f1")])


def curves_by_counting(scores: np.ndarray, is_right: np.ndarray, num_truth: int) -> np.ndarray:
    """Of what is left at each threshold."""
    rows = []
    for threshold in THRESHOLDS:
        is_left = scores >= threshold
        tp, shown = int((is_left & is_right).sum()), int(is_left.sum())
        precision = tp / shown if shown else 1.0
        rows.append((precision, tp / num_truth, 2 * tp / (shown + num_truth)))
    return np.array(rows).T


# ---- worst images first ----------------------------------------------------------------------------------------------


def worst(truth: GroundTruth, columns: DetectionColumns) -> np.ndarray:
    """The images in Review's order: most errors first."""
    errors = count_errors(truth, columns, match_columns(truth, columns, IOU), SCORE).errors
    return np.argsort(-errors, kind="stable")


def worst_by_loops(truth: GroundTruth, columns: DetectionColumns) -> np.ndarray:
    """The same from pycocotools' matches."""
    judged = evaluate_at_iou(truth, columns)
    errors = dict.fromkeys(range(truth.num_images), 0)
    for one in filter(None, judged.evalImgs):
        num_found = 0
        for score, taken in zip(one["dtScores"], one["dtMatches"][0], strict=True):
            if score >= SCORE:
                num_found += taken > 0
                errors[one["image_id"]] += taken == 0
        errors[one["image_id"]] += len(one["gtIds"]) - num_found
    return np.array(sorted(errors, key=lambda image: -errors[image]))


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall seconds of ``work``, and what it gave."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


if __name__ == "__main__":
    main()
