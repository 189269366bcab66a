"""The prices of errors: by reasoning on small cases, and against hotcoco's TIDE where no crowds are about."""

from dataclasses import replace

import numpy as np
import pytest

from app.pipeline.evaluate.coco_numbers import evaluate
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.error_budget import ADVICE, KINDS, TOTALS, spend_errors
from app.pipeline.types import Detections
from tests.pipeline.evaluate.evaluation_cases import hotcoco_eval, make_categories, make_sample, random_case

A, B, FAR = [0, 0, 10, 10], [100, 100, 110, 110], [200, 200, 210, 210]
NEAR_A = [0, 0, 10, 4]  # IoU .4 with A

# Two objects of class 1 and one of class 2, so that recall has steps of a half and precision is easy to follow.
TRUTH = {1: ([A, B, FAR], [1, 1, 2])}
RIGHT = [(A, 1, 0.9), (B, 1, 0.8), (FAR, 2, 0.7)]
HALF = 51 / 101  # of the 101 recalls, those up to .5


def columns_of(truth_by_image, found_by_image, num_classes=2, crowd=None):
    samples = [make_sample(i, boxes, labels, crowd) for i, (boxes, labels) in truth_by_image.items()]
    truth = GroundTruth.from_samples(samples, make_categories(num_classes))
    detections = {
        image_id: Detections([box for box, _, _ in found], [s for _, _, s in found], [k for _, k, _ in found])
        for image_id, found in found_by_image.items()
    }
    return truth, DetectionColumns.from_detections(truth, detections)


def budget_of(found, truth=TRUTH, **options):
    return spend_errors(*columns_of(truth, found if isinstance(found, dict) else {1: found}, **options))


def test_a_perfect_detector_has_nothing_to_spend():
    budget = budget_of(RIGHT)
    assert budget.ap50 == 1
    assert set(budget.gains.values()) == {0.0} and budget.false_positives == budget.false_negatives == 0
    assert [budget.count(kind) for kind in KINDS] == [0] * len(KINDS)


@pytest.mark.parametrize(
    ("found", "kind", "gain"),
    [
        # B has the wrong class: class 1 finds one of two, class 2 has a false alarm in front of its only object
        # (AP .5). Mended, all is right: 1 - (51/101 + 1/2) / 2.
        ([(A, 1, 0.9), (B, 2, 0.8), (FAR, 2, 0.7)], "classification", 1 - (HALF + 0.5) / 2),
        # A is placed badly: it is an alarm before B is found, so precision is 1/2 up to recall 1/2.
        ([(NEAR_A, 1, 0.9), (B, 1, 0.8), (FAR, 2, 0.7)], "localization", 1 - (HALF / 2 + 1) / 2),
        # The second box on A stands between A and B: precision 2/3 above recall 1/2.
        ([(A, 1, 0.9), (A, 1, 0.85), (B, 1, 0.8), (FAR, 2, 0.7)], "duplicate", (1 - HALF) / 3 / 2),
        # A false alarm before both objects: 1/2 at the first, 2/3 at the second, which counts for both.
        ([([300, 0, 310, 10], 1, 0.95), *RIGHT], "background", 1 / 3 / 2),
        # A poor box on A with the other class, before class 2's only object: AP of class 2 is 1/2.
        ([(NEAR_A, 2, 0.95), *RIGHT], "both", 0.5 / 2),
        # B was not found at all: with one object less to find, class 1 is perfect.
        ([(A, 1, 0.9), (FAR, 2, 0.7)], "missed", (1 - HALF) / 2),
    ],
)
def test_each_kind_costs_what_reasoning_says(found, kind, gain):
    budget = budget_of(found)
    assert {name: budget.count(name) for name in KINDS if budget.count(name)} == {kind: 1}
    assert budget.gains[kind] == pytest.approx(gain, abs=1e-12)
    assert [name for name in KINDS if budget.gains[name] > 0] == [kind]


def test_totals_of_false_alarms_and_of_missed_objects():
    """Class 1: an alarm, then A, B missed: 1/2 up to recall 1/2. Alarms last: 51/101. Nothing missed: 1/2."""
    budget = budget_of([([300, 0, 310, 10], 1, 0.95), (A, 1, 0.9), (FAR, 2, 0.7)])
    assert budget.ap50 == pytest.approx((HALF / 2 + 1) / 2)
    assert budget.false_positives == pytest.approx(HALF / 2 / 2)
    assert budget.false_negatives == pytest.approx((0.5 - HALF / 2) / 2)


