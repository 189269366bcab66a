"""The checks that run a model, on a detector and a dataset that take seconds; each is made red once."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from app.pipeline.config import parse_config
from app.pipeline.data.snapshot import Sample
from app.pipeline.machine import MachineError
from app.pipeline.models import build
from app.pipeline.models.weights_fit import WeightsError
from app.pipeline.preflight import batch_fit, checks, overfit, rehearsal
from app.pipeline.preflight.batch_fit import BatchFit, judge_fit
from app.pipeline.preflight.checks import NUM_CHECKS, TITLES, preflight
from app.pipeline.preflight.overfit import check_overfit, choose_two, judge_learning
from app.pipeline.preflight.rehearsal import Measured, judge_time
from app.pipeline.train.checkpoint import CheckpointError
from app.pipeline.train.loader import DatasetError
from app.pipeline.train.run import Run
from app.pipeline.types import Progress, RunContext
from tests.pipeline.train.tiny_dataset import TINY, construct_tiny, tiny_snapshot

GB = 1_000_000_000
AT_REST = {"learning_rate": 1e-8, "final_learning_rate": 0}  # next to nothing moves


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch):
    monkeypatch.setattr(build, "construct", construct_tiny)


@pytest.fixture
def snapshot(tmp_path):
    return tiny_snapshot(tmp_path)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "runs"
    place.mkdir()
    return place


@pytest.fixture
def quick(monkeypatch):
    """Without learning by heart, which takes seconds."""
    monkeypatch.setattr(checks, "OVERFIT_S", (0.0, 0.0))


def check(snapshot, folder, **values):
    return {one.check: one for one in preflight(parse_config({**TINY, **values}), snapshot, folder)}


def test_all_checks_of_a_run_that_works_are_told_one_by_one(snapshot, folder, monkeypatch):
    monkeypatch.setattr(overfit, "WANTED", 0.5)  # so few weights take longer to learn by heart
    events = []
    config = parse_config({**TINY, "learning_rate": 0.01})
    verdicts = list(preflight(config, snapshot, folder, RunContext(emit=events.append)))
    assert [one.check for one in verdicts] == [name for name in TITLES if name != "start"]
    levels = {one.check: one.level for one in verdicts}
    assert levels["memory"] == levels["time"] == levels["disk"] == levels["overfit"] == "green", verdicts
    assert list(folder.iterdir()) == []
    progress = [event for event in events if isinstance(event, Progress)]
    assert {event.total for event in progress} == {NUM_CHECKS}
    assert [event.done for event in progress] == sorted(event.done for event in progress)


def test_rate_at_which_nothing_is_learned_is_red(snapshot, folder):
    verdict = check_overfit(
        parse_config({**TINY, "learning_rate": 1e-8, "final_learning_rate": 0}), snapshot, folder, 60, RunContext()
    )
    assert (verdict.level, verdict.fix) == ("red", {"learning_rate": 1e-3})


def test_loss_that_becomes_infinite_is_red_and_a_lower_rate_is_proposed(snapshot, folder):
    config = parse_config({**TINY, "optimizer": "sgd", "learning_rate": 10, "clip_gradient_norm": 0})
    verdict = check_overfit(config, snapshot, folder, 60, RunContext())
    assert (verdict.level, verdict.fix) == ("red", {"learning_rate": 0.005})


@pytest.mark.parametrize(
    ("losses", "values", "fix"),
    [
        ([2.0] * 60, {}, {"learning_rate": 0.003}),
        ([2.0] * 5 + [0.5] * 50 + [1.9] * 5, {}, {"learning_rate": 0.0003}),
        ([2.0] * 5 + [3.0] * 55, {"learning_rate": 0.1}, {"learning_rate": 0.001}),
        ([2.0] * 5 + [3.0] * 55, {"learning_rate": 1e-8, "final_learning_rate": 0}, {"learning_rate": 0.001}),
        ([2.0] * 60, {"model": "fasterrcnn_swin_t_fpn", "learning_rate": 1e-5}, {"learning_rate": 0.0001}),
        ([2.0] * 5 + [3.0] * 55, {"learning_rate": 2e-6}, {"learning_rate": 0.001}),
        (
            [2.0] * 5 + [3.0] * 55,
            {"epochs": 2, "phases": [{"train": "all", "epochs": 2, "learning_rate": 1e-3}]},
            {"phases": ({"train": "all", "epochs": 2, "learning_rate": 3e-4},)},
        ),
    ],
    ids=["rests", "falls, then rises", "far too high", "by chance", "a transformer", "tiny", "in phases"],
)
def test_rate_is_raised_where_nothing_moves_and_lowered_where_the_loss_runs_away(losses, values, fix):
    ratio = losses[-1] / losses[0]
    assert judge_learning(losses, ratio, 30.0, parse_config(values)).fix == fix


def test_verdict_that_a_tenth_was_reached_does_not_read_as_one_that_was_just_missed():
    assert "from 2.00 to 0.19, 9.6 % of it" in judge_learning([2.0] * 60, 0.096, 30.0, parse_config({})).text


def test_no_labeled_image_is_red(snapshot, folder):
    bare = replace(snapshot, samples=snapshot.split("train")[:1])
    assert check_overfit(parse_config(TINY), bare, folder, 60, RunContext()).level == "red"


@pytest.mark.parametrize(
    ("ratio", "steps", "level"),
    [
        (0.09, 60, "green"),
        (0.3, 60, "amber"),
        (0.95, 60, "red"),
        (0.2, 150, "amber"),
        (0.5, 150, "red"),
        (1, 3, "amber"),
    ],
    ids=["a tenth", "out of time", "not falling", "nearly", "far from it", "too few steps"],
)
def test_how_far_the_loss_fell(ratio, steps, level):
    assert judge_learning([2.0] * steps, ratio, 30.0, parse_config({})).level == level


def test_learning_ends_when_the_time_is_over(snapshot, folder):
    verdict = check_overfit(
        parse_config({**TINY, "learning_rate": 1e-8, "final_learning_rate": 0}), snapshot, folder, 0, RunContext()
    )
    assert verdict.level == "amber"


def test_two_images_are_labeled_ones(snapshot):
    assert all(len(sample.boxes) for sample in choose_two(snapshot.split("train")))


@pytest.mark.parametrize(
    ("labels", "chosen"),
    [
        ([[], [1, 1, 1, 1, 1], [1], [1, 1], [2, 1]], [4, 2]),  # few objects, both classes; then the fewest
        ([[1], [1, 1], [2, 2, 2], [2, 2]], [0, 3]),
        ([[1] * 9, [1] * 7, []], [1, 0]),  # crowded throughout
        ([[], [2]], [1]),
        ([[]], []),
    ],
)
def test_two_images_have_few_objects_of_many_classes(labels, chosen):
    samples = [
        Sample(n, Path(), "", "train", 64, 64, 0, np.ones((len(own), 4)), np.array(own, int), np.zeros(len(own), bool))
        for n, own in enumerate(labels)
    ]
    assert [one.image_id for one in choose_two(samples)] == chosen


def test_batch_that_does_not_fit_is_red_and_one_that_fits_is_proposed(snapshot, folder, monkeypatch, quick):
    """Each image more takes a gigabyte, and there are six: batches of more than three are never tried."""
    tried = []

    class Memory:
        num_bytes = 0

        def __init__(self, machine):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.num_bytes = (1 + (tried[-1] if tried else 0)) * GB

    real = batch_fit.make_batch

    def note(items, canvas):
        tried.append(len(items) if canvas == (64, 64) else 0.25)
        return real(items, canvas)

    monkeypatch.setattr(batch_fit, "PeakMemory", Memory)
    monkeypatch.setattr(batch_fit, "make_batch", note)
    monkeypatch.setattr(batch_fit, "room_bytes", lambda machine: 6 * GB)
    verdicts = check(snapshot, folder, batch_size=8, accumulate_batches=2)
    assert (verdicts["memory"].level, verdicts["memory"].fix) == ("red", {"batch_size": 3, "accumulate_batches": 6})
    assert max(tried) == 2
    assert "time" not in verdicts  # it would have to be measured with that batch


@pytest.mark.parametrize(
    ("fit", "level", "fix"),
    [
        (BatchFit(2 * GB, 10 * GB, 9, True), "green", {}),
        (BatchFit(8 * GB, 10 * GB, 3, True), "amber", {"batch_size": 3, "accumulate_batches": 2}),
        (BatchFit(20 * GB, 10 * GB, 2, False), "red", {"batch_size": 2, "accumulate_batches": 2}),
        (BatchFit(40 * GB, 10 * GB, 0, False), "red", {"image_size": 224}),
    ],
    ids=["fits", "little is left", "too large", "not one image"],
)
def test_what_the_memory_measured_means(fit, level, fix):
    verdict = judge_fit(fit, parse_config({"batch_size": 4, "image_size": 640}))
    assert (verdict.level, verdict.fix) == (level, fix)


def test_trial_predicts_as_many_images_as_the_run_would_and_leaves_its_detector_as_it_was(snapshot, folder):
    run = Run.start(parse_config({**TINY, "batch_size": 1, "max_detections": 20}), snapshot, folder, RunContext())
    sizes, detect = [], run.detector._detect
    run.detector._detect = lambda images, originals: sizes.append(len(images)) or detect(images, originals)
    batch_fit.BatchTrial(run, snapshot)._peak_of_predicting(3)
    assert sizes == [6]
    assert run.detector.batch_size == 2


def test_batch_that_takes_too_long_is_estimated_from_a_smaller_one(snapshot, folder, monkeypatch, quick):
    monkeypatch.setattr(batch_fit, "SLOW_BATCH_S", -1.0)
    monkeypatch.setattr(rehearsal, "SLOW_BATCH_S", -1.0)
    monkeypatch.setattr(rehearsal, "_seconds_of_a_batch", None)  # not to be called
    verdicts = check(snapshot, folder, batch_size=8)
    assert "would take about" in verdicts["memory"].text
    assert verdicts["time"].facts["batch_s"] > 0


@pytest.mark.parametrize(
    ("fit", "values", "fix"),
    [
        (BatchFit(8 * GB, 10 * GB, 4, True), {"batch_size": 4}, {"batch_size": 2, "accumulate_batches": 2}),
        (BatchFit(8 * GB, 10 * GB, 1, True), {"batch_size": 1}, {"image_size": 256}),
        (BatchFit(95 * GB, 100 * GB, 1, True), {"batch_size": 1}, {"image_size": 224}),
        (
            BatchFit(40 * GB, 10 * GB, 0, False, side_px=1280),
            {"resize": "as_is"},
            {"resize": "longest", "image_size": 480},
        ),
        (
            BatchFit(40 * GB, 10 * GB, 0, False),
            {"image_size": 64, "model": "fasterrcnn_resnet50_fpn"},
            {"model": "fasterrcnn_resnet18_fpn_v2"},
        ),
        (
            BatchFit(20 * GB, 10 * GB, 3, False),
            {"batch_size": 8, "processes": 2, "accumulate_batches": 2},
            {"batch_size": 3, "accumulate_batches": 6},
        ),
    ],
    ids=["half a batch", "one image", "too much for one", "not resized", "as small as can be", "processes"],
)
def test_batches_images_and_models_shrink_in_turn(fit, values, fix):
    config = parse_config(values)
    verdict = judge_fit(fit, config)
    assert verdict.fix == fix
    parse_config({**config.model_dump(), **fix})


def test_full_disk_is_red(snapshot, folder, monkeypatch, quick):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert check(snapshot, folder)["disk"].level == "red"


def test_disk_that_three_checkpoints_do_not_fit_on_is_red(folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * GB))
    config = parse_config({"model": "fasterrcnn_resnet50_fpn", "optimizer": "sgd"})
    assert rehearsal.judge_disk(Measured(1, 1, 1, 2 * GB, GB), config, folder).level == "red"
    assert rehearsal.judge_disk(Measured(1, 1, 1, GB, GB // 2), config, folder).level == "amber"


@pytest.mark.parametrize(
    ("free_gb", "optimizer", "fix"),
    [
        (1.6, "adamw", {"optimizer": "sgd", "learning_rate": 0.005}),
        (1.6, "sgd", {"model": "fasterrcnn_efficientnet_b0_fpn"}),
        (1.4, "adamw", {"model": "fasterrcnn_resnet18_fpn"}),
        (0.1, "adamw", {}),
    ],
    ids=["sgd is enough", "much smaller", "its family first", "nothing fits"],
)
def test_disk_that_is_too_small_is_enough_for_less(folder, monkeypatch, free_gb, optimizer, fix):
    """42 million weights: 170 MB a model, three times that with AdamW's numbers beside them."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=int(free_gb * GB)))
    config = parse_config({"model": "fasterrcnn_resnet50_fpn", "optimizer": optimizer})
    last = 510_000_000 if optimizer == "adamw" else 340_000_000
    verdict = rehearsal.judge_disk(Measured(1, 1, 1, last, 170_000_000), config, folder)
    assert verdict.level != "green"
    assert (verdict.fix, verdict.action) == (fix, "" if fix else "check_again")


