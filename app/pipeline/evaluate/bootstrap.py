"""How much of a difference is chance: figures of resampled validation sets, from matches made once. Imports no torch.

The images of a split are a sample of those the detector will meet. Drawing as many of them again, with repeats, tells
how far figures would move with another sample (Efron 1979); drawing the same images for two sets of predictions tells
it of their difference (paired bootstrap). A drawn image counts as often as it was drawn, as if it were there several
times under ids of its own, next to each other. Which box took which does not change with other images, so matches are
made once and only scores are counted anew: a resampled figure is the one that judging the resampled set would give.

Legend: R resamples, I images, K classes, T 10 IoU thresholds, D detections, S seen: detections that a matching counts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import njit

from app.pipeline.data.categories import CategoryMap
from app.pipeline.evaluate.average_precision import RECALLS
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.difference import NUM_RESAMPLES, Difference
from app.pipeline.evaluate.matching import match_columns_at
from app.pipeline.evaluate.selection import selection_score

IOU_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())  # as pycocotools makes them, to the bit
BLEND = "map50_f1"  # half of each, by which a run's best checkpoint is chosen
FIGURES = ("map", "map50", "map75", "f1", BLEND)
# The normal quantiles of a two-sided test at 5 % and of a power of 80 %.
DETECTABLE_ERRORS = 1.959964 + 0.841621
_DRAWS_AT_ONCE = 1 << 23  # counts of images that are held at a time, two bytes each
_RESAMPLES_AT_ONCE = 50  # between two words of progress
_IOU_50, _IOU_75 = slice(0, 1), slice(5, 6)  # places in IOU_THRESHOLDS


class Resampled(NamedTuple):
    """Figures of resamples: :data:`FIGURES`, float64 [R] each, and AP50 by class, float64 [R, K].

    -1 stands for what has no labelled box in a resample.
    """

    figures: dict[str, np.ndarray]
    ap50: np.ndarray


class SetsCompared(NamedTuple):
    """Differences of two sets: of each of :data:`FIGURES`, and of AP50 by class in the order of the categories."""

    figures: dict[str, Difference]
    ap50: list[Difference]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What the detections of one set came to at each IoU threshold, by class and falling score.

    image: int32 [D]; found, ignored: uint16 [D], bit t for threshold t; run_end: int64 [D], the end of the detections
    of the same class, image and score; class_ends: int64 [K + 1]. right: int64, rows that are true positives, class by
    class and threshold by threshold, and right_ends: int64 [K, T + 1], where those of each begin and end.
    needs_care: bool [K], whether some detections of a class are ignored or share image and score with a true positive.
    pooled_image, pooled_found, pooled_end: int32, bool, bool [S], all classes together at IoU .5 by falling score;
    ``pooled_end`` is the last detection of a score that a true positive has. num_truth: float64 [I, K].
    """

    image: np.ndarray
    found: np.ndarray
    ignored: np.ndarray
    run_end: np.ndarray
    class_ends: np.ndarray
    right: np.ndarray
    right_ends: np.ndarray
    needs_care: np.ndarray
    pooled_image: np.ndarray
    pooled_found: np.ndarray
    pooled_end: np.ndarray
    num_truth: np.ndarray

    @classmethod
    def of(cls, truth: GroundTruth, detections: DetectionColumns, threshold: float | None = None) -> "Outcomes":
        """Match once at every IoU threshold; with a score ``threshold`` F1 is that at it, else the best one."""
        num_classes = len(truth.categories)
        order = np.lexsort((-detections.scores, detections.labels))
        image, scores, labels = (
            values[order] for values in (detections.image_index, detections.scores, detections.labels)
        )
        found, ignored = np.zeros(len(order), np.uint16), np.zeros(len(order), np.uint16)
        for bit, matches in enumerate(match_columns_at(truth, detections, IOU_THRESHOLDS)):
            found |= matches.is_true_positive[order].astype(np.uint16) << bit
            ignored |= matches.is_ignored[order].astype(np.uint16) << bit
        class_ends = np.searchsorted(labels, np.arange(1, num_classes + 2))
        run_end = _ends_of_equals(labels, image, scores)
        is_careful = (ignored > 0) | ((run_end - np.append(0, run_end)[: len(order)] > 1) & _run_has(found, run_end))
        right, right_ends = _list_right(found, class_ends)
        pooled_image, pooled_found, pooled_end = _pool(image, scores, found, ignored, threshold)
        plain = ~truth.is_crowd
        cell = truth.image_index[plain] * num_classes + truth.labels[plain] - 1
        counts = np.bincount(cell, minlength=truth.num_images * num_classes)
        return cls(
            image=image.astype(np.int32),
            found=found,
            ignored=ignored,
            run_end=run_end,
            class_ends=class_ends,
            right=right,
            right_ends=right_ends,
            needs_care=np.bincount(labels[is_careful], minlength=num_classes + 1)[1:] > 0,
            pooled_image=pooled_image.astype(np.int32),
            pooled_found=pooled_found,
            pooled_end=pooled_end,
            num_truth=counts.reshape(truth.num_images, num_classes).astype(np.float64),
        )

    def resample(self, draws: np.ndarray) -> Resampled:
        """Figures of resamples; draws: uint16 [R, I], how often each image was drawn."""
        num_truth = np.rint(draws.astype(np.float64) @ self.num_truth).astype(np.int64)
        rows = (self.image, self.found, self.ignored, self.run_end, self.class_ends)
        ap = _resampled_ap(draws, *rows, self.right, self.right_ends, self.needs_care, num_truth, RECALLS)
        pooled = (self.pooled_image, self.pooled_found, self.pooled_end)
        figures = {
            "map": _mean_of_measured(ap),
            "map50": _mean_of_measured(ap[:, :, _IOU_50]),
            "map75": _mean_of_measured(ap[:, :, _IOU_75]),
            "f1": _resampled_f1(draws, *pooled, num_truth.sum(axis=1)),
        }
        return Resampled({**figures, BLEND: selection_score(BLEND, figures)}, ap[:, :, 0])


