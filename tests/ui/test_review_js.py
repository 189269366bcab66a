"""What Review counts in the browser must be what Python counts on the same cases: run by node."""

import numpy as np
import pytest

from app.pipeline.evaluate import error_budget
from app.pipeline.evaluate.columns import DetectionColumns
from app.pipeline.evaluate.curves import ThresholdCurve
from app.pipeline.evaluate.error_budget import KINDS, spend_errors
from app.pipeline.evaluate.matching import box_ious, count_errors, match_columns
from app.pipeline.types import Detections
from tests.pipeline.evaluate.evaluation_cases import random_case

EVERYTHING = {"score": 0, "thresholds": None, "iou": 0.5, "nms": 1, "label": 0, "size": -1, "kind": -1}
IMAGES = """
import { ReviewImage } from "WIDGETS/review_image.js";
answer(given.map(({ entry, view }) => {
  const image = new ReviewImage(entry, 0);
  image.update(view);
  const { counts, kinds, kindOf, kept, surest, meanIou, difference } = image;
  const lists = { kinds: [...kinds], kindOf: [...kindOf], kept: [...kept], drawn: image.boxesAt(view) };
  return { counts, surest, meanIou, difference, ...lists };
}));
"""
CURVES = """
import { ReviewImage } from "WIDGETS/review_image.js";
import { ThresholdCurves } from "WIDGETS/threshold_curves.js";
answer(given.map(({ entries, numClasses, view }) => {
  const curves = new ThresholdCurves(numClasses);
  for (const entry of entries) {
    const image = new ReviewImage(entry, 0);
    image.update(view);
    image.addTo(curves, -1);
  }
  curves.finish();
  const steps = [...Array(101).keys()].map((step) => 10 * step);
  return [...Array(numClasses + 1).keys()].map((label) => steps.map((step) => curves.at(label, step)));
}));
"""


def entries_of(truth, detections):
    """The images of a case as the server sends them, in the order of the truth."""
    entries = []
    for index, image_id in enumerate(truth.image_ids.tolist()):
        rows = truth.image_index == index
        found = detections.get(image_id, Detections.empty())
        boxes = {"boxes": truth.boxes[rows].ravel(), "labels": truth.labels[rows]}
        entries.append(
            {
                "id": image_id,
                "file_name": f"{image_id}.png",
                "width": 400,
                "height": 400,
                "truth": {**boxes, "is_crowd": truth.is_crowd[rows].astype(int)},
                "predictions": {"boxes": found.boxes.ravel(), "scores": found.scores, "labels": found.labels},
            }
        )
    return entries


def confused_case(seed):
    """A random case where some detections have another class."""
    truth, detections = random_case(seed)
    rng = np.random.default_rng(seed)
    for image_id, found in detections.items():
        other = rng.integers(1, len(truth.categories) + 1, len(found))
        labels = np.where(rng.random(len(found)) < 0.4, other, found.labels)
        detections[image_id] = Detections(found.boxes, found.scores, labels)
    return truth, detections


def view_of(**changes):
    return {**EVERYTHING, **changes}


def image_of(truth=(), found=(), is_crowd=None):
    """An image from (box, label) and (box, label, score)."""
    boxes = [value for box, _ in truth for value in box]
    crowd = is_crowd or [0] * len(truth)
    predicted = [value for box, *_ in found for value in box]
    return {
        "id": 1,
        "file_name": "1.png",
        "width": 400,
        "height": 400,
        "truth": {"boxes": boxes, "labels": [label for _, label in truth], "is_crowd": crowd},
        "predictions": {
            "boxes": predicted,
            "labels": [label for _, label, _ in found],
            "scores": [score for *_, score in found],
        },
    }


@pytest.mark.parametrize(("iou", "score"), [(0.5, 0.0), (0.5, 0.4), (0.75, 0.2)])
def test_kinds_of_errors_are_those_of_the_error_budget(node, monkeypatch, iou, score):
    monkeypatch.setattr(error_budget, "FOREGROUND_IOU", iou)
    cases, expected = [], []
    for seed in range(40):
        truth, detections = confused_case(seed)
        columns = DetectionColumns.from_detections(truth, detections)
        columns = columns.select(columns.scores >= score)
        budget = spend_errors(truth, columns)
        for index, entry in enumerate(entries_of(truth, detections)):
            own = columns.image_index == index
            kinds = np.bincount(budget.kind_of[own][budget.kind_of[own] >= 0], minlength=len(KINDS))
            kinds[KINDS.index("missed")] = int((truth.image_index[budget.missed] == index).sum())
            cases.append({"entry": entry, "view": view_of(iou=iou, score=score)})
            expected.append((kinds.tolist(), budget.kind_of[own].tolist()))
    answers = node(IMAGES, cases)
    shown = [np.array(case["entry"]["predictions"]["scores"], float) >= score for case in cases]
    kinds_of_shown = [np.array(one["kindOf"], int)[rows].tolist() for one, rows in zip(answers, shown, strict=True)]
    assert list(zip([one["kinds"] for one in answers], kinds_of_shown, strict=True)) == expected
    assert {kind for _, kinds in expected for kind in kinds} == {-1, 0, 1, 2, 3, 4}


def suppressed(found, threshold):
    """What greedy NMS by class leaves, the plain way: positions by falling score."""
    boxes, kept = found.boxes.astype(np.float64), []
    for row in np.argsort(-found.scores, kind="stable").tolist():
        rivals = [other for other in kept if found.labels[other] == found.labels[row]]
        none = np.zeros(len(rivals), bool)
        if not len(rivals) or box_ious(np.repeat(boxes[[row]], len(rivals), 0), boxes[rivals], none).max() <= threshold:
            kept.append(row)
    return kept


