"""Checkpoint files: the best three, whole or not there, and never a half-written one in place of a good one."""

import os
from contextlib import contextmanager

import pytest
import torch

from app.pipeline.config import parse_config
from app.pipeline.data.categories import CategoryMap
from app.pipeline.train import checkpoint
from app.pipeline.train.checkpoint import (
    CheckpointError,
    Scores,
    check_free_space,
    load_checkpoint,
    save_checkpoint,
)
from app.pipeline.train.keeper import CheckpointKeeper
from app.pipeline.train.write_behind import WriteBehind
from app.pipeline.types import RunContext


@contextmanager
def keeper_in(folder, events):
    """A keeper whose files are in place at the end of the block."""
    config = parse_config({"max_detections": 100})
    with WriteBehind() as writing:
        yield CheckpointKeeper(folder, config, CategoryMap((1,), ("a",)), RunContext(emit=events.append), writing)
        writing.finish()


def scores(map50: float, f1: float) -> Scores:
    return Scores(map=map50 / 2, map50=map50, map75=map50 / 3, f1=f1)


def test_best_three_are_kept_and_removed_ones_are_told(tmp_path):
    events, model = [], torch.nn.Linear(1, 1)
    with keeper_in(tmp_path, events) as keeper:
        for epoch, value in enumerate([0.2, 0.5, 0.1, 0.4, 0.05], start=1):
            keeper.offer(model, scores(value, value), epoch, epoch * 10)
    kept = {path.name for path in tmp_path.iterdir()}
    assert [event.epoch for event in events] == [1, 2, 3, 4]
    assert events[3].removed == (events[2].file_name,)
    assert kept == {events[index].file_name for index in (0, 1, 3)}
    assert keeper.best["epoch"] == 2


def test_what_could_not_be_taken_down_is_not_among_the_best(tmp_path, monkeypatch):
    """Memory may run out in copying the weights: a state that names a file which never came cannot be gone on from."""
    events, model = [], torch.nn.Linear(1, 1)
    with keeper_in(tmp_path, events) as keeper:
        keeper.offer(model, scores(0.2, 0.2), 1, 1)
        with monkeypatch.context() as patch:
            patch.setattr(CheckpointKeeper, "contents", lambda *_: (_ for _ in ()).throw(MemoryError()))
            with pytest.raises(MemoryError):
                keeper.offer(model, scores(0.5, 0.5), 2, 2)
        assert [one.epoch for one in keeper.kept] == [1]
        assert keeper.best["epoch"] == 1


def test_name_holds_map_and_f1_in_the_right_order(tmp_path):
    events = []
    with keeper_in(tmp_path, events) as keeper:
        keeper.offer(torch.nn.Linear(1, 1), scores(map50=0.75, f1=0.25), 7, 70)
    assert events[0].file_name == "epoch_0007_map50_0.750_f1_0.250.pt"
    assert (events[0].map50, events[0].f1, events[0].score) == (0.75, 0.25, 0.5)


def test_selection_is_half_map50_and_half_f1(tmp_path):
    with keeper_in(tmp_path, []) as keeper:
        keeper.offer(torch.nn.Linear(1, 1), scores(0.9, 0.1), 1, 1)
        keeper.offer(torch.nn.Linear(1, 1), scores(0.6, 0.6), 2, 2)
    assert keeper.best["epoch"] == 2


def test_equal_scores_keep_the_earlier_epoch(tmp_path):
    with keeper_in(tmp_path, []) as keeper:
        for epoch in (1, 2, 3, 4):
            keeper.offer(torch.nn.Linear(1, 1), scores(0.5, 0.5), epoch, epoch)
    assert keeper.best["epoch"] == 1
    assert sorted(path.name[:10] for path in tmp_path.iterdir()) == ["epoch_0001", "epoch_0002", "epoch_0003"]


def test_file_is_synced_before_it_replaces_and_the_folder_after(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, checkpoint.Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("sync") or fsync(descriptor))
    monkeypatch.setattr(checkpoint.Path, "replace", lambda self, to: calls.append("replace") or replace(self, to))
    save_checkpoint(tmp_path / "a.pt", {"epoch": 1})
    assert calls == ["sync", "replace", "sync"]


def test_failure_while_writing_leaves_the_old_file_and_says_why(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"epoch": 1})

    def full(contents, file):
        file.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left on device.*Make room"):
        save_checkpoint(path, {"epoch": 2})
    monkeypatch.undo()
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pt"]


def test_run_is_refused_when_its_checkpoints_would_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(CheckpointError, match="make room first"):
        check_free_space(tmp_path, torch.nn.Linear(10, 10))


@pytest.mark.parametrize("contents", [b"", b"no checkpoint", None], ids=["empty", "text", "missing"])
def test_file_that_is_no_checkpoint_is_refused(tmp_path, contents):
    path = tmp_path / "a.pt"
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(CheckpointError, match="no checkpoint of a run"):
        load_checkpoint(path)


def test_state_dict_alone_is_no_checkpoint(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="config_json"):
        load_checkpoint(tmp_path / "a.pt")
