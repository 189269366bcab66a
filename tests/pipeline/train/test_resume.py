"""A run that is killed or stopped anywhere goes on from its folder to the very same weights.

Most deaths here are an exception that nothing catches, so that a test takes seconds; real ones follow at the end, in
tests/jobs and in benchmarks/chaos.py.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from app.pipeline.config import parse_config
from app.pipeline.models import build
from app.pipeline.predict import Detector
from app.pipeline.train import checkpoint, learner, resume, run
from app.pipeline.train.checkpoint import CheckpointError, load_checkpoint
from app.pipeline.train.loop import train
from app.pipeline.train.validation import Judge
from app.pipeline.train.write_behind import WriteBehind
from app.pipeline.types import CheckpointDue, RunContext
from tests.pipeline.train.run_lab import FIRST_SCALE, Killed, Store, compute_in_float16, final_state, until_done
from tests.pipeline.train.test_staged import STAGED
from tests.pipeline.train.tiny_dataset import TINY, tiny_snapshot

BASE = {**TINY, "epochs": 3, "augmentation": [{"name": "HorizontalFlip"}, {"name": "MixUp", "probability": 0.5}]}
VARIANTS = {
    "adamw": {},
    "sgd, averaged": {"optimizer": "sgd", "ema_decay": 0.9},
    "accumulated": {"batch_size": 1, "accumulate_batches": 3},
    "phases": {"phases": STAGED, "patience": 2},
    "sizes, bfloat16": {"progressive_sizes": [96, 64], "precision": "bfloat16"},
    "float16, scaled": {"precision": "float16", "device": "auto", "ema_decay": 0.9},
    "sampled, group": {"sampling": "repeat_factor", "schedule": "onecycle", "evaluate_every": 2, "box_loss": "giou"},
}


def save_state(run_dir, contents, is_in_place=False):
    digests = []
    with WriteBehind() as writing:
        resume.save_state(run_dir, contents, writing, digests.append, is_in_place=is_in_place)
        writing.finish()
    return digests[0]


pytestmark = pytest.mark.usefixtures("tiny_model", "saves_after_every_step")


@pytest.fixture
def snapshot(tmp_path):
    return tiny_snapshot(tmp_path)


def undisturbed(config, snapshot, folder):
    store = Store()
    assert train(config, snapshot, folder, RunContext(store.emit)).state == "done"
    return final_state(folder), store


def files_of(folder):
    return {path.name for path in folder.glob("*.pt")} - {"previous.pt"}


@pytest.mark.parametrize("name", VARIANTS)
def test_killed_again_and_again_it_ends_with_the_same_weights(snapshot, tmp_path, monkeypatch, name):
    """Each attempt dies three events further than the last saved state: in steps, validations and their saving."""
    if "float16" in name.split(", "):
        compute_in_float16(monkeypatch)
    config = parse_config({**BASE, **VARIANTS[name]})
    expected, whole = undisturbed(config, snapshot, tmp_path / "whole")
    store, folder = Store(), tmp_path / "killed"

    def attempt(num_kills):
        store.num_events, store.dies_at = 0, 12 + num_kills % 5
        train(config, snapshot, folder, RunContext(store.emit))

    assert until_done(attempt)[1] >= 4
    assert final_state(folder) == expected
    assert store.rows == whole.rows
    assert set(store.files) == files_of(folder) == set(whole.files)
    assert not list(folder.glob(".*"))
    scaler = torch.load(folder / "last.pt", weights_only=True)["scaler"]
    assert scaler.get("scale") != FIRST_SCALE  # it has a past that going on must not lose


def test_killed_between_the_batches_of_a_step_it_ends_in_the_same_state(tmp_path, monkeypatch):
    """All at once: accumulation, loss scaling, averaged weights, phases, sizes, rare images again, an early end."""
    compute_in_float16(monkeypatch)
    snapshot = tiny_snapshot(tmp_path, num_train=7)  # steps of 3, 3 and 1 batches
    phases = [*STAGED[:2], {**STAGED[2], "epochs": 4}]
    hard = {"batch_size": 1, "accumulate_batches": 3, "epochs": 6, "phases": phases, "patience": 1, "ema_decay": 0.9}
    hard |= {"progressive_sizes": [96, 64], "optimizer": "sgd", "sampling": "repeat_factor"}
    config = parse_config({**BASE, **VARIANTS["float16, scaled"], **hard})
    expected, whole = undisturbed(config, snapshot, tmp_path / "whole")
    assert any("Ended early" in text for text in whole.logs)
    store, folder = Store(), tmp_path / "killed"
    compute, calls = learner.compute_losses, []

    def attempt(num_kills):
        def dying(*args):
            calls.append(1)
            if len(calls) == 5 + num_kills % 3:
                raise Killed
            return compute(*args)

        calls.clear()
        monkeypatch.setattr(learner, "compute_losses", dying)
        train(config, snapshot, folder, RunContext(store.emit))

    assert until_done(attempt)[1] >= 5
    assert final_state(folder) == expected
    assert store.rows == whole.rows
    assert set(store.files) == files_of(folder) == set(whole.files)


def test_same_seed_twice_and_saving_in_between_change_nothing(snapshot, tmp_path, monkeypatch):
    config = parse_config(BASE)
    first, _ = undisturbed(config, snapshot, tmp_path / "first")
    monkeypatch.setattr(run, "SAVE_EVERY_S", 1e9)
    assert undisturbed(config, snapshot, tmp_path / "second")[0] == first


@pytest.mark.parametrize("call", range(1, 9))
def test_killed_inside_a_save_there_is_always_a_whole_state(snapshot, tmp_path, monkeypatch, call):
    """Deaths before each of the calls that bring a state to the disk, in the save of step 3."""
    config, folder = parse_config({**TINY, "epochs": 3, "evaluate_every": 3}), tmp_path / "run"
    calls = []

    def dying(name, function):
        def wrapper(*args, **kwargs):
            if name == "save" and due:  # no earlier one is under way any more
                saves.append(due.pop())
                calls.clear()
            calls.append(name)
            if len(saves) == 4 and len(calls) == call:
                raise Killed
            return function(*args, **kwargs)

        return wrapper

    saves, due = [], []

    def emit(event):
        if isinstance(event, CheckpointDue):
            due.append(event)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", dying("save", torch.save))
        patch.setattr(os, "fsync", dying("fsync", os.fsync))
        patch.setattr(Path, "replace", dying("replace", Path.replace))
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)  # a dead process does not tidy up
        with pytest.raises(Killed):
            train(config, snapshot, folder, RunContext(emit))
    assert call <= 8
    state, digest = resume.load_state(folder)
    assert state["step"] in (2, 3)
    assert hashlib.sha256((folder / "last.pt").read_bytes()).hexdigest() == digest
    assert load_checkpoint(folder / "last.pt").step == state["step"]


def test_calls_of_a_save_are_those_that_were_killed_above(tmp_path, monkeypatch):
    """Content first, then its name; the digest is on the disk before the file has its name."""
    save_state(tmp_path, {"step": 1})
    calls = []
    save, fsync, replace = torch.save, os.fsync, Path.replace
    monkeypatch.setattr(torch, "save", lambda *args: calls.append("save") or save(*args))
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("sync") or fsync(descriptor))
    monkeypatch.setattr(Path, "replace", lambda self, to: calls.append(f"-> {Path(to).name}") or replace(self, to))
    save_state(tmp_path, {"step": 2})
    assert calls == ["save", "sync", "sync", "-> last.sha256", "sync", "-> previous.pt", "-> last.pt", "sync"]


def stopped_after(config, snapshot, folder, num_steps):
    store = Store()

    def should_stop():
        return sum(row[1] == "train" for row in store.rows) >= num_steps

    result = train(config, snapshot, folder, RunContext(store.emit, should_stop))
    assert result.state == "stopped"
    return store


def spoil(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_damaged_last_state_falls_back_to_the_one_before(snapshot, tmp_path):
    config, folder = parse_config(BASE), tmp_path / "run"
    expected, _ = undisturbed(config, snapshot, tmp_path / "whole")
    stopped_after(config, snapshot, folder, 3)
    spoil(folder / "last.pt")
    store = Store()
    train(config, snapshot, folder, RunContext(store.emit))
    assert store.begun[0].step in (2, 3)
    assert final_state(folder) == expected


def test_nothing_whole_to_go_on_from_is_said(snapshot, tmp_path):
    config, folder = parse_config(BASE), tmp_path / "run"
    stopped_after(config, snapshot, folder, 3)
    spoil(folder / "last.pt")
    spoil(folder / "previous.pt")
    with pytest.raises(CheckpointError, match="last.pt and previous.pt .* are damaged"):
        train(config, snapshot, folder)


def test_checkpoint_of_an_earlier_version_is_refused_in_words(snapshot, tmp_path):
    config, folder = parse_config(BASE), tmp_path / "run"
    stopped_after(config, snapshot, folder, 2)
    (folder / "last.sha256").unlink()
    with pytest.raises(CheckpointError, match="earlier version of Anchorage, .* weights_file 'run:ID'"):
        train(config, snapshot, folder)


@pytest.mark.parametrize("changes", [{"learning_rate": 0.5}, {"epochs": 9}])
def test_folder_of_a_run_with_other_options_is_refused(snapshot, tmp_path, changes):
    folder = tmp_path / "run"
    stopped_after(parse_config(BASE), snapshot, folder, 2)
    with pytest.raises(CheckpointError, match="other options"):
        train(parse_config({**BASE, **changes}), snapshot, folder)


def test_folder_of_a_run_on_another_dataset_is_refused(snapshot, tmp_path):
    folder = tmp_path / "run"
    stopped_after(parse_config(BASE), snapshot, folder, 2)
    with pytest.raises(CheckpointError, match="another dataset"):
        train(parse_config(BASE), tiny_snapshot(tmp_path, num_train=5), folder)


def test_other_number_of_threads_is_said(snapshot, tmp_path):
    folder = tmp_path / "run"
    stopped_after(parse_config(BASE), snapshot, folder, 2)
    before, store = torch.get_num_threads(), Store()
    torch.set_num_threads(before + 1)
    try:
        train(parse_config(BASE), snapshot, folder, RunContext(store.emit))
    finally:
        torch.set_num_threads(before)
    assert any(f"{before + 1} threads" in text and "not be the same to the last bit" in text for text in store.logs)


def test_stop_between_accumulated_batches_is_as_if_the_step_had_not_begun(snapshot, tmp_path):
    """Dice and the statistics of batch norm go on from the step before; the same batches come again."""
    config = parse_config({**BASE, "batch_size": 1, "accumulate_batches": 2})
    expected, whole = undisturbed(config, snapshot, tmp_path / "whole")
    store, folder = Store(), tmp_path / "run"
    for patience in (0, 2, 2):  # questions in vain: the first stop comes in the first step, the others in a later one
        asked = []

        def should_stop(asked=asked, patience=patience):
            asked.append(1)
            return len(asked) > patience

        assert train(config, snapshot, folder, RunContext(store.emit, should_stop)).state == "stopped"
    assert train(config, snapshot, folder, RunContext(store.emit)).state == "done"
    assert [event.step for event in store.begun] == [0, 0, 1, 2]
    assert final_state(folder) == expected
    assert store.rows == whole.rows


@pytest.mark.parametrize("evaluate_every", [1, 3])
def test_stopped_validation_is_made_up_for(snapshot, tmp_path, monkeypatch, evaluate_every):
    config = parse_config({**BASE, "evaluate_every": evaluate_every})
    expected, whole = undisturbed(config, snapshot, tmp_path / "whole")
    judging, judge = [], Judge.judge
    monkeypatch.setattr(Judge, "judge", lambda *given: judging.append(1) or judge(*given))
    store, folder = Store(), tmp_path / "run"
    first = train(config, snapshot, folder, RunContext(store.emit, lambda: len(judging) == 1))
    assert (first.state, first.best) == ("stopped", {})
    assert train(config, snapshot, folder, RunContext(store.emit)).state == "done"
    assert final_state(folder) == expected
    assert store.rows == whole.rows


def test_dice_thrown_in_a_validation_do_not_change_training(snapshot, tmp_path, monkeypatch):
    config = parse_config(BASE)
    expected, _ = undisturbed(config, snapshot, tmp_path / "whole")
    detect = Detector._detect
    monkeypatch.setattr(Detector, "_detect", lambda *args: (torch.rand(1), detect(*args))[1])
    assert undisturbed(config, snapshot, tmp_path / "other")[0] == expected


def test_finished_run_is_not_trained_again(snapshot, tmp_path):
    config, folder = parse_config(BASE), tmp_path / "run"
    expected, _ = undisturbed(config, snapshot, folder)
    store = Store()
    assert train(config, snapshot, folder, RunContext(store.emit)).state == "done"
    assert (final_state(folder), store.rows) == (expected, [])


def test_time_goes_on_where_it_was(snapshot, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    config = parse_config(BASE)
    stopped_after(config, snapshot, folder, 2)
    document, _ = resume.load_state(folder)
    progress = json.loads(document["progress_json"])
    document["progress_json"] = json.dumps({**progress, "elapsed_s": 1000.0})
    save_state(folder, document)
    store = stopped_after(config, snapshot, folder, 1)
    assert store.begun[0].elapsed_s == 1000.0
    assert json.loads(resume.load_state(folder)[0]["progress_json"])["elapsed_s"] >= 1000


def test_weights_that_the_run_began_with_are_not_needed_to_go_on(snapshot, tmp_path):
    start, folder = tmp_path / "start.pth", tmp_path / "run"
    values = {**BASE, "pretrained": "file", "weights_file": str(start), "norm": "batch", "trainable_layers": 2}
    torch.save(build.build_model(parse_config({**TINY, "max_detections": 100}), 2).state_dict(), start)
    expected, _ = undisturbed(parse_config(values), snapshot, tmp_path / "whole")
    stopped_after(parse_config(values), snapshot, folder, 3)
    start.unlink()
    train(parse_config(values), snapshot, folder)
    assert final_state(folder) == expected


def test_saving_is_rarer_where_it_is_dear(snapshot, tmp_path, monkeypatch):
    started = run.Run.start(parse_config(BASE), snapshot, tmp_path / "run", RunContext())
    clock = iter([100.0, 104.0])
    monkeypatch.setattr(run, "MAX_SAVE_SHARE", 0.02)
    monkeypatch.setattr(run.time, "monotonic", lambda: next(clock, 104.0))
    started.save()
    assert started.save_every_s == pytest.approx(200)


def test_state_keeps_two_files_and_only_whole_ones(tmp_path):
    for step in range(4):
        save_state(tmp_path, {"step": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "last.sha256", "previous.pt"]
    assert resume.load_state(tmp_path)[0]["step"] == 3


def test_state_of_the_same_step_gives_way_and_the_one_before_stays(tmp_path):
    for step, is_in_place in [(1, False), (2, False), *[(2, True)] * 5]:
        save_state(tmp_path, {"step": step}, is_in_place)
    spoil(tmp_path / "last.pt")
    assert resume.load_state(tmp_path)[0]["step"] == 1


@pytest.mark.parametrize(("before", "expected"), [(3, 2), (2, 1), (1, 2), (9, 2)])
def test_going_back_takes_the_newest_state_that_is_older(tmp_path, before, expected):
    for step in (1, 2):
        save_state(tmp_path, {"step": step})
    resume.go_back_before(tmp_path, before)
    assert resume.load_state(tmp_path)[0]["step"] == expected


def test_going_back_passes_a_damaged_state_by(tmp_path):
    for step in (1, 2):
        save_state(tmp_path, {"step": step})
    spoil(tmp_path / "previous.pt")
    resume.go_back_before(tmp_path, 2)
    assert resume.load_state(tmp_path)[0]["step"] == 2


def test_full_disk_leaves_both_states(tmp_path, monkeypatch):
    for step in (1, 2):
        save_state(tmp_path, {"step": step})
    monkeypatch.setattr(checkpoint.torch, "save", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(CheckpointError, match="Make room"):
        save_state(tmp_path, {"step": 3})
    assert resume.load_state(tmp_path)[0]["step"] == 2
    assert (tmp_path / "previous.pt").is_file()


SCRIPT = """
import sys
from pathlib import Path
from app.pipeline.config import parse_config
from app.pipeline.data.snapshot import load_snapshot
from app.pipeline.models import build
from app.pipeline.train import run
from app.pipeline.train.loop import train
from app.pipeline.types import Metrics, RunContext
from tests.pipeline.train.test_resume import BASE
from tests.pipeline.train.tiny_dataset import construct_tiny_with_all_that_changes
build.construct = construct_tiny_with_all_that_changes
run.SAVE_EVERY_S, run.MAX_SAVE_SHARE = 0.0, float("inf")
told = lambda event: isinstance(event, Metrics) and print(event.step, flush=True)
train(parse_config(BASE), load_snapshot(Path(sys.argv[1])), Path(sys.argv[2]), RunContext(told))
"""


@pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")
def test_process_killed_in_the_middle_goes_on_to_the_same_weights(snapshot, tmp_path):
    expected, _ = undisturbed(parse_config(BASE), snapshot, tmp_path / "whole")
    folder = tmp_path / "run"
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "dataset.json"), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    while process.stdout.readline().strip() not in ("3", ""):
        pass
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    store = Store()
    train(parse_config(BASE), snapshot, folder, RunContext(store.emit))
    assert store.begun[0].step >= 2
    assert final_state(folder) == expected