def test_every_error_names_what_it_lies_on():
    truth, detections = columns_of(TRUTH, {1: [(A, 1, 0.9), (A, 1, 0.85), (FAR, 1, 0.8)]})
    budget = spend_errors(truth, detections)
    assert [KINDS[kind] if kind >= 0 else None for kind in budget.kind_of] == [None, "duplicate", "classification"]
    assert budget.concerns.tolist() == [-1, 0, 2]
    assert budget.missed.tolist() == [1]  # the object behind the classification error is not missed
    rows = {kind: [part.tolist() for part in budget.rows(kind)] for kind in KINDS + TOTALS}
    assert rows["classification"] == [[2], [2]]
    assert rows["duplicate"] == [[1], [0]]
    assert rows["missed"] == [[-1], [1]]
    assert rows["false_positives"] == [[1, 2], [0, 2]]
    assert rows["false_negatives"] == [[-1, -1], [1, 2]]


def test_two_errors_on_one_object_are_mended_once():
    """Both would become the same object: the surer one counts, the other is struck out."""
    budget = budget_of([(B, 2, 0.8), (B, 2, 0.75), (A, 1, 0.9), (FAR, 2, 0.7)])
    assert budget.count("classification") == 2
    assert budget.ap50 + budget.gains["classification"] == pytest.approx(1)


def test_a_class_whose_missed_boxes_were_all_leaves_the_mean():
    budget = budget_of([(A, 1, 0.9), (B, 1, 0.8)])
    assert (budget.ap50, budget.gains["missed"]) == (0.5, 0.5)


def test_crowds_are_neither_missed_nor_lain_upon():
    """Of what lies half in a crowd nothing is known; what overlaps it a little is a false alarm on the background."""
    budget = budget_of(
        [(A, 1, 0.9), ([100, 100, 110, 140], 1, 0.8)], {1: ([A, B], [1, 1])}, num_classes=1, crowd=[False, True]
    )
    assert (budget.count("background"), budget.count("localization"), budget.count("missed")) == (1, 0, 0)


def without_crowds(truth):
    return replace(truth, is_crowd=np.zeros(len(truth.labels), bool))


@pytest.mark.parametrize("seed", range(50))
def test_prices_and_counts_equal_hotcoco_on_random_cases_without_crowds(seed):
    truth, detections = random_case(seed)
    truth = without_crowds(truth)
    columns = DetectionColumns.from_detections(truth, detections)
    if not len(columns.scores) or not len(truth.labels):
        pytest.skip("nothing drawn")
    budget = spend_errors(truth, columns)
    assert budget.ap50 == pytest.approx(evaluate(truth, detections).map50, abs=1e-9)
    theirs = hotcoco_eval(truth, columns)
    theirs = theirs.tide_errors()
    for kind, name in zip(KINDS, ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"), strict=True):
        assert budget.count(kind) == theirs["counts"][name]
        assert budget.gains[kind] == pytest.approx(theirs["delta_ap"][name], abs=1e-9)
    assert budget.false_positives == pytest.approx(theirs["delta_ap"]["FP"], abs=1e-9)
    assert budget.false_negatives == pytest.approx(theirs["delta_ap"]["FN"], abs=1e-9)


def test_the_budget_in_json_has_advice_for_each_kind():
    document = budget_of(RIGHT).to_json()
    kinds = document["kinds"]
    assert [row["kind"] for row in kinds] == list(KINDS)
    assert [row["kind"] for row in document["totals"]] == list(TOTALS)
    assert all(row["advice"] == ADVICE[row["kind"]] and row["advice"].count(".") >= 1 for row in kinds)


def test_with_nothing_detected_all_is_missed():
    budget = budget_of([])
    assert (budget.ap50, budget.count("missed"), budget.false_positives) == (0, 3, 0)


def test_without_labelled_boxes_there_is_nothing_to_measure():
    budget = budget_of([(A, 1, 0.5)], {1: ([], [])})
    assert (budget.ap50, budget.count("background"), budget.gains["background"]) == (-1, 1, 0)
