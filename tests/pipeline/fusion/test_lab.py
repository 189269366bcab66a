"""The lab on made-up members: what is chosen where, and what it is judged on."""

from pathlib import Path

import numpy as np
import pytest

from app.pipeline.data.categories import CategoryMap
from app.pipeline.data.snapshot import Sample
from app.pipeline.fusion import lab
from app.pipeline.fusion.lab import Half, split_in_halves
from app.pipeline.types import Detections

CATEGORIES = CategoryMap((1, 2), ("one", "two"))


def make_samples(num_images, seed=0):
    rng = np.random.default_rng(seed)
    samples = []
    for image_id in range(1, num_images + 1):
        corner = rng.uniform(0, 140, (4, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(20, 60, (4, 2))], axis=1)
        samples.append(
            Sample(
                image_id=image_id,
                path=Path("none"),
                file_name=f"{image_id}.png",
                split="valid",
                width=200,
                height=200,
                rotation=0,
                boxes=boxes,
                labels=rng.integers(1, 3, 4),
                is_crowd=np.zeros(4, bool),
            )
        )
    return samples


def make_member(samples, noise, seed, num_false=2):
    """The labels, each moved by some ``noise``, with false alarms that are as sure as the rest."""
    rng = np.random.default_rng(seed)
    found = {}
    for sample in samples:
        moved = sample.boxes + rng.normal(0, noise, sample.boxes.shape)
        corner = rng.uniform(0, 150, (num_false, 2))
        boxes = np.concatenate([moved, np.concatenate([corner, corner + 40], axis=1)])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 2)
        labels = np.concatenate([sample.labels, rng.integers(1, 3, num_false)])
        found[sample.image_id] = Detections(boxes, rng.uniform(0.3, 1, len(boxes)), labels)
    return found


def reader_of(member):
    return lambda image_ids: {image_id: member[image_id] for image_id in image_ids if image_id in member}


def make_halves(noises, num_images=24, num_false=2):
    samples = make_samples(num_images)
    members = [make_member(samples, noise, seed, num_false) for seed, noise in enumerate(noises)]
    is_tuning = split_in_halves(samples, {}, seed=0)
    return [
        Half.of(
            [sample for sample, own in zip(samples, mask, strict=True) if own],
            CATEGORIES,
            list(map(reader_of, members)),
        )
        for mask in (is_tuning, ~is_tuning)
    ]


def run_lab(tuning, judging, metric, **given):
    return lab.run_lab(["off"], lambda views: (tuning, judging), metric, **given)


def test_images_of_one_source_stay_together_and_a_seed_tells_halves_apart():
    samples = make_samples(40)
    sources = {sample.image_id: f"source {sample.image_id % 10}" for sample in samples}
    sources |= {5: "", 15: "", 25: "", 35: ""}  # not known: each by itself
    is_tuning = split_in_halves(samples, sources, seed=1)
    for number in set(range(10)) - {5}:
        own = [chosen for sample, chosen in zip(samples, is_tuning, strict=True) if sample.image_id % 10 == number]
        assert len(set(own)) == 1
    assert 16 <= is_tuning.sum() <= 24
    assert (split_in_halves(samples, sources, seed=1) == is_tuning).all()
    assert (split_in_halves(samples, sources, seed=2) != is_tuning).any()


def test_members_that_err_in_different_places_are_a_gain_and_a_bad_one_is_dispensable():
    found = run_lab(*make_halves([3, 3, 40]), "map", methods=("wbf", "nms"))
    wbf = found["methods"][0]
    assert found["best"] == 0
    assert wbf["judged"]["score"] > max(row["judged"]["score"] for row in found["alone"]) + 0.05
    assert wbf["options"]["weights"][2] < 1
    assert found["contributions"][2]["map"] < min(found["contributions"][index]["map"] for index in (0, 1))
    for brought in found["contributions"]:
        noise = brought["noise"]
        assert noise["difference"] == pytest.approx(brought["score"], abs=1e-12)
        assert noise["second"] == pytest.approx(wbf["judged"]["score"], abs=1e-12)
        assert noise["low"] <= brought["score"] <= noise["high"]
    assert [brought["noise"]["outcome"] for brought in found["contributions"]][:2] == ["gain", "gain"]
    assert found["smallest"]["members"] == [0, 1]