def compare_sets(
    truth: GroundTruth,
    first: DetectionColumns,
    second: DetectionColumns,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    thresholds: tuple[float | None, float | None] = (None, None),
) -> SetsCompared:
    """Paired bootstrap of :data:`FIGURES` and of AP50 by class; the same seed gives the same numbers.

    A class that has no labelled box in a resample has no AP there, and is left out of it: by the mean over classes, and
    by the class's own interval, which is that of the resamples that have it (so a class labelled in one image of many
    is measured in 63 of 100 resamples, always on that image: see :attr:`Difference.outcome`).
    thresholds: the scores at which F1 is taken, of the first and of the second; None: the best F1 of each draw.
    ``on_progress`` hears how many resamples of how many are done, first 0; what it raises ends the work.
    """
    sets = [Outcomes.of(truth, *given) for given in zip((first, second), thresholds, strict=True)]
    once = np.ones((1, truth.num_images), np.uint16)
    whole = [outcomes.resample(once) for outcomes in sets]
    resampled: list[list[Resampled]] = [[] for _ in sets]
    on_progress(0, num_resamples)
    for draws in draw_images(truth.num_images, num_resamples, seed):
        for outcomes, pieces in zip(sets, resampled, strict=True):
            pieces.append(outcomes.resample(draws))
        on_progress(sum(len(piece.ap50) for piece in resampled[-1]), num_resamples)
    has_class = sets[0].num_truth > 0
    num_images = int(has_class.any(axis=1).sum())
    ap50 = [np.concatenate([piece.ap50 for piece in pieces]) for pieces in resampled]
    return SetsCompared(
        {
            name: _summarize(
                *(float(values.figures[name][0]) for values in whole),
                *(np.concatenate([piece.figures[name] for piece in pieces]) for pieces in resampled),
                num_images,
            )
            for name in FIGURES
        },
        [
            _summarize(*(float(values.ap50[0, k]) for values in whole), *(values[:, k] for values in ap50), int(count))
            for k, count in enumerate(has_class.sum(axis=0))
        ],
    )


def warm_up() -> None:
    """Compile, or load from disk, what :func:`compare_sets` needs."""
    one, box = np.array([1]), np.array([[0.0, 0.0, 1.0, 1.0]])
    truth = GroundTruth(CategoryMap((1,), ("one",)), one, one - 1, box, one, np.array([False]))
    columns = DetectionColumns(one - 1, box, np.array([0.5]), one)
    compare_sets(truth, columns, columns, num_resamples=1)


