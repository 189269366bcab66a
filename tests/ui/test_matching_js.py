"""The browser's matching must be the evaluation's, number for number: run by node on the same cases."""

import functools

import numpy as np
import pytest

from app.pipeline.evaluate.columns import DetectionColumns
from app.pipeline.evaluate.matching import count_errors, match_columns
from app.pipeline.types import Detections
from tests.pipeline.evaluate.evaluation_cases import random_case

SCRIPT = """
import { candidatesOf, countErrors, matchImage, turnsOf } from "WIDGETS/matching.js";
const answers = given.map(({ truth, found, iou, score, label }) => {
  const labelled = { boxes: Float64Array.from(truth.boxes), labels: truth.labels, isCrowd: truth.is_crowd };
  const scores = Float32Array.from(found.scores);
  const stored = { boxes: Float32Array.from(found.boxes), scores, labels: found.labels };
  const match = matchImage(labelled, stored, turnsOf(stored.scores), candidatesOf(labelled, stored), iou);
  const counts = countErrors(labelled, stored, match, score, label);
  return { truthOf: [...match.truthOf], isIgnored: [...match.isIgnored], counts };
});
answer(answers);
"""


@pytest.fixture
def run_in_node(node):
    return functools.partial(node, SCRIPT)


@pytest.mark.parametrize("iou", [0.05, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("score", [0.0, 0.5])
def test_browser_matches_as_the_evaluation_does(run_in_node, iou, score):
    cases, expected = [], []
    for seed in range(40):
        truth, detections = random_case(seed)
        columns = DetectionColumns.from_detections(truth, detections)
        matches = match_columns(truth, columns, iou)
        counts = count_errors(truth, columns, matches, score)
        for index, image_id in enumerate(truth.image_ids.tolist()):
            rows, own = truth.image_index == index, columns.image_index == index
            found = detections.get(image_id, Detections.empty())
            first = int(np.flatnonzero(rows)[0]) if rows.any() else 0
            cases.append(
                {
                    "truth": {
                        "boxes": truth.boxes[rows].ravel(),
                        "labels": truth.labels[rows],
                        "is_crowd": truth.is_crowd[rows].astype(int),
                    },
                    "found": {"boxes": found.boxes.ravel(), "scores": found.scores, "labels": found.labels},
                    "iou": iou,
                    "score": score,
                    "label": 0,
                }
            )
            expected.append(
                {
                    "truthOf": [row - first if row >= 0 else -1 for row in matches.truth_of[own].tolist()],
                    "isIgnored": matches.is_ignored[own].astype(int).tolist(),
                    "counts": {name: int(getattr(counts, name)[index]) for name in ("tp", "fp", "fn")},
                }
            )
    assert run_in_node(cases) == expected


def test_counts_of_a_class_leave_the_others_out(run_in_node):
    truth = {"boxes": [0, 0, 9, 9, 20, 20, 30, 30], "labels": [1, 2], "is_crowd": [0, 0]}
    found = {"boxes": [0, 0, 9, 9, 50, 50, 60, 60], "scores": [0.9, 0.8], "labels": [1, 2]}
    cases = [{"truth": truth, "found": found, "iou": 0.5, "score": 0.1, "label": label} for label in (0, 1, 2)]
    counts = [answer["counts"] for answer in run_in_node(cases)]
    assert counts == [{"tp": 1, "fp": 1, "fn": 1}, {"tp": 1, "fp": 0, "fn": 0}, {"tp": 0, "fp": 1, "fn": 1}]


def test_browser_breaks_ties_as_the_evaluation_does(run_in_node):
    box, half = [0, 0, 10, 10], [0, 0, 10, 5]
    twice = {"boxes": box + box, "labels": [1, 1], "is_crowd": [0, 0]}
    cases = [
        {"truth": twice, "found": {"boxes": box, "scores": [0.9], "labels": [1]}},  # equal IoU: the later box
        {"truth": twice, "found": {"boxes": box * 3, "scores": [0.5] * 3, "labels": [1] * 3}},  # equal scores: in order
        {"truth": twice, "found": {"boxes": half, "scores": [0.9], "labels": [1]}},  # an IoU equal to the threshold
    ]
    answers = run_in_node([{**case, "iou": 0.5, "score": 0, "label": 0} for case in cases])
    assert [answer["truthOf"] for answer in answers] == [[1], [1, 0, -1], [1]]