def test_checkpoint_that_cannot_be_written_is_red(snapshot, folder, monkeypatch, quick):
    def fail(*arguments):
        raise CheckpointError("last.pt could not be written")

    monkeypatch.setattr(rehearsal, "rehearse", fail)
    monkeypatch.setattr(checks, "rehearse", fail)
    assert check(snapshot, folder)["disk"].text == "Last.pt could not be written."


def test_run_that_cannot_start_says_why_and_the_rest_is_checked(snapshot, folder, quick):
    verdicts = check(snapshot, folder, pretrained="file", weights_file="nowhere.pth")
    assert verdicts["start"].level == "red"
    assert "nowhere.pth" in verdicts["start"].text
    assert {"sizes", "anchors", "crowding"} <= verdicts.keys()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"epochs": 10, "evaluate_every": 1},
            "About 25 min: 1,000 batches of 1 s, 8 min of validation, 22 s of saving.",
        ),
        (
            {"epochs": 10, "evaluate_every": 5},
            "About 19 min: 1,000 batches of 1 s, 2 min of validation, 22 s of saving.",
        ),
        ({"epochs": 10, "progressive_sizes": [160, 320]}, "About 19 min: 1,000 batches of 1 s"),
    ],
    ids=["judged each epoch", "judged now and then", "small images first"],
)
def test_time_is_that_of_steps_validation_and_saving(values, text):
    config = parse_config({"epochs": 10, **values})
    verdict = judge_time(Measured(1.0, 0.5, 2.0, GB, GB), config, 100, 100)
    assert verdict.text.startswith(text)
    assert verdict.level == "green"


