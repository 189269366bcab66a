from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.label_audit import KINDS, find_suspects
from app.pipeline.types import Detections
from tests.pipeline.evaluate.evaluation_cases import make_categories, make_sample

A, B, C = [0, 0, 10, 10], [100, 100, 110, 110], [200, 200, 210, 210]
LOOSE_ON_B = [100, 100, 116, 110]  # IoU .625


def suspects_of(found, labels=(1, 1), crowd=None, min_score=0.5):
    truth = GroundTruth.from_samples([make_sample(1, [A, B], labels, crowd)], make_categories(2))
    boxes, scores, classes = zip(*found, strict=True)
    columns = DetectionColumns.from_detections(truth, {1: Detections(boxes, scores, classes)})
    suspects = find_suspects(truth, columns, min_score)
    return [
        (KINDS[kind], detection, box)
        for kind, detection, box in zip(
            suspects.kind.tolist(), suspects.detection.tolist(), suspects.truth.tolist(), strict=True
        )
    ]


def test_each_kind_is_found_and_the_surest_comes_first():
    found = [(A, 0.7, 2), (LOOSE_ON_B, 0.9, 1), (C, 0.8, 1)]
    assert suspects_of(found) == [("loose_box", 1, 1), ("missing_box", 2, -1), ("wrong_class", 0, 0)]


def test_what_agrees_and_what_is_unsure_is_no_suspect():
    assert suspects_of([(A, 0.9, 1), (B, 0.8, 1), (C, 0.4, 1)]) == []


def test_another_class_is_no_suspect_where_the_model_is_surer_of_the_label():
    assert suspects_of([(A, 0.9, 1), (A, 0.8, 2)]) == []
    assert suspects_of([(A, 0.8, 1), (A, 0.9, 2)]) == [("wrong_class", 1, 0)]


def test_an_object_is_a_suspect_once():
    near_c = [201, 200, 211, 210]
    assert suspects_of([(C, 0.7, 1), (near_c, 0.9, 2)]) == [("missing_box", 1, -1)]
    assert suspects_of([(A, 0.7, 2), ([0, 0, 10, 9], 0.9, 2)]) == [("wrong_class", 1, 0)]


def test_what_lies_in_a_crowd_misses_no_box():
    assert suspects_of([([102, 102, 108, 108], 0.9, 1)], crowd=[False, True]) == []


def test_all_boxes_of_an_image_without_labels_are_missing():
    truth = GroundTruth.from_samples([make_sample(1, [], [])], make_categories(2))
    columns = DetectionColumns.from_detections(truth, {1: Detections([A, C], [0.6, 0.9], [1, 2])})
    assert find_suspects(truth, columns, 0.5).detection.tolist() == [1, 0]
