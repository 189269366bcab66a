"""Seconds for the paired bootstrap of two detectors, and its agreement with judging a resampled set in full.

    python -m benchmarks.bootstrap [--images 5000] [--classes 80] [--detections 500000] [--resamples 1000]

The other side of the ratio is the same work without stored matches: judging every resampled set in full, measured on
a few and multiplied.
"""

import argparse
import resource
import time

import numpy as np

from app.pipeline.evaluate.bootstrap import Outcomes, compare_sets, draw_images
from app.pipeline.evaluate.coco_numbers import evaluate_columns
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.selection import selection_score
from benchmarks.judged_sets import detect, make_set


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 5000), ("classes", 80), ("detections", 500_000), ("resamples", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    values = parser.parse_args()
    truth, chance = make_set(values.images, values.classes, values.detections)
    first, second = (detect(truth, chance, values.detections, skill, seed) for skill, seed in ((1.0, 2), (1.05, 3)))
    compare_sets(truth, first, second, 2)  # compiled, or read from numba's cache
    began = time.perf_counter()
    differences = compare_sets(truth, first, second, values.resamples).figures
    ours = time.perf_counter() - began
    print(f"{values.images} images, {values.classes} classes, {len(first.scores)} and {len(second.scores)} detections")
    for name, item in differences.items():
        print(
            f"{name:>6}: {item.first:.4f} and {item.second:.4f}, difference {item.difference:+.4f} "
            f"({item.low:+.4f} to {item.high:+.4f}), better in {100 * item.share_better:.1f} % of the resamples, "
            f"smallest detectable {item.detectable:.4f}"
        )
    full, apart = judge_in_full(truth, first)
    by_hand = 2 * values.resamples * full
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{values.resamples} resamples of both sets: {ours:.2f} s; in full {by_hand:.0f} s ({full:.2f} s each)")
    print(f"ratio {by_hand / ours:.0f}; largest deviation {apart:.1e}; peak memory {memory_mb:.0f} MB")


def judge_in_full(truth: GroundTruth, columns: DetectionColumns, rounds: int = 3) -> tuple[float, float]:
    """Median seconds to judge a resampled set in full, and the largest deviation of the resampled figures from it."""
    outcomes = Outcomes.of(truth, columns)
    seconds, apart = [], 0.0
    for draws in (next(draw_images(truth.num_images, 1, seed)) for seed in range(rounds)):
        resampled = repeat_images(truth, columns, draws[0])
        began = time.perf_counter()
        expected = evaluate_columns(*resampled)
        seconds.append(time.perf_counter() - began)
        figures = outcomes.resample(draws).figures
        wanted = {name: selection_score(name, vars(expected)) for name in figures}
        apart = max(apart, *(abs(values[0] - wanted[name]) for name, values in figures.items()))
    return float(np.median(seconds)), apart


def repeat_images(
    truth: GroundTruth, columns: DetectionColumns, drawn: np.ndarray
) -> tuple[GroundTruth, DetectionColumns]:
    """The resampled set itself: every image as often as it was drawn, next to each other, under new ids."""
    source = np.repeat(np.arange(truth.num_images), drawn)

    def rows_of(image_index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = np.searchsorted(image_index, source, side="left")
        length = np.searchsorted(image_index, source, side="right") - first
        offset = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        return np.repeat(first, length) + offset, np.repeat(np.arange(len(source)), length)

    rows, image_index = rows_of(truth.image_index)
    again = GroundTruth(
        truth.categories,
        np.arange(1, len(source) + 1),
        image_index,
        truth.boxes[rows],
        truth.labels[rows],
        truth.is_crowd[rows],
    )
    rows, image_index = rows_of(columns.image_index)
    return again, DetectionColumns(image_index, columns.boxes[rows], columns.scores[rows], columns.labels[rows])


if __name__ == "__main__":
    main()
