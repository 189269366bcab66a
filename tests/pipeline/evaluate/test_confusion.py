from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.confusion import confuse
from app.pipeline.evaluate.matching import count_errors, match_columns
from app.pipeline.evaluate.suppression import suppress
from app.pipeline.types import Detections
from tests.pipeline.evaluate.evaluation_cases import make_categories, make_sample, random_case

A, B, C = [0, 0, 10, 10], [100, 100, 110, 110], [200, 200, 210, 210]


def made_case(crowd=None):
    """Image 7: A of class 1 found, B of class 1 taken for 2, C of class 2 missed. Image 8: an alarm and a weak one."""
    samples = [make_sample(7, [A, B, C], [1, 1, 2], crowd), make_sample(8, [], [])]
    truth = GroundTruth.from_samples(samples, make_categories(2))
    found = {7: Detections([B, A], [0.9, 0.8], [2, 1]), 8: Detections([A, B], [0.2, 0.7], [1, 1])}
    return truth, DetectionColumns.from_detections(truth, found)


def test_cells_count_what_was_taken_for_what():
    matrix = confuse(*made_case(), score_threshold=0.5)
    assert matrix.counts.tolist() == [[0, 1, 0], [0, 1, 1], [1, 0, 0]]


def test_cells_name_their_boxes_the_surest_first():
    matrix = confuse(*made_case(), score_threshold=0.1)
    cells = {(t, p): [rows.tolist() for rows in matrix.cell(t, p)] for t in range(3) for p in range(3)}
    assert cells[1, 2] == [[1], [0]]
    assert cells[2, 0] == [[2], [-1]]
    assert cells[0, 1] == [[-1, -1], [3, 2]]
    assert cells[2, 1] == [[], []]


def test_own_class_goes_before_a_larger_overlap_with_another():
    """The box of class 1 overlaps the object of class 2 more, yet it is the one that finds its own."""
    truth = GroundTruth.from_samples([make_sample(1, [[0, 0, 10, 10], [0, 0, 10, 6]], [2, 1])], make_categories(2))
    columns = DetectionColumns.from_detections(truth, {1: Detections([[0, 0, 10, 9]], [0.9], [1])})
    assert confuse(truth, columns, 0).counts.tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]


def test_crowds_are_in_no_cell():
    matrix = confuse(*made_case(crowd=[True, False, True]), score_threshold=0.5)
    assert matrix.counts.tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("score_threshold", [0.0, 0.45])
def test_the_diagonal_is_the_true_positives_and_the_sums_are_all_boxes(seed, score_threshold):
    truth, detections = random_case(seed)
    columns = DetectionColumns.from_detections(truth, detections)
    counts = confuse(truth, columns, score_threshold).counts
    matches = match_columns(truth, columns, 0.5)
    errors = count_errors(truth, columns, matches, score_threshold)
    shown = columns.scores >= score_threshold
    assert np.trace(counts) == errors.tp.sum()
    assert counts[:, 1:].sum() == (shown & ~matches.is_ignored).sum()
    assert counts[1:].sum() == (~truth.is_crowd).sum()
    for label in range(1, len(truth.categories) + 1):
        assert counts[label].sum() == (truth.labels[~truth.is_crowd] == label).sum()


def test_cells_hold_as_many_pairs_as_they_count():
    truth, detections = random_case(3)
    truth = replace(truth, is_crowd=np.zeros(len(truth.labels), bool))
    matrix = confuse(truth, DetectionColumns.from_detections(truth, detections), 0.2)
    size = len(truth.categories) + 1
    assert [[len(matrix.cell(t, p)[0]) for p in range(size)] for t in range(size)] == matrix.counts.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_nms_leaves_what_batched_nms_leaves(seed):
    truth, detections = random_case(seed)
    columns = DetectionColumns.from_detections(truth, detections)
    kept = suppress(columns, 0.3)
    groups = torch.from_numpy(columns.image_index * 100 + columns.labels)
    left = batched_nms(
        torch.from_numpy(columns.boxes.astype(np.float64)), torch.from_numpy(columns.scores), groups, 0.3
    )
    assert np.flatnonzero(kept).tolist() == sorted(left.tolist())
    counts = confuse(truth, columns, 0.2, nms_threshold=0.3).counts
    assert counts.tolist() == confuse(truth, columns.select(kept), 0.2).counts.tolist()


def test_a_box_that_fell_takes_no_other_along():
    boxes = [[0, 0, 10, 10], [0, 4, 10, 14], [0, 8, 10, 18], [0, 0, 10, 10]]  # each overlaps the next by 3/7
    found = {1: Detections(boxes, [0.9, 0.8, 0.7, 0.6], [1, 1, 1, 2])}
    truth = GroundTruth.from_samples([make_sample(1, [], [])], make_categories(2))
    columns = DetectionColumns.from_detections(truth, found)
    assert suppress(columns, 0.4).tolist() == [True, False, True, True]
    assert suppress(columns, 0.5).all()
