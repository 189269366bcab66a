import json
from dataclasses import replace

import numpy as np
import pytest

from app.pipeline.data.categories import CategoryMap
from app.pipeline.evaluate.coco_numbers import GroundTruth, evaluate
from app.pipeline.evaluate.columns import EvaluationError
from app.pipeline.types import Detections
from tests.pipeline.evaluate.evaluation_cases import (
    make_categories,
    make_sample,
    pycocotools_eval,
    random_boxes,
    random_case,
)

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def assert_equals_pycocotools(truth, detections):
    result = evaluate(truth, detections)
    oracle = pycocotools_eval(truth, detections)
    assert tuple(result.coco) == NAMES
    np.testing.assert_allclose(list(result.coco.values()), oracle.stats, rtol=0, atol=1e-9)
    precision = oracle.eval["precision"][0, :, :, 0, -1].T
    np.testing.assert_allclose(list(result.curves["precision"].values()), precision, rtol=0, atol=1e-9)
    assert_classes_equal_pycocotools(result, oracle)
    if not truth.is_crowd.any():
        assert_overlaps_and_counts_equal_pycocotools(truth, result, oracle)


def assert_classes_equal_pycocotools(result, oracle):
    """AP and AR of each class, over all sizes and by size."""
    for row in result.per_class:
        for area, size in enumerate(("", "s", "m", "l")):
            for kind, values in (("ap", oracle.eval["precision"]), ("ar", oracle.eval["recall"])):
                measured = values[..., row["label"] - 1, area, -1]
                expected = measured[measured > -1].mean() if (measured > -1).any() else -1
                assert row[kind + size] == pytest.approx(expected, abs=1e-9)
        for place, name in ((0, "ap50"), (5, "ap75")):
            measured = oracle.eval["precision"][place, :, row["label"] - 1, 0, -1]
            expected = measured[measured > -1].mean() if (measured > -1).any() else -1
            assert row[name] == pytest.approx(expected, abs=1e-9)


def assert_overlaps_and_counts_equal_pycocotools(truth, result, oracle):
    """Mean best IoU from its overlaps, and the histogram of counts, at the best threshold; without crowds."""
    best_of_predictions, best_of_truth, difference = [], [], np.zeros(truth.num_images, int)
    for image in range(truth.num_images):
        for label in range(1, len(truth.categories) + 1):
            scores = np.sort([item["score"] for item in oracle._dts[image, label]])[::-1]
            is_kept = scores >= result.f1_threshold
            num_truth = len(oracle._gts[image, label])
            difference[image] += is_kept.sum() - num_truth
            ious = np.reshape(oracle.ious[image, label], (len(scores), num_truth))[is_kept]
            best_of_predictions += ious.max(axis=1, initial=0).tolist()
            best_of_truth += ious.max(axis=0, initial=0).tolist()
    expected = [np.mean(best) if best else -1 for best in (best_of_predictions, best_of_truth)]
    assert list(result.mean_best_iou.values()) == pytest.approx(expected, abs=1e-9)
    values, images = np.unique(difference, return_counts=True)
    assert result.count_difference["difference"] == values.tolist()
    assert result.count_difference["images"] == images.tolist()


@pytest.mark.parametrize("seed", range(60))
def test_figures_equal_pycocotools_on_random_cases(seed):
    truth, detections = random_case(seed)
    if any(len(found) for found in detections.values()):
        assert_equals_pycocotools(truth, detections)


@pytest.mark.parametrize("name", ["digits_tiny", "cubes_tiny", "bccd"])
def test_figures_equal_pycocotools_on_real_labels(name, real_data):
    document = json.loads((real_data / name / "valid" / "_annotations.coco.json").read_text())
    categories = CategoryMap.from_coco(document["categories"])
    rng = np.random.default_rng(5)
    samples, detections = [], {}
    for image in document["images"]:
        rows = [item for item in document["annotations"] if item["image_id"] == image["id"]]
        xywh = np.array([item["bbox"] for item in rows], float).reshape(-1, 4)
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        labels = np.array([categories.label_of(item["category_id"]) for item in rows], int)
        samples.append(make_sample(image["id"], boxes, labels))
        shifted = boxes + rng.normal(0, 0.06, boxes.shape) * np.tile(xywh[:, 2:], 2)
        found = np.concatenate([shifted, random_boxes(rng, 5)])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2])
        found_labels = np.concatenate([labels, rng.integers(1, len(categories) + 1, 5)])
        detections[image["id"]] = Detections(found, rng.random(len(found)), found_labels)
    truth = GroundTruth.from_samples(samples, categories)
    assert_equals_pycocotools(truth, detections)
    assert 0.2 < evaluate(truth, detections).map50 < 1