def test_what_a_member_brings_to_f1_is_measured_at_the_thresholds_of_the_tuning_half():
    for brought in run_lab(*make_halves([3, 6, 20]), "f1", methods=("nms",))["contributions"]:
        assert brought["noise"]["difference"] == pytest.approx(brought["score"], abs=1e-12)


def test_a_member_stands_with_its_own_detections_and_not_fused_with_themselves():
    tuning, judging = make_halves([3, 6])
    alone = run_lab(tuning, judging, "map", methods=("nms",))["alone"][0]
    assert alone["judged"]["map"] == judging.judge.judge(judging.of_member(0)).map


def test_nothing_is_chosen_by_the_half_that_judges():
    tuning, judging = make_halves([3, 5, 8])
    other = make_halves([9, 2, 4])[1]
    first, second = (run_lab(tuning, half, "map50_f1", methods=("wbf", "nmw")) for half in (judging, other))
    assert first["methods"][0]["judged"] != second["methods"][0]["judged"]
    assert [row["options"] for row in first["methods"]] == [row["options"] for row in second["methods"]]
    assert first["best"] == second["best"]
    assert first["smallest"]["members"] == second["smallest"]["members"]


def test_the_best_views_are_taken_apart_with_their_own_detections():
    halves = {"good": make_halves([3, 5]), "bad": make_halves([20, 30])}
    found = lab.run_lab(["good", "bad"], halves.__getitem__, "map", methods=("wbf", "nms"))
    alone = run_lab(*halves["good"], "map", methods=("wbf", "nms"))
    assert [row["views"] for row in found["methods"]] == ["good", "good", "bad", "bad"]
    assert found["methods"][found["best"]]["judged"] == alone["methods"][alone["best"]]["judged"]
    assert (found["contributions"], found["smallest"]) == (alone["contributions"], alone["smallest"])


def test_f1_is_judged_at_the_threshold_of_the_tuning_half():
    tuning, judging = make_halves([3, 5])
    row = run_lab(tuning, judging, "map", methods=("nms",))["alone"][1]
    assert row["judged"]["threshold"] == row["tuned"]["threshold"]
    best = judging.judge.judge(judging.of_member(1))
    assert best.threshold != row["tuned"]["threshold"]
    assert row["judged"]["f1"] == judging.judge.judge(judging.of_member(1), row["tuned"]["threshold"]).f1 <= best.f1


def test_of_many_members_one_after_the_other_is_left_out():
    found = run_lab(*make_halves([3, 3, 3, 50, 50, 50, 50, 60], num_images=10), "map", methods=("wbf",))
    assert found["smallest"]["num_tried"] == 8
    assert set(found["smallest"]["members"]) <= {0, 1, 2}


def test_a_tick_comes_before_each_trial_and_may_end_it():
    class Enough(Exception):
        pass

    seen = []

    def tick(method):
        seen.append(method)
        if len(seen) == 5:
            raise Enough

    tuning, judging = make_halves([3, 5], num_images=6)
    with pytest.raises(Enough):
        run_lab(tuning, judging, "map", tick=tick)
    assert seen == ["wbf"] * 5


def test_images_are_read_in_pieces_and_come_out_as_in_one(monkeypatch):
    samples = make_samples(10)
    members = [make_member(samples, 3, seed) for seed in range(2)]
    seen = []

    def noting(member):
        return lambda image_ids: seen.append(len(image_ids)) or reader_of(member)(image_ids)

    whole = Half.of(samples, CATEGORIES, list(map(reader_of, members))).columns
    monkeypatch.setattr(lab, "IMAGES_AT_ONCE", 4)
    pieces = Half.of(samples, CATEGORIES, list(map(noting, members))).columns
    assert seen == [4, 4, 4, 4, 2, 2]
    for name in ("first", "boxes", "scores", "labels", "sizes", "members"):
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))


def test_an_image_that_a_member_lacks_counts_as_one_without_detections():
    samples = make_samples(4)
    member = make_member(samples, 3, 0)
    half = Half.of(samples, CATEGORIES, [reader_of(member), reader_of({})])
    assert half.judge.judge(half.of_member(1)).map == 0
    assert half.columns.num_images == 4
    only = Half.of(samples[:2], CATEGORIES, [reader_of(member)])  # has images of the other half
    assert len(only.of_member(0).scores) == 12
