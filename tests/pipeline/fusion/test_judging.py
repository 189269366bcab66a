"""The quick figures are those of ``evaluate``."""

import numpy as np
import pytest

from app.pipeline.data.categories import CategoryMap
from app.pipeline.evaluate.coco_numbers import evaluate
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.fusion import judging_kernel
from app.pipeline.fusion.judging import Judge
from app.pipeline.types import Detections

CATEGORIES = CategoryMap.from_coco([{"id": n, "name": f"class {n}"} for n in (1, 2, 3)])


def make_case(seed, num_images=20, decimals=6, crowd_share=0.1, num_boxes=6, labels=(1, 2)):
    """Noisy copies of the labels with false alarms and objects overlooked; class 3 has no labels."""
    rng = np.random.default_rng(seed)
    image_index, boxes, found = [], [], {}
    for image in range(num_images):
        count = int(rng.integers(0, num_boxes))
        corner = rng.uniform(0, 300, (count, 2))
        own = np.concatenate([corner, corner + rng.uniform(20, 120, (count, 2))], axis=1)
        image_index += [image] * count
        boxes.append(own)
        seen = rng.integers(0, max(count, 1), 3 * num_boxes) if count else np.zeros(0, int)
        moved = own[seen] + rng.normal(0, 6, (len(seen), 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        scores = np.clip(rng.random(len(seen)).round(decimals), 0.01, 1)
        found[image * 3 + 1] = Detections(moved, scores, rng.choice([*labels, 3], len(seen)))
    count = len(image_index)
    truth = GroundTruth(
        CATEGORIES,
        np.arange(num_images) * 3 + 1,
        np.array(image_index, np.int64),
        np.concatenate(boxes),
        rng.choice(labels, count),
        rng.random(count) < crowd_share,
    )
    return truth, found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("decimals", [6, 1])  # 1: many equal scores
def test_figures_are_those_of_evaluate(seed, decimals):
    truth, found = make_case(seed, decimals=decimals)
    wanted = evaluate(truth, found)
    figures = Judge(truth).judge(DetectionColumns.from_detections(truth, found))
    assert 0.01 < wanted.map < wanted.map50
    assert figures.threshold == wanted.f1_threshold
    for name in ("map", "map50", "map75", "f1"):
        assert getattr(figures, name) == pytest.approx(getattr(wanted, name), abs=1e-12), name


def test_more_than_a_hundred_objects_in_an_image_all_count():
    truth, found = make_case(1, num_images=2, num_boxes=160, crowd_share=0, labels=(1,))
    figures = Judge(truth).judge(DetectionColumns.from_detections(truth, found))
    assert figures.map == pytest.approx(evaluate(truth, found).map, abs=1e-12)


def test_nothing_found_is_zero_and_nothing_to_find_is_minus_one():
    truth, _ = make_case(2)
    figures = Judge(truth).judge(DetectionColumns.from_detections(truth, {}))
    assert (figures.map, figures.f1, figures.threshold) == (0, 0, 0)
    bare, found = make_case(2, num_boxes=1)
    figures = Judge(bare).judge(DetectionColumns.from_detections(bare, found))
    assert (figures.map, figures.map50, figures.f1) == (-1, -1, -1)


def test_what_is_compiled_beforehand_serves_every_call():
    judging_kernel.warm_up()
    truth, found = make_case(4)
    Judge(truth).judge(DetectionColumns.from_detections(truth, found))
    Judge(truth).judge(DetectionColumns.from_detections(truth, {}))
    assert len(judging_kernel.judge_rows.signatures) == 1


def test_f1_at_a_threshold_counts_scores_that_reach_it():
    truth, found = make_case(3)
    judge, columns = Judge(truth), DetectionColumns.from_detections(truth, found)
    best = judge.judge(columns)
    assert judge.judge(columns, best.threshold).f1 == best.f1
    assert judge.judge(columns, np.nextafter(best.threshold, 1)).f1 < best.f1
    assert judge.judge(columns, 1.0).f1 == 0
