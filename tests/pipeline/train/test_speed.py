"""What is said about the speed of a run, and when it ends one; all seconds are given."""

from app.pipeline.config import parse_config
from app.pipeline.models import build
from app.pipeline.train import speed
from app.pipeline.train.loop import train
from app.pipeline.train.resume import load_state
from app.pipeline.train.run import Run
from app.pipeline.train.speed import SpeedWatch
from app.pipeline.types import Log, RunContext
from tests.pipeline.train.tiny_dataset import TINY, construct_tiny, tiny_snapshot


def fed(watch, rates, steps=1):
    """Hints of reports of a second each."""
    return [hint for hint in (watch.note(steps, rate, 1.0) for rate in rates) if hint]


def test_slow_run_is_told_to_end_after_its_first_steps_once_they_are_warm():
    watch = SpeedWatch(8)
    fed(watch, [1] * 10 + [7] * 39)
    assert watch.too_slow == ""
    fed(watch, [7])
    assert "7 images a second in its first 50 steps, and min_images_per_s is 8" in watch.too_slow


def test_slow_start_does_not_count_and_later_nothing_ends_the_run():
    watch = SpeedWatch(8)
    fed(watch, [1] * 10 + [9] * 40 + [1] * 500)
    assert watch.too_slow == ""


def test_by_default_any_speed_is_taken():
    watch = SpeedWatch(0)
    fed(watch, [0.01] * 100)
    assert watch.too_slow == ""


def test_slump_of_a_minute_is_told_once():
    watch = SpeedWatch(0)
    assert fed(watch, [10] * 100 + [4] * 59) == []
    (hint,) = fed(watch, [4])
    assert "4 images a second, usually 10" in hint
    assert fed(watch, [10] * 100 + [1] * 100) == []


def test_hint_can_be_switched_off(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "construct", construct_tiny)
    snapshot, found = tiny_snapshot(tmp_path), []
    for is_hinting in (True, False):
        config = parse_config({**TINY, "hint_when_slow": is_hinting})
        run = Run.start(config, snapshot, tmp_path / str(is_hinting), RunContext())
        found.append(len(fed(run.speed, [10] * 100 + [4] * 100)))
    assert found == [1, 0]


def test_shorter_slumps_and_small_ones_are_not_told():
    watch = SpeedWatch(0)
    assert fed(watch, ([10] * 30 + [4] * 59) * 5 + [6] * 200) == []


def test_another_stage_has_a_speed_of_its_own():
    watch = SpeedWatch(0)
    watch.begin_stage((0, 320))
    fed(watch, [10] * 100)
    watch.begin_stage((0, 640))
    assert fed(watch, [3] * 200) == []
    watch.begin_stage((0, 640))
    assert len(fed(watch, [1] * 61)) == 1


def test_run_that_is_too_slow_is_done_with_its_last_state_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "construct", construct_tiny)
    monkeypatch.setattr(speed, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(speed, "TRIAL_STEPS", 3)
    monkeypatch.setattr("app.pipeline.train.pace.REPORT_EVERY_S", 0.0)
    logs = []
    note = lambda event: logs.append(event.text) if isinstance(event, Log) else None  # noqa: E731
    config = parse_config({**TINY, "epochs": 50, "min_images_per_s": 1e6})
    result = train(config, tiny_snapshot(tmp_path), tmp_path / "run", RunContext(note))
    assert (result.state, result.epochs) == ("done", 1)
    assert load_state(tmp_path / "run")[0]["step"] == 3
    assert "min_images_per_s" in logs[-1]


def test_run_that_did_all_its_epochs_did_not_end_because_it_is_slow(tmp_path, monkeypatch):
    """Its last report may be the one that knows."""
    monkeypatch.setattr(build, "construct", construct_tiny)
    monkeypatch.setattr(speed, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(speed, "TRIAL_STEPS", 2)
    logs = []
    note = lambda event: logs.append(event.text) if isinstance(event, Log) else None  # noqa: E731
    config = parse_config({**TINY, "epochs": 2, "min_images_per_s": 1e6})
    due = iter([True])
    monkeypatch.setattr("app.pipeline.train.pace.Pace.is_due", lambda pace: next(due, False))
    assert train(config, tiny_snapshot(tmp_path), tmp_path / "run", RunContext(note)).epochs == 2
    assert not [text for text in logs if "slow" in text]
