import numpy as np
import pytest

from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.curves import ThresholdCurve
from app.pipeline.evaluate.matching import box_ious, count_errors, match, match_columns
from app.pipeline.types import Detections
from tests.pipeline.evaluate.evaluation_cases import make_categories, make_sample, pycocotools_eval, random_case


def outcomes(truth, labels, found, crowd=None, **thresholds):
    boxes, scores, found_labels = found
    return match(
        np.array(truth), np.array(labels), Detections(boxes, scores, found_labels), is_crowd=crowd, **thresholds
    )


A, B = [0, 0, 10, 10], [100, 100, 120, 120]


@pytest.mark.parametrize(
    ("truth", "labels", "crowd", "found", "expected", "missed"),
    [
        ([A], [1], None, ([A], [0.9], [1]), [0], []),
        ([A], [1], None, ([A], [0.9], [2]), [-1], [0]),  # another class does not count
        ([A], [1], None, ([A, A], [0.5, 0.9], [1, 1]), [-1, 0], []),  # the surer one has the first turn
        ([A], [1], None, ([A, A], [0.9, 0.9], [1, 1]), [0, -1], []),  # equal scores: the first given
        ([A, A], [1, 1], None, ([A], [0.9], [1]), [1], [0]),  # equal IoU: the later box, as in COCO
        ([A, [0, 0, 10, 9]], [1, 1], None, ([A, A], [0.9, 0.8], [1, 1]), [0, 1], []),  # second turn, second wish
        ([A], [1], [True], ([A, A], [0.9, 0.8], [1, 1]), [0, 0], []),  # a crowd takes any number
        ([A, A], [1, 1], [True, False], ([[0, 0, 10, 6]], [0.9], [1]), [1], []),  # a plain box goes before a crowd
        ([A], [1], None, ([], [], []), [], [0]),
        ([], [], None, ([B], [0.3], [1]), [-1], []),
        ([[0, 0, 10, 10]], [1], None, ([[0, 0, 10, 5]], [0.9], [1]), [0], []),  # an IoU equal to the threshold counts
    ],
)
def test_detections_take_their_turn_as_in_coco(truth, labels, crowd, found, expected, missed):
    result = outcomes(truth, labels, found, crowd)
    assert result.truth_of.tolist() == expected
    assert result.missed.tolist() == missed


def test_score_threshold_hides_detections_and_misses_their_boxes():
    result = outcomes([A, B], [1, 1], ([A, B], [0.9, 0.2], [1, 1]), score_threshold=0.5)
    assert result.shown.tolist() == [0]
    assert (result.num_tp, result.num_fp, result.num_fn) == (1, 0, 1)


def test_a_box_that_is_displaced_moves_to_its_next_wish():
    # The surest takes what the second wants most; the second then takes what the third wanted.
    truth = [[0, 0, 10, 10], [2, 0, 12, 10], [4, 0, 14, 10]]
    found = ([[0.2, 0, 10.2, 10], [0.4, 0, 10.4, 10], [1.6, 0, 11.6, 10]], [0.7, 0.9, 0.8], [1, 1, 1])
    sequential = _in_turn(np.array(truth, float), np.array(found[0]), np.array(found[1]))
    assert outcomes(truth, [1, 1, 1], found).truth_of.tolist() == sequential


def _in_turn(truth, boxes, scores, threshold=0.5):
    taken, result = set(), [-1] * len(boxes)
    for detection in np.argsort(-scores, kind="stable"):
        ious = box_ious(np.repeat(boxes[[detection]], len(truth), axis=0), truth, np.zeros(len(truth), bool))
        free = [(iou, n) for n, iou in enumerate(ious) if n not in taken and iou >= threshold]
        if free:
            result[detection] = max(free)[1]
            taken.add(result[detection])
    return result


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("iou_index", [0, 4])
def test_all_images_at_once_equal_pycocotools(seed, iou_index):
    truth, detections = random_case(seed)
    columns = DetectionColumns.from_detections(truth, detections)
    if not len(columns.scores):
        pytest.skip("no detections drawn")
    matches = match_columns(truth, columns, 0.5 + 0.05 * iou_index)
    expected_match = np.full(len(columns.scores), -1)
    expected_ignored = np.zeros(len(columns.scores), bool)
    for record in pycocotools_eval(truth, detections).evalImgs:
        if record is None or record["aRng"] != [0, 1e10]:
            continue
        rows = np.array(record["dtIds"], int) - 1
        expected_match[rows] = record["dtMatches"][iou_index].astype(int) - 1
        expected_ignored[rows] = record["dtIgnore"][iou_index].astype(bool)
    assert (matches.truth_of >= 0).tolist() == (expected_match >= 0).tolist()
    assert matches.is_ignored.tolist() == expected_ignored.tolist()
    plain = matches.is_true_positive
    assert matches.truth_of[plain].tolist() == expected_match[plain].tolist()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("score_threshold", [0.0, 0.3, 0.7])
def test_counts_of_all_images_equal_image_by_image(seed, score_threshold):
    truth, detections = random_case(seed)
    columns = DetectionColumns.from_detections(truth, detections)
    counts = count_errors(truth, columns, match_columns(truth, columns, 0.5), score_threshold)
    for index, image_id in enumerate(truth.image_ids.tolist()):
        rows = truth.image_index == index
        found = detections.get(image_id, Detections.empty())
        one = match(truth.boxes[rows], truth.labels[rows], found, 0.5, score_threshold, truth.is_crowd[rows])
        assert (one.num_tp, one.num_fp, one.num_fn) == (counts.tp[index], counts.fp[index], counts.fn[index])
        assert counts.errors[index] == one.num_fp + one.num_fn


def test_zero_area_detections_match_nothing():
    assert outcomes([A], [1], ([[5, 5, 5, 5]], [0.9], [1])).truth_of.tolist() == [-1]


def test_crowds_are_neither_missed_nor_found():
    truth = GroundTruth.from_samples([make_sample(1, [A, B], [1, 1], [True, False])], make_categories(1))
    columns = DetectionColumns.from_detections(truth, {1: Detections([A, B], [0.9, 0.8], [1, 1])})
    counts = count_errors(truth, columns, match_columns(truth, columns), 0.0)
    assert (counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist()) == ([1], [0], [0])


def test_best_f1_is_found_over_all_thresholds():
    curve = ThresholdCurve.from_outcomes(
        np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False]), num_truth=3
    )
    best = curve.best()
    assert (best.f1, best.threshold, best.precision, best.recall) == (4 / 6, 0.7, 2 / 3, 2 / 3)


def test_equal_scores_stand_or_fall_together():
    curve = ThresholdCurve.from_outcomes(np.array([0.5, 0.5, 0.5]), np.array([True, False, False]), num_truth=1)
    assert (curve.tp.tolist(), curve.fp.tolist()) == ([1], [2])
    assert curve.best().f1 == 0.5


def test_sampled_curve_agrees_with_the_counts_at_each_threshold():
    scores = np.array([0.9375, 0.5, 0.25])
    curve = ThresholdCurve.from_outcomes(scores, np.array([True, False, True]), num_truth=4).sampled()
    assert [curve["recall"][n] for n in (0, 25, 26, 50, 51, 93, 94)] == [0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0]
    assert [curve["precision"][n] for n in (25, 50, 51, 100)] == [2 / 3, 0.5, 1, 1]