def test_run_of_days_is_amber():
    verdict = judge_time(Measured(30.0, 0.5, 2.0, GB, GB), parse_config({"epochs": 100}), 100, 0, is_shared=True)
    assert verdict.level == "amber"
    assert "days" in verdict.text and "Another training" in verdict.text
    assert "batch_s" not in verdict.facts  # nobody is to go on with it


HOUR_LONG = Measured(36.0, 36.0, 2.0, GB, GB)  # 100 batches take an hour


@pytest.mark.parametrize(
    ("values", "num_valid", "fix"),
    [
        ({"epochs": 9}, 50, {"evaluate_every": 0}),
        ({"epochs": 100}, 0, {"epochs": 11}),
        ({"epochs": 100, "evaluate_every": 0}, 100, {"epochs": 9}),
        (
            {"epochs": 30, "phases": [{"train": part, "epochs": 15, "learning_rate": 1e-3} for part in ("rpn", "all")]},
            0,
            {
                "epochs": 11,
                "phases": (
                    {"train": "rpn", "epochs": 6, "learning_rate": 1e-3},
                    {"train": "all", "epochs": 5, "learning_rate": 1e-3},
                ),
            },
        ),
    ],
    ids=["fewer validations", "fewer epochs", "both", "phases"],
)
def test_run_that_is_too_long_is_offered_what_fits_twelve_hours(values, num_valid, fix):
    config = parse_config(values)
    assert judge_time(HOUR_LONG, config, 100, num_valid).fix == fix
    mended = parse_config({**config.model_dump(), **fix})
    assert judge_time(HOUR_LONG, mended, 100, num_valid).level == "green"


