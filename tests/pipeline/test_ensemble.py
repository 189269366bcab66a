import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
from pydantic import ValidationError

from app.pipeline.ensemble import FusionError, FusionOptions, fuse, fuse_columns
from app.pipeline.fusion.columns import MemberColumns
from app.pipeline.types import Detections

BOX = [100, 50, 200, 150]
Picture = namedtuple("Picture", "image_id width height")
METHODS = ("wbf", "nms", "soft_nms", "nmw")


def one(box=BOX, score=0.9, label=1):
    return Detections([box], [score], [label])


def test_lone_detection_of_three_members_comes_out_a_third():
    fused = fuse([one(), Detections.empty(), Detections.empty()], 400, 300, FusionOptions())
    assert fused.scores.tolist() == pytest.approx([0.3])
    np.testing.assert_allclose(fused.boxes, [BOX], atol=1e-3)


def test_agreeing_members_keep_their_score_and_average_their_boxes():
    members = [one(score=0.6), one([104, 50, 204, 150], score=0.3)]
    fused = fuse(members, 400, 300, FusionOptions())
    assert fused.scores.tolist() == pytest.approx([0.45])
    np.testing.assert_allclose(fused.boxes, [[100 + 4 / 3, 50, 200 + 4 / 3, 150]], atol=1e-3)


def test_weights_count_as_in_the_paper():
    fused = fuse([one(score=0.9), one(score=0.3)], 400, 300, FusionOptions(weights=(3, 1)))
    assert fused.scores.tolist() == pytest.approx([(3 * 0.9 + 0.3) / 4])


def test_nms_keeps_the_surest_box_as_it_is():
    fused = fuse([one(score=0.4), one([104, 50, 204, 150], score=0.7)], 400, 300, FusionOptions(method="nms"))
    assert fused.scores.tolist() == pytest.approx([0.7])
    np.testing.assert_allclose(fused.boxes, [[104, 50, 204, 150]], atol=1e-3)


def test_soft_nms_lowers_the_score_of_the_duplicate():
    fused = fuse([one(score=0.8), one(score=0.6)], 400, 300, FusionOptions(method="soft_nms"))
    assert fused.scores.tolist() == pytest.approx([0.8, 0.6 * np.exp(-1 / 0.5)])


