"""Precision and recall, bit by bit those of another program that follows COCO, and with little memory."""

import tracemalloc

import numpy as np
import pytest

from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.precision_recall import measure
from tests.pipeline.evaluate.evaluation_cases import (
    hotcoco_eval,
    make_categories,
    make_sample,
    random_boxes,
    random_case,
)


def measure_all(truth, columns):
    return measure(truth, columns, np.lexsort((-columns.scores, columns.labels)))


def assert_equals_hotcoco(truth, columns):
    ours = measure_all(truth, columns)
    theirs = hotcoco_eval(truth, columns, ours.caps)
    theirs.accumulate()
    assert np.array_equal(ours.precision, np.asarray(theirs.eval["precision"])[..., -1])
    assert np.array_equal(ours.recall, np.asarray(theirs.eval["recall"]))


@pytest.mark.parametrize("seed", range(40))
def test_arrays_are_those_of_hotcoco_to_the_bit(seed):
    truth, detections = random_case(seed)
    columns = DetectionColumns.from_detections(truth, detections)
    if not len(columns.scores):
        pytest.skip("nothing drawn")
    assert_equals_hotcoco(truth, columns)


@pytest.mark.parametrize("seed", range(10))
def test_boxes_at_the_edges_of_areas_and_equal_overlaps_follow_the_same_rules(seed):
    """Whole numbers: areas of exactly 32² and 96², overlaps of exactly .5, the same box twice, some of them crowds."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 3, (60, 2)) * 16
    sides = rng.choice([8, 16, 32, 48, 96, 128], (60, 2))
    boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float64)
    labels, found = rng.integers(1, 3, 60), rng.integers(0, 60, 150)
    truth = GroundTruth(
        make_categories(2), np.arange(5), np.repeat(np.arange(5), 12), boxes, labels, rng.random(60) < 0.2
    )
    columns = DetectionColumns(
        np.repeat(np.arange(5), 30), boxes[found], np.round(rng.random(150), 1), rng.integers(1, 3, 150)
    )
    assert_equals_hotcoco(truth, columns)


def test_the_cap_is_raised_to_what_an_image_needs():
    rng = np.random.default_rng(1)
    boxes = random_boxes(rng, 130)
    truth = GroundTruth.from_samples([make_sample(1, boxes[:80], np.ones(80, int))], make_categories(1))
    columns = DetectionColumns(np.zeros(130, int), boxes, rng.random(130), np.ones(130, int))
    assert measure_all(truth, columns).caps == (1, 10, 100, 130)
    assert_equals_hotcoco(truth, columns)


def test_a_detection_takes_some_tens_of_bytes_to_judge():
    """Above its columns; hotcoco takes 300. What pieces take stays the same, so only the growth counts."""
    rng = np.random.default_rng(2)

    def peak_of(num_images):
        boxes = random_boxes(rng, 2 * num_images)
        truth = GroundTruth(
            make_categories(1),
            np.arange(num_images),
            np.repeat(np.arange(num_images), 2),
            boxes,
            np.ones(len(boxes), int),
            np.zeros(len(boxes), bool),
        )
        found = np.concatenate([boxes.repeat(2, axis=0), random_boxes(rng, 16 * num_images)]).astype(np.float32)
        index = np.concatenate([truth.image_index.repeat(2), np.repeat(np.arange(num_images), 16)])
        order = np.argsort(index, kind="stable")
        columns = DetectionColumns(index, found, rng.random(len(index)), np.ones(len(index), np.int32))
        columns = columns.select(order)
        by_class = np.argsort(-columns.scores)
        tracemalloc.start()
        measure(truth, columns, by_class)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return len(index), peak

    (few, small), (many, large) = peak_of(3000), peak_of(9000)
    assert (large - small) / (many - few) < 80
