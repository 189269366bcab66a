"""Checks that need no model: what makes each of them green, amber and red, and what they propose."""

from pathlib import Path

import numpy as np
import pytest

from app.pipeline.config import parse_config
from app.pipeline.data.categories import CategoryMap
from app.pipeline.data.snapshot import Sample, Samples, Snapshot
from app.pipeline.preflight.dataset_checks import check_anchors, check_crowding, check_sizes

SIZE = 640


def sample(*boxes, split="train"):
    array = np.array(boxes, float).reshape(-1, 4)
    labels, is_crowd = np.ones(len(array), int), np.zeros(len(array), bool)
    return Sample(1, Path("a.png"), "a.png", split, SIZE, SIZE, 0, array, labels, is_crowd)


def squares(side, num, height=None):
    """One sample with boxes of ``side`` spread over it."""
    at = np.linspace(0, SIZE - max(side, height or side), num)
    return sample(*[(x, x, x + side, x + (height or side)) for x in at])


def snapshot(*samples):
    return Snapshot(CategoryMap.from_coco([{"id": 1, "name": "x"}]), Samples.of(samples), "")


@pytest.mark.parametrize(
    ("num_small", "level"),
    [(0, "green"), (10, "amber"), (50, "red")],
    ids=["none are small", "a tenth is small", "half of them are small"],
)
def test_small_objects(num_small, level):
    config = parse_config({"image_size": 320})
    verdict = check_sizes([squares(10, num_small), squares(60, 100 - num_small)], config)  # 5 and 30 px after resizing
    assert verdict.level == level
    if level == "green":
        assert verdict.fix == {}
        return
    mended = parse_config({"image_size": 320, **verdict.fix})
    assert mended.image_size > 320
    assert check_sizes([squares(10, num_small), squares(60, 100 - num_small)], mended).level == "green"


def test_share_below_a_percent_begins_its_sentence():
    verdict = check_sizes([squares(10, 1), squares(60, 200)], parse_config({"image_size": 320}))
    assert verdict.text.startswith("Under 1 % of the objects")


def test_larger_size_takes_growing_sizes_away_which_must_end_with_it():
    config = parse_config({"image_size": 320, "progressive_sizes": [160, 320]})
    assert check_sizes([squares(10, 10)], config).fix == {"image_size": 512, "progressive_sizes": ()}


def test_images_as_they_are_are_resized_from_then_on():
    config = parse_config({"resize": "as_is"})
    verdict = check_sizes([squares(5, 10)], config)
    assert (verdict.level, verdict.fix) == ("red", {"resize": "longest", "image_size": 1024})
    assert check_sizes([squares(5, 10)], config.model_copy(update=verdict.fix)).level == "green"


def test_objects_that_no_size_makes_large_enough_are_looked_at():
    verdict = check_sizes([squares(1, 10)], parse_config({"image_size": 2048}))
    assert (verdict.level, verdict.fix, verdict.action) == ("red", {}, "open_data")
    assert "tiles" in verdict.text


def test_anchors_that_reach_nothing_are_red_and_kmeans_is_proposed():
    config = parse_config({"image_size": SIZE})
    slivers = [squares(8, 30, height=200)]
    verdict = check_anchors(slivers, config)
    assert (verdict.level, verdict.fix) == ("red", {"anchors": "kmeans"})
    assert "0 % of the boxes" in verdict.text
    assert check_anchors(slivers, parse_config({"image_size": SIZE, **verdict.fix})).level == "green"


@pytest.mark.parametrize("anchors", ["stock", "kmeans"])
def test_kmeans_is_not_proposed_where_only_larger_images_help(anchors):
    config = parse_config({"image_size": 320, "anchors": anchors})
    verdict = check_anchors([squares(8, 40)], config)  # 4 px after resizing, between the cells
    assert verdict.level == "red"
    assert verdict.fix["image_size"] > 320
    mended = config.model_copy(update=verdict.fix)
    assert mended.anchors == "kmeans"
    assert check_anchors([squares(8, 40)], mended).level == "green"


def test_anchors_that_nothing_mends_send_to_the_labels():
    verdict = check_anchors([squares(1, 40)], parse_config({"image_size": 64}))
    assert (verdict.level, verdict.fix, verdict.action) == ("red", {}, "open_data")


def test_stock_anchors_fit_squares_of_their_size():
    verdict = check_anchors([squares(64, 20), squares(128, 20)], parse_config({"image_size": SIZE}))
    assert (verdict.level, verdict.fix) == ("green", {})


def test_no_box_to_learn_from_is_red():
    assert check_anchors([sample()], parse_config({})).level == "red"


@pytest.mark.parametrize(
    ("values", "level", "fix"),
    [
        ({}, "green", {}),
        ({"max_detections": 100}, "red", {"max_detections": 0}),
        ({"proposals": 100}, "red", {"proposals": 0}),
        ({"max_detections": 150, "proposals": 120}, "red", {"max_detections": 0, "proposals": 0}),
        ({"max_detections": 205}, "amber", {"max_detections": 0}),
    ],
    ids=["automatic", "fewer detections than objects", "fewer proposals than objects", "both", "tight"],
)
def test_most_crowded_image_against_the_caps(values, level, fix):
    crowded = snapshot(squares(5, 200), squares(5, 3))
    verdict = check_crowding(crowded, parse_config(values))
    assert (verdict.level, verdict.fix) == (level, fix)
    assert check_crowding(crowded, parse_config({**values, **fix})).level == "green"
