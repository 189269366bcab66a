"""Anchor shapes and their recall: hand-made boxes whose truth is known, and torchvision's own anchors as the judge."""

import time

import numpy as np
import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from app.pipeline.anchors import (
    best_ious,
    boxes_after_resize,
    custom_shapes,
    find_shapes,
    level_shapes,
    measure_recall,
    resolve_shapes,
    spread_over_levels,
    stock_shapes,
)
from app.pipeline.config import ConfigError, parse_config
from app.pipeline.models.anchor_generator import ShapedAnchorGenerator

STRIDES = (4, 8, 16, 32, 64)
MOBILE = (32, 32, 64)


def random_boxes(count, extent, seed=0):
    generator = np.random.default_rng(seed)
    sizes = np.exp(generator.uniform(np.log(4), np.log(200), (count, 2)))
    corners = generator.uniform(0, 1, (count, 2)) * np.maximum(extent - sizes, 0)
    return np.concatenate([corners, np.minimum(corners + sizes, extent)], axis=1)


@pytest.mark.parametrize(
    ("strides", "canvas"),
    [
        (STRIDES, (256, 320)),
        (STRIDES, (96, 160)),  # the coarsest grid of 3 rows of 32 has 2: torchvision sets them 48 apart, not 64
        (MOBILE, (224, 320)),
        (STRIDES[:4], (64, 64)),
    ],
    ids=["five levels", "a side that 64 does not divide", "two maps of one stride", "four levels"],
)
def test_best_ious_are_those_of_torchvisions_anchors(strides, canvas):
    shapes = spread_over_levels(np.array([[9.5, 21], [30, 12], [44, 47], [130, 60]]), strides)
    maps = [torch.zeros(1, 1, -(-canvas[0] // stride), -(-canvas[1] // stride)) for stride in strides]
    (anchors,) = ShapedAnchorGenerator(shapes)(ImageList(torch.zeros(1, 3, *canvas), [canvas]), maps)
    boxes = random_boxes(200, np.array([canvas[1], canvas[0]]))
    expected = box_iou(torch.from_numpy(boxes), anchors.double()).amax(1)
    np.testing.assert_allclose(best_ious(boxes, shapes, strides, canvas), expected, atol=1e-6)


def test_recall_of_boxes_whose_truth_is_known():
    """One anchor of 40 x 40 on a grid of 16: IoU 1, 1600/2500 = .64, 40*36/(2*1600-40*36) = .82, and far off."""
    boxes = np.array(
        [
            [12, 12, 52, 52],  # centered on (32, 32)
            [7, 7, 57, 57],  # 50 x 50 there
            [16, 12, 56, 52],  # 4 to the right
            [30, 30, 34, 34],  # 16/1600
            [0, 0, 120, 120],  # 1600/14400
        ],
        float,
    )
    found = measure_recall(boxes, (np.array([[40.0, 40.0]]),), (16,), (128, 128))
    assert (found["all"].num_boxes, found["all"].at_50, found["all"].at_70) == (5, 0.6, 0.4)
    assert (found["small"].num_boxes, found["small"].at_50) == (1, 0.0)
    assert (found["medium"].num_boxes, found["medium"].at_50, found["medium"].at_70) == (3, 1.0, 2 / 3)
    assert (found["large"].num_boxes, found["large"].at_50) == (1, 0.0)


def test_between_two_positions_an_anchor_loses():
    """A 16 x 16 box half a stride of 16 off both ways: 64 of 448 are shared."""
    assert best_ious(np.array([[0.0, 0, 16, 16]]), (np.array([[16.0, 16]]),), (16,), (64, 64)) == pytest.approx(1 / 7)


def test_no_boxes_have_no_recall():
    found = measure_recall(np.zeros((0, 4)), stock_shapes(5), STRIDES, (64, 64))
    assert (found["all"].num_boxes, found["all"].at_50) == (0, None)


def test_ten_thousand_boxes_take_less_than_a_second():
    boxes = random_boxes(10_000, np.array([512, 512]))
    started = time.process_time()
    measure_recall(boxes, stock_shapes(3), MOBILE, (512, 512))
    assert time.process_time() - started < 1


def test_stock_anchors_are_torchvisions():
    five = stock_shapes(5)
    assert [tuple(shape) for shape in five[0]] == [(46, 22), (32, 32), (22, 46)]  # rounded as there
    assert tuple(five[4][1]) == (512, 512)
    assert [len(level) for level in stock_shapes(3)] == [15, 15, 15]
    assert [len(level) for level in stock_shapes(4)] == [6] * 4
    assert {float(shape[0]) for level in stock_shapes(4) for shape in level[2:4]} == {32, 64, 128, 256, 512}


def test_as_many_sizes_as_levels_go_one_to_each_any_other_number_to_all():
    one_each = custom_shapes((8, 16, 32), (1.0,), 3)
    assert [float(level[0, 0]) for level in one_each] == [8, 16, 32]
    on_all = custom_shapes((8, 16), (1.0, 4.0), 3)
    assert [len(level) for level in on_all] == [4] * 3
    assert on_all[2].tolist() == [[8, 8], [16, 16], [4, 16], [8, 32]]  # a ratio is height / width


def test_kmeans_finds_the_sizes_that_boxes_have():
    generator = np.random.default_rng(0)
    truth = np.array([[10, 10], [20, 60], [90, 45]])
    sizes = np.concatenate([size * np.exp(generator.normal(0, 0.05, (200, 2))) for size in truth])
    np.testing.assert_allclose(find_shapes(sizes, 3, seed=1), truth, rtol=0.02)


def test_kmeans_is_decided_by_the_seed():
    sizes = np.exp(np.random.default_rng(0).normal(3, 1, (500, 2)))
    assert (find_shapes(sizes, 9, seed=4) == find_shapes(sizes, 9, seed=4)).all()


def test_fewer_sizes_than_shapes_give_each_size_once():
    assert find_shapes(np.array([[30.0, 10], [5, 5], [30, 10]]), 9, seed=0).round(6).tolist() == [[5, 5], [30, 10]]


def test_each_shape_goes_to_the_level_of_its_size_and_levels_are_filled_with_the_nearest():
    shapes = np.array([[30.0, 34], [31, 31], [70, 60], [500, 500]])
    levels = spread_over_levels(shapes, STRIDES)
    assert [len(level) for level in levels] == [2] * 5
    assert levels[0].tolist() == [[31, 31], [30, 34]]
    assert levels[1].tolist() == [[30, 34], [70, 60]]  # one of its own, and the nearest of the others
    assert [500, 500] in levels[4].tolist()
    used = {tuple(shape) for level in levels for shape in level.tolist()}
    assert used == {tuple(shape) for shape in shapes.tolist()}


@pytest.mark.parametrize("strides", [STRIDES, MOBILE, STRIDES[:4]])
@pytest.mark.parametrize("num", [1, 2, 9, 45])
def test_every_shape_is_used_and_all_levels_have_as_many(strides, num):
    shapes = np.exp(np.random.default_rng(num).uniform(1, 6, (num, 2))).astype(np.float32)
    levels = spread_over_levels(shapes, strides)
    assert len({len(level) for level in levels}) == 1
    assert {tuple(s) for level in levels for s in level.tolist()} == {tuple(s) for s in shapes.tolist()}
    assert all(len(np.unique(level, axis=0)) == len(level) for level in levels)


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        ("longest", [0, 16, 32, 32]),  # 200 x 100 to 64 x 32
        ("letterbox", [0, 16, 32, 32]),
        ("stretch", [0, 32, 32, 64]),
        ("as_is", [0, 50, 100, 100]),
    ],
)
def test_boxes_are_measured_after_resizing(resize, expected):
    config = parse_config({"image_size": 64, "resize": resize})
    assert boxes_after_resize(np.array([[0, 50, 100, 100]]), (200, 100), config)[0].tolist() == expected


def test_shapes_are_found_once_and_only_for_kmeans():
    boxes = np.array([[0, 0, 20, 10], [5, 5, 45, 85], [3, 3, 3, 9.0]])
    resolved = resolve_shapes(parse_config({"anchors": "kmeans"}), boxes)
    assert resolved.anchor_shapes == ((20, 10), (40, 80))  # a box without width teaches nothing
    assert resolve_shapes(resolved, boxes * 2) is resolved
    stock = parse_config({})
    assert resolve_shapes(stock, boxes) is stock
    assert parse_config(resolved.model_dump(mode="json")) == resolved


def test_kmeans_without_boxes_is_refused_with_advice():
    with pytest.raises(ConfigError, match="choose 'stock'"):
        resolve_shapes(parse_config({"anchors": "kmeans"}), np.zeros((0, 4)))
    with pytest.raises(ValueError, match="resolved before"):
        level_shapes(parse_config({"anchors": "kmeans"}), STRIDES)


@pytest.mark.parametrize("values", [{"anchors": "stock"}, {"anchors": "custom"}])
def test_shapes_of_kmeans_beside_other_anchors_are_refused(values):
    with pytest.raises(ConfigError, match="anchor_shapes"):
        parse_config({**values, "anchor_shapes": [[4, 4]]})