@pytest.mark.parametrize("nms", [0.1, 0.5, 0.8])
def test_nms_leaves_what_python_leaves_and_the_rest_is_matched_anew(node, nms):
    cases, expected = [], []
    for seed in range(25):
        truth, detections = random_case(seed)
        left = {image_id: found.select(suppressed(found, nms)) for image_id, found in detections.items()}
        columns = DetectionColumns.from_detections(truth, left)
        counts = count_errors(truth, columns, match_columns(truth, columns, 0.5), 0.3)
        for index, entry in enumerate(entries_of(truth, detections)):
            cases.append({"entry": entry, "view": view_of(nms=nms, score=0.3)})
            found = detections.get(entry["id"], Detections.empty())
            own = {name: int(getattr(counts, name)[index]) for name in ("tp", "fp", "fn")}
            expected.append((suppressed(found, nms), own))
    answers = node(IMAGES, cases)
    assert [(one["kept"], one["counts"]) for one in answers] == expected
    assert any(
        len(one["kept"]) < len(case["entry"]["predictions"]["scores"]) for one, case in zip(answers, cases, strict=True)
    )


def test_thresholds_by_class_count_each_class_by_its_own(node):
    cases, expected = [], []
    for seed in range(25):
        truth, detections = random_case(seed)
        thresholds = np.array([9, 0.2, 0.7, 0.45, 0.9])
        columns = DetectionColumns.from_detections(truth, detections)
        columns = columns.select(columns.scores >= thresholds[columns.labels])
        counts = count_errors(truth, columns, match_columns(truth, columns), 0)
        for index, entry in enumerate(entries_of(truth, detections)):
            cases.append({"entry": entry, "view": view_of(score=0.99, thresholds=thresholds)})
            expected.append({name: int(getattr(counts, name)[index]) for name in ("tp", "fp", "fn")})
    assert [one["counts"] for one in node(IMAGES, cases)] == expected


def test_curves_are_those_of_the_evaluation_for_each_class_and_for_all(node):
    cases, expected = [], []
    for seed in range(15):
        truth, detections = random_case(seed)
        columns = DetectionColumns.from_detections(truth, detections)
        matches = match_columns(truth, columns, 0.6)
        num_classes = len(truth.categories)
        cases.append({"entries": entries_of(truth, detections), "numClasses": num_classes, "view": view_of(iou=0.6)})
        for label in range(num_classes + 1):
            own = ~matches.is_ignored & ((columns.labels == label) | (label == 0))
            num_truth = int((~truth.is_crowd & ((truth.labels == label) | (label == 0))).sum())
            curve = ThresholdCurve.from_outcomes(columns.scores[own], matches.is_true_positive[own], num_truth)
            expected.append([curve.sampled()[name] for name in ("precision", "recall", "f1")])
    drawn = [curve for case in node(CURVES, cases) for curve in case]
    for curve, wanted in zip(drawn, expected, strict=True):
        shown = [[point[name] for point in curve] for name in ("precision", "recall", "f1")]
        np.testing.assert_allclose(shown, wanted, rtol=0, atol=1e-12)


SMALL, LARGE, FAR = [0, 0, 20, 20], [100, 100, 250, 250], [300, 300, 330, 330]


def test_sizes_are_those_of_the_object_that_was_found_and_else_of_the_box(node):
    """A box of 33 x 32 that found an object of 20 x 20 belongs to the small ones, as in COCO's figures."""
    image = image_of([(SMALL, 1), (LARGE, 1)], [([0, 0, 33, 32], 1, 0.9), (FAR, 1, 0.8)])
    views = [view_of(iou=0.3, size=size) for size in (-1, 0, 1, 2)]
    counts = [one["counts"] for one in node(IMAGES, [{"entry": image, "view": view} for view in views])]
    assert counts == [
        {"tp": 1, "fp": 1, "fn": 1},
        {"tp": 1, "fp": 1, "fn": 0},  # the false alarm of 30 x 30 is small
        {"tp": 0, "fp": 0, "fn": 0},
        {"tp": 0, "fp": 0, "fn": 1},
    ]


@pytest.mark.parametrize(("side", "size"), [(31.9, 0), (32, 1), (96, 1), (96.1, 2)], ids=str)
def test_limits_of_the_sizes_are_cocos(node, side, size):
    image = image_of([([0, 0, side, side], 1)])
    (answer,) = node(IMAGES, [{"entry": image, "view": view_of(size=size)}])
    assert answer["counts"]["fn"] == 1


def test_orders_have_what_they_need(node):
    image = image_of([(SMALL, 1), (LARGE, 2)], [(SMALL, 1, 0.9), (FAR, 1, 0.6), (FAR, 2, 0.7), (FAR, 2, 0.1)])
    (answer,) = node(IMAGES, [{"entry": image, "view": view_of(score=0.5)}])
    assert answer["surest"] == pytest.approx(0.7)
    assert answer["meanIou"] == pytest.approx(1 / 3)
    assert answer["difference"] == 1


def test_a_kind_of_error_leaves_the_others_faint(node):
    image = image_of([(SMALL, 1), (LARGE, 2)], [(SMALL, 1, 0.9), (SMALL, 1, 0.8), (FAR, 1, 0.6)])
    (answer,) = node(IMAGES, [{"entry": image, "view": view_of(kind=KINDS.index("duplicate"))}])
    assert [(box["outcome"], box["isFaint"]) for box in answer["drawn"]] == [
        ("fn", True),
        ("fp", True),
        ("fp", False),
        ("tp", True),
    ]