def test_nmw_weights_by_score_and_overlap_and_keeps_the_best_score():
    members = [one(score=0.8), one([100, 50, 200, 130], score=0.4)]
    fused = fuse(members, 400, 300, FusionOptions(method="nmw"))
    share = 0.4 * 0.8 / (0.8 + 0.4 * 0.8)
    assert fused.scores.tolist() == pytest.approx([0.8])
    np.testing.assert_allclose(fused.boxes, [[100, 50, 200, 150 - 20 * share]], atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_classes_are_never_mixed(method):
    fused = fuse([one(label=1), one(label=2)], 400, 300, FusionOptions(method=method))
    assert sorted(fused.labels.tolist()) == [1, 2]


@pytest.mark.parametrize("method", METHODS)
def test_members_without_detections_give_none(method):
    assert len(fuse([Detections.empty(), Detections.empty()], 400, 300, FusionOptions(method=method))) == 0


@pytest.mark.parametrize("method", METHODS)
def test_one_of_the_members_may_be_empty(method):
    assert len(fuse([one(), Detections.empty()], 400, 300, FusionOptions(method=method))) == 1


@pytest.mark.parametrize("method", METHODS)
def test_boxes_without_area_and_outside_the_image_are_left_out_or_clipped(method):
    member = Detections([[5, 5, 5, 9], [500, 10, 600, 20], [-20, 10, 40, 50]], [0.9, 0.9, 0.8], [1, 1, 1])
    fused = fuse([member], 400, 300, FusionOptions(method=method))
    np.testing.assert_allclose(fused.boxes, [[0, 10, 40, 50]], atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_members_keep_their_arrays(method):
    members = [one(score=0.8), one(score=0.6)]
    fuse(members, 400, 300, FusionOptions(method=method, weights=(2, 1)))
    assert [member.scores.tolist() for member in members] == [[np.float32(0.8)], [np.float32(0.6)]]
    assert members[0].boxes.tolist() == [BOX]


@pytest.mark.parametrize("method", METHODS)
def test_low_scores_are_skipped(method):
    assert len(fuse([one(score=0.04)], 400, 300, FusionOptions(method=method, skip_threshold=0.05))) == 0


@pytest.mark.parametrize("method", METHODS)
def test_result_is_sorted_and_within_the_image(method):
    rng = np.random.default_rng(3)
    members = []
    for _ in range(3):
        corner = rng.uniform(0, 250, (40, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(5, 60, (40, 2))], axis=1)
        members.append(Detections(boxes, rng.random(40), rng.integers(1, 4, 40)))
    fused = fuse(members, 300, 300, FusionOptions(method=method))
    assert 0 < len(fused) <= 120
    assert (np.diff(fused.scores) <= 0).all()
    assert fused.boxes.min() >= 0
    assert fused.boxes.max() <= 300.001


@pytest.mark.parametrize(
    ("members", "size", "options", "reason"),
    [
        ([], (10, 10), FusionOptions(), "at least one member"),
        ([one()], (0, 10), FusionOptions(), "0 x 10"),
        ([one(), one()], (10, 10), FusionOptions(weights=(1,)), "2, got 1"),
    ],
)
def test_bad_input_is_refused_with_the_reason(members, size, options, reason):
    with pytest.raises(FusionError, match=reason):
        fuse(members, *size, options)


@pytest.mark.parametrize(
    "values", [{"iou": 0.5}, {"method": "best"}, {"iou_threshold": 1.5}, {"skip_threshold": -1}, {"weights": (0,)}]
)
def test_unknown_options_and_values_are_refused(values):
    with pytest.raises(ValidationError):
        FusionOptions(**values)


def test_scores_of_nothing_are_left_out_and_give_no_box_without_a_place():
    members = [Detections([BOX, [0, 0, 9, 9]], [0.0, 0.5], [1, 1]), one(score=0.0)]
    assert fuse(members, 400, 300, FusionOptions()).scores.tolist() == pytest.approx([0.25])


def test_a_score_shown_as_the_threshold_reaches_it():
    assert len(fuse([one(score=0.7)], 400, 300, FusionOptions(skip_threshold=0.7))) == 1  # as float32 it is .69999999


def test_many_images_at_once_are_fused_as_one_by_one():
    pictures = [Picture(5, 300, 200), Picture(2, 100, 400), Picture(9, 50, 50)]
    members = [make_member(seed, pictures) for seed in range(3)]
    del members[1][2]  # a member without an entry for an image has found nothing in it
    options = FusionOptions(weights=(1, 2, 0.5), skip_threshold=0.1)
    together = fuse_columns(MemberColumns.from_detections(members, pictures), options).to_detections()
    for picture, fused in zip(pictures, together, strict=True):
        each = [member.get(picture.image_id, Detections.empty()) for member in members]
        alone = fuse(each, picture.width, picture.height, options)
        assert len(alone) > 0
        for name in ("boxes", "scores", "labels"):
            np.testing.assert_array_equal(getattr(fused, name), getattr(alone, name))


def test_parts_of_columns_are_the_columns_of_the_parts():
    pictures = [Picture(5, 300, 200), Picture(2, 100, 400), Picture(9, 50, 50)]
    members = [make_member(seed, pictures) for seed in range(3)]
    columns = MemberColumns.from_detections(members, pictures)
    part = columns.of_members([2, 0]).of_images(np.array([True, False, True]))
    wanted = MemberColumns.from_detections([members[0], members[2]], [pictures[0], pictures[2]])
    for name in ("first", "boxes", "scores", "labels", "sizes"):
        np.testing.assert_array_equal(getattr(part, name), getattr(wanted, name))
    np.testing.assert_array_equal(part.members, 1 - wanted.members)  # named 2, 0: the third is member 0


def make_member(seed, pictures):
    rng = np.random.default_rng(seed)
    found = {}
    for picture in pictures:
        corner = rng.uniform(0, 0.7, (12, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0.05, 0.3, (12, 2))], axis=1)
        scale = [picture.width, picture.height] * 2
        found[picture.image_id] = Detections(boxes * scale, rng.random(12), rng.integers(1, 3, 12))
    return found


@pytest.mark.parametrize("first", ["app.pipeline.ensemble", "app.services.ensembling", "app.api.routes.review"])
def test_numba_waits_for_the_first_fusing_and_torch_stays_out(first):
    code = (
        f"import sys, {first}\n"
        "assert 'numba' not in sys.modules\n"
        "import app.pipeline.evaluate.coco_numbers, app.pipeline.ensemble as e\n"
        "from app.pipeline.types import Detections\n"
        "e.fuse([Detections([[0, 0, 5, 5]], [0.5], [1])], 9, 9, e.FusionOptions())\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
