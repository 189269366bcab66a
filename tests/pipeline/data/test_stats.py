"""Figures of a dataset, against numbers counted by hand."""

import json

import numpy as np
import pytest

from app.pipeline.data.stats import Columns, describe_dataset


def make_columns() -> Columns:
    """Two images: 640 x 480 with three boxes, 100 x 200 empty; and one 320 x 320 with one box."""
    return Columns(
        sizes=np.array([(640, 480), (100, 200), (320, 320)]),
        splits=np.array(["train", "train", "valid"]),
        boxes=np.array([(0, 0, 64, 64), (0, 0, 128, 32), (0, 0, 640, 480), (10, 10, 20, 110)], float),
        image_index=np.array([0, 0, 0, 2]),
        category_ids=np.array([1, 1, 5, 5]),
    )


def test_figures_of_a_small_dataset():
    stats = describe_dataset(make_columns(), image_size=320)
    assert (stats["num_images"], stats["num_boxes"], stats["num_empty"]) == (3, 4, 1)
    assert stats["splits"] == {"train": {"images": 2, "boxes": 3}, "valid": {"images": 1, "boxes": 1}}
    assert stats["classes"] == [
        {"category_id": 1, "num_boxes": 2, "num_images": 1, "per_split": {"train": 2}},
        {"category_id": 5, "num_boxes": 2, "num_images": 2, "per_split": {"train": 1, "valid": 1}},
    ]
    assert stats["objects_per_image"]["edges"] == [0, 1, 2, 3, 4]
    assert stats["objects_per_image"]["counts"] == [1, 1, 0, 1]
    assert stats["objects_per_image"]["max"] == 3


def test_boxes_are_measured_after_resizing():
    size = describe_dataset(make_columns(), image_size=320)["box_size"]
    # 640 x 480 is halved: sides 32 (medium), 32 (64 x 16), 277 (320 x 240); 10 x 100 stays: 31.6
    assert (size["small"], size["medium"], size["large"]) == (1, 2, 1)
    assert sum(size["counts"]) == 4
    assert size["edges"][-1] == 320


def test_aspect_ratios_fall_into_symmetric_bars():
    aspect = describe_dataset(make_columns(), image_size=320)["aspect_ratio"]
    bars = list(zip(aspect["edges"], aspect["edges"][1:], aspect["counts"], strict=False))
    assert [(low, high) for low, high, count in bars if count] == [(0, 1 / 8), (4 / 5, 5 / 4), (5 / 4, 3 / 2), (4, 8)]
    assert aspect["edges"][-1] is None


def test_image_sizes_are_summed_up():
    sizes = describe_dataset(make_columns(), image_size=320)["image_sizes"]
    assert sizes["num_sizes"] == 3
    assert (sizes["smallest_side"], sizes["largest_side"]) == (200, 640)


def test_hundreds_of_objects_fit_a_few_bars():
    columns = Columns(
        sizes=np.array([(64, 64), (64, 64)]),
        splits=np.array(["train", "train"]),
        boxes=np.tile([0.0, 0, 5, 5], (318, 1)),
        image_index=np.zeros(318, int),
        category_ids=np.ones(318, int),
    )
    objects = describe_dataset(columns, 320)["objects_per_image"]
    assert len(objects["counts"]) <= 21
    assert sum(objects["counts"]) == 2
    assert objects["counts"][-1] == 1


@pytest.mark.parametrize("num_images", [0, 1])
def test_without_boxes_all_figures_are_zero(num_images):
    columns = Columns(
        np.full((num_images, 2), 64),
        np.array(["train"] * num_images),
        np.zeros((0, 4)),
        np.zeros(0, int),
        np.zeros(0, int),
    )
    stats = describe_dataset(columns, 320)
    assert stats["num_boxes"] == 0
    assert stats["classes"] == []
    json.dumps(stats, allow_nan=False)


def test_figures_are_json():
    json.dumps(describe_dataset(make_columns(), 320), allow_nan=False)