def test_250_perfect_boxes_in_an_image_score_one():
    boxes = np.array([[20 * (n % 25), 20 * (n // 25), 20 * (n % 25) + 15, 20 * (n // 25) + 15] for n in range(250)])
    truth = GroundTruth.from_samples([make_sample(4, boxes, np.ones(250, int))], make_categories(1))
    result = evaluate(truth, {4: Detections(boxes, np.linspace(1, 0.5, 250), np.ones(250))})
    assert (result.map, result.map50, result.map75, result.f1) == pytest.approx((1, 1, 1, 1), abs=1e-12)
    assert result.max_detections == 250
    assert result.coco["AR250"] == pytest.approx(1)
    assert result.coco["AR100"] == pytest.approx(0.4)


def test_raised_cap_equals_pycocotools_with_the_same_caps():
    rng = np.random.default_rng(1)
    boxes = random_boxes(rng, 130)
    truth = GroundTruth.from_samples([make_sample(1, boxes[:80], np.ones(80, int))], make_categories(1))
    detections = {1: Detections(boxes, rng.random(130), np.ones(130))}
    result = evaluate(truth, detections)
    precision = pycocotools_eval(truth, detections, (1, 10, 100, 130)).eval["precision"][:, :, :, 0, -1]
    assert result.map == pytest.approx(precision.mean(), abs=1e-12)


def test_images_without_detections_count_as_missed():
    box = [[0, 0, 10, 10]]
    truth = GroundTruth.from_samples([make_sample(1, box, [1]), make_sample(2, box, [1])], make_categories(1))
    result = evaluate(truth, {1: Detections(box, [0.9], [1])})
    assert result.recall_at == 0.5
    assert result.map50 == pytest.approx(51 / 101)


def test_no_detections_at_all_score_zero_where_there_is_truth():
    truth = GroundTruth.from_samples([make_sample(1, [[0, 0, 10, 10]], [1])], make_categories(2))
    result = evaluate(truth, {})
    assert (result.map, result.map50, result.f1, result.f1_threshold) == (0, 0, 0, 0)
    assert (result.coco["APs"], result.coco["APl"]) == (0, -1)
    assert [row["ap"] for row in result.per_class] == [0, -1]


def test_split_without_boxes_has_no_figures():
    truth = GroundTruth.from_samples([make_sample(1, [], [])], make_categories(2))
    result = evaluate(truth, {1: Detections([[0, 0, 5, 5]], [0.5], [1])})
    assert (result.map, result.f1) == (-1, -1)
    json.dumps(result.to_json(), allow_nan=False)


def test_class_rows_carry_original_ids_and_own_thresholds():
    samples = [make_sample(1, [[0, 0, 10, 10], [50, 50, 60, 60]], [1, 2])]
    truth = GroundTruth.from_samples(samples, make_categories(2))
    found = Detections([[0, 0, 10, 10], [50, 50, 60, 60], [80, 80, 90, 90]], [0.25, 0.75, 0.5], [1, 2, 2])
    result = evaluate(truth, {1: found})
    assert [(r["label"], r["category_id"], r["name"]) for r in result.per_class] == [
        (1, 7, "class 0"),
        (2, 17, "class 1"),
    ]
    assert [(r["f1"], r["threshold"]) for r in result.per_class] == [(1, 0.25), (1, 0.75)]
    assert (result.f1, result.f1_threshold, result.precision_at, result.recall_at) == (0.8, 0.25, 2 / 3, 1)


def test_detections_on_unknown_images_are_refused():
    truth = GroundTruth.from_samples([make_sample(1, [], [])], make_categories(1))
    with pytest.raises(EvaluationError, match=r"ids 99"):
        evaluate(truth, {99: Detections.empty()})


def test_labels_beyond_the_classes_are_refused():
    truth = GroundTruth.from_samples([make_sample(1, [], [])], make_categories(1))
    with pytest.raises(EvaluationError, match="label 2"):
        evaluate(truth, {1: Detections([[0, 0, 1, 1]], [0.5], [2])})


def test_no_images_are_refused():
    with pytest.raises(EvaluationError, match="no images"):
        GroundTruth.from_samples([], make_categories(1))


@pytest.mark.parametrize("seed", range(75, 90))
def test_figures_beyond_the_twelve_equal_pycocotools_without_crowds(seed):
    truth, detections = random_case(seed)
    if any(len(found) for found in detections.values()):
        assert_equals_pycocotools(replace(truth, is_crowd=np.zeros(len(truth.labels), bool)), detections)


def test_what_falls_into_crowds_is_not_counted():
    boxes = [[0, 0, 10, 10], [20, 20, 60, 60]]
    truth = GroundTruth.from_samples([make_sample(1, boxes, [1, 1], [False, True])], make_categories(1))
    result = evaluate(truth, {1: Detections([boxes[0], [25, 25, 35, 35]], [0.9, 0.9], [1, 1])})
    assert result.count_difference == {"difference": [0], "images": [1], "mean": 0}
    assert result.mean_best_iou == {"per_prediction": 1, "per_truth": 1}