def test_epoch_that_is_too_long_by_itself_is_made_of_smaller_images():
    config = parse_config({"epochs": 3, "image_size": 640, "progressive_sizes": [320, 640]})
    assert judge_time(HOUR_LONG, config, 2500, 0).fix == {"epochs": 1, "image_size": 416, "progressive_sizes": ()}


def test_gpus_of_several_processes_share_the_time():
    config = parse_config({"epochs": 2, "processes": 2, "accumulate_batches": 2})
    alone, shared = (judge_time(HOUR_LONG, config, 100, 10, num_gpus=count) for count in (1, 2))
    assert shared.facts["seconds"] == pytest.approx(alone.facts["seconds"] / 2, rel=0.01)
    assert "on 2 GPUs" in shared.text


def test_run_of_two_processes_is_checked_in_this_one(snapshot, folder, monkeypatch):
    monkeypatch.setattr(overfit, "MAX_STEPS", 6)
    verdicts = check(snapshot, folder, processes=2, accumulate_batches=2, device="cpu")
    assert "in 6 steps" in verdicts["overfit"].text
    assert "each of 2 processes" in verdicts["memory"].text
    assert "GPUs" not in verdicts["time"].text


def troubles():
    """(name, verdict) of everything that can be amiss, under options that leave as little open as can be."""
    at_the_end = {"image_size": 64, "batch_size": 1, "model": "fasterrcnn_mobilenet_v3_large_320_fpn"}
    phased = {"epochs": 1, "phases": [{"train": "all", "epochs": 1, "learning_rate": 10}]}
    bare = {"resize": "as_is", "optimizer": "sgd", "evaluate_every": 0, "epochs": 1}
    for name, values in {"default": {}, "at the end": at_the_end, "phased": phased, "bare": bare}.items():
        config = parse_config(values)
        for need, was_run in ((8, True), (9.5, True), (40, False)):
            fit = BatchFit(int(need * GB), 10 * GB, 0 if need == 40 else 1, was_run, side_px=64)
            yield f"memory {need} {name}", judge_fit(fit, config)
        for losses in ([2.0] * 3, [2.0] * 20, [2.0] * 60, [2.0] * 5 + [3.0] * 55, [2.0] * 5 + [0.5] * 145):
            yield f"overfit {len(losses)} {losses[-1]} {name}", judge_learning(losses, losses[-1] / 2, 30, config)
        yield f"time {name}", judge_time(HOUR_LONG, config, 2000, 100)
        for error in (CheckpointError("x"), DatasetError("x"), MachineError("x"), WeightsError("x"), OSError("x")):
            yield f"{type(error).__name__} {name}", checks._failed("start", config, error)


@pytest.mark.parametrize(("name", "verdict"), [*troubles()], ids=lambda value: value if isinstance(value, str) else "")
def test_whatever_is_amiss_has_a_fix_or_something_to_do(name, verdict):
    assert verdict.level != "green"
    assert bool(verdict.fix) != bool(verdict.action)


def test_checks_end_when_asked_to(snapshot, folder):
    context = RunContext(should_stop=lambda: True)
    assert len(list(preflight(parse_config(TINY), snapshot, folder, context))) == 3
    assert list(folder.iterdir()) == []