def draw_images(num_images: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is drawn, uint16 [R, I] piece by piece; every resample draws ``num_images``."""
    rng = np.random.default_rng(seed)
    at_once = min(max(_DRAWS_AT_ONCE // num_images, 1), _RESAMPLES_AT_ONCE)
    for start in range(0, num_resamples, at_once):
        count = min(at_once, num_resamples - start)
        draws = np.empty((count, num_images), np.uint16)
        for row in range(count):
            draws[row] = np.bincount(rng.integers(0, num_images, num_images), minlength=num_images)
        yield draws


def _ends_of_equals(*columns: np.ndarray) -> np.ndarray:
    """Where the run of rows ends that are equal in all columns; int64 [D]."""
    is_end = np.zeros(len(columns[0]), bool)
    for values in columns:
        is_end |= np.append(values[1:] != values[:-1], True)[: len(values)]
    ends = np.flatnonzero(is_end) + 1
    return np.repeat(ends, np.diff(ends, prepend=0))


def _run_has(found: np.ndarray, run_end: np.ndarray) -> np.ndarray:
    """bool [D], whether a true positive is in the row's run."""
    return np.isin(run_end, run_end[found > 0])


def _list_right(found: np.ndarray, class_ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of true positives by class and threshold, and where each list begins and ends."""
    lists, ends, end = [], np.zeros((len(class_ends) - 1, len(IOU_THRESHOLDS) + 1), np.int64), 0
    for label, (first, last) in enumerate(pairwise(class_ends.tolist())):
        ends[label, 0] = end
        for bit in range(len(IOU_THRESHOLDS)):
            lists.append(first + np.flatnonzero(found[first:last] >> bit & 1))
            end += len(lists[-1])
            ends[label, bit + 1] = end
    return np.concatenate(lists), ends


def _pool(
    image: np.ndarray, scores: np.ndarray, found: np.ndarray, ignored: np.ndarray, threshold: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """image, found and the ends of scores that a true positive has; at the first IoU threshold, without ignored ones.

    With a score ``threshold`` only the rows that reach it, and the last of them is the only end.
    """
    rows = np.argsort(-scores, kind="stable")
    rows = rows[(ignored[rows] & 1) == 0]
    if threshold is not None:
        rows = rows[scores[rows] >= threshold]
    is_found = (found[rows] & 1) > 0
    if threshold is not None:
        return image[rows], is_found, np.arange(len(rows)) == len(rows) - 1
    end = _ends_of_equals(scores[rows])
    is_end = np.zeros(len(rows), bool)
    is_end[end[is_found] - 1] = True
    return image[rows], is_found, is_end


def _mean_of_measured(ap: np.ndarray) -> np.ndarray:
    """Over the classes that have labelled boxes in the resample; ap: float64 [R, K, T], -1 for the others."""
    is_measured = ap >= 0
    count = is_measured.sum(axis=(1, 2))
    total = np.where(is_measured, ap, 0.0).sum(axis=(1, 2))
    return np.divide(total, count, out=np.full(len(ap), -1.0), where=count > 0)


def _summarize(first: float, second: float, firsts: np.ndarray, seconds: np.ndarray, num_images: int) -> Difference:
    is_measured = (firsts >= 0) & (seconds >= 0)
    firsts, seconds = firsts[is_measured], seconds[is_measured]
    if not len(firsts):
        return Difference(first, -1.0, -1.0, second, -1.0, -1.0, 0.0, 0.0, 0.0, 0.5, 0.0, num_images)
    differences = seconds - firsts
    bounds = [np.percentile(values, (2.5, 97.5)) for values in (firsts, seconds, differences)]
    (first_low, first_high), (second_low, second_high), (low, high) = (map(float, bound) for bound in bounds)
    return Difference(
        first=first,
        first_low=first_low,
        first_high=first_high,
        second=second,
        second_low=second_low,
        second_high=second_high,
        difference=second - first,
        low=low,
        high=high,
        share_better=float((differences > 0).mean() + (differences == 0).mean() / 2),
        detectable=DETECTABLE_ERRORS * float(differences.std()),
        num_images=num_images,
    )


@njit(cache=True, nogil=True)
def _resampled_ap(
    draws: np.ndarray,
    image: np.ndarray,
    found: np.ndarray,
    ignored: np.ndarray,
    run_end: np.ndarray,
    class_ends: np.ndarray,
    right: np.ndarray,
    right_ends: np.ndarray,
    needs_care: np.ndarray,
    num_truth: np.ndarray,
    recalls: np.ndarray,
) -> np.ndarray:
    """AP by class and threshold, float64 [R, K, T]; -1 without labelled boxes.

    Only true positives are noted, with how many there are so far and the precision: there precision has its peaks and
    recall its steps, and of the copies of one the last has the highest precision.
    """
    num_resamples, num_classes, num_thresholds = draws.shape[0], len(class_ends) - 1, right_ends.shape[1] - 1
    longest = 1
    for label in range(num_classes):
        longest = max(longest, class_ends[label + 1] - class_ends[label])
    seen = np.empty(longest, np.int64)
    precision, tp = np.empty(longest), np.empty(longest, np.int64)
    needed = np.empty(len(recalls), np.int64)
    ap = np.empty((num_resamples, num_classes, num_thresholds))
    for resample in range(num_resamples):
        drawn = draws[resample]
        for label in range(num_classes):
            total = num_truth[resample, label]
            if total == 0:
                ap[resample, label] = -1.0
                continue
            _count_needed(total, recalls, needed)
            first, last = class_ends[label], class_ends[label + 1]
            if needs_care[label]:
                for bit in range(num_thresholds):
                    ap[resample, label, bit] = _area_with_care(
                        drawn, image[first:last], found[first:last] >> bit & 1, ignored[first:last] >> bit & 1,
                        run_end[first:last] - first, needed,
                    )  # fmt: skip
                continue
            so_far = 0
            for row in range(first, last):
                so_far += drawn[image[row]]
                seen[row - first] = so_far
            for bit in range(num_thresholds):
                begin, count = right_ends[label, bit], right_ends[label, bit + 1] - right_ends[label, bit]
                so_far = 0
                for place in range(count):
                    row = right[begin + place]
                    so_far += drawn[image[row]]
                    tp[place] = so_far
                    precision[place] = so_far / max(seen[row - first], 1)
                ap[resample, label, bit] = _area(precision, tp, count, needed)
    return ap


@njit(cache=True, nogil=True)
def _area_with_care(
    drawn: np.ndarray,
    image: np.ndarray,
    is_found: np.ndarray,
    is_ignored: np.ndarray,
    run_end: np.ndarray,
    needed: np.ndarray,
) -> float:
    """AP of one class at one threshold; detections of one image and score are gone through copy by copy.

    Copies of an image come one after the other, so a true and a false positive of one score take turns.
    """
    num_steps = 0
    for row in range(len(image)):
        if is_found[row]:
            num_steps += drawn[image[row]]
    precision, tp = np.empty(num_steps), np.empty(num_steps, np.int64)
    count, seen, row = 0, 0, 0
    while row < len(image):
        for _ in range(drawn[image[row]]):
            for one in range(row, run_end[row]):
                if is_ignored[one]:
                    continue
                seen += 1
                if is_found[one]:
                    tp[count] = count + 1
                    precision[count] = (count + 1) / seen
                    count += 1
        row = run_end[row]
    return _area(precision, tp, count, needed)


@njit(cache=True, nogil=True)
def _count_needed(num_truth: int, recalls: np.ndarray, needed: np.ndarray) -> None:
    """The fewest true positives whose share of ``num_truth`` reaches each recall, compared as floats as COCO does."""
    tp = 0
    for place in range(len(recalls)):
        while tp / num_truth < recalls[place]:
            tp += 1
        needed[place] = tp


@njit(cache=True, nogil=True)
def _area(precision: np.ndarray, tp: np.ndarray, count: int, needed: np.ndarray) -> float:
    """The mean of the highest precision at or behind each recall."""
    total, highest, place = 0.0, 0.0, count - 1
    for point in range(len(needed) - 1, -1, -1):
        while place >= 0 and tp[place] >= needed[point]:
            highest = max(highest, precision[place])
            place -= 1
        total += highest
    return total / len(needed)


@njit(cache=True, nogil=True)
def _resampled_f1(
    draws: np.ndarray, image: np.ndarray, is_found: np.ndarray, is_end: np.ndarray, num_truth: np.ndarray
) -> np.ndarray:
    """The best F1 over all score thresholds, float64 [R]; without a new true positive F1 only falls."""
    best = np.empty(draws.shape[0])
    for resample in range(draws.shape[0]):
        drawn = draws[resample]
        total = num_truth[resample]
        highest, tp, seen = 0.0, 0, 0
        for row in range(len(image)):
            times = np.int64(drawn[image[row]])
            seen += times
            tp += times * is_found[row]
            if is_end[row]:
                highest = max(highest, 2 * tp / max(seen + total, 1))
        best[resample] = highest if total else -1.0
    return best
