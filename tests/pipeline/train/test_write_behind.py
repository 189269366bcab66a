"""Files are placed beside the training: in order, as they were when written, and never behind one that failed."""

import errno
import hashlib
import os
import threading

import pytest
import torch

from app.pipeline.train.checkpoint import CheckpointError, DiskFull
from app.pipeline.train.write_behind import WriteBehind


class Gate:
    """Holds every call of os.fsync until it is opened."""

    def __init__(self, monkeypatch):
        self.opened = threading.Event()
        fsync = os.fsync
        monkeypatch.setattr(os, "fsync", lambda descriptor: self.opened.wait(10) and fsync(descriptor))


def full_disk(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_caller_goes_on_and_the_file_is_what_it_was_when_written(tmp_path, monkeypatch):
    gate, path, told = Gate(monkeypatch), tmp_path / "a.pt", []
    contents = {"weight": torch.zeros(3)}
    with WriteBehind() as writing:
        writing.write(path, contents, told.append)
        contents["weight"].fill_(1)
        writing.collect()
        assert not path.exists()
        assert told == []
        gate.opened.set()
        writing.finish()
        assert told == [hashlib.sha256(path.read_bytes()).hexdigest()]
    assert torch.load(path)["weight"].tolist() == [0, 0, 0]


def test_files_are_placed_in_order(tmp_path):
    told = []
    with WriteBehind() as writing:
        for name in "abcabc":
            tell = lambda _, name=name: told.append((name, (tmp_path / name).is_file()))  # noqa: E731
            writing.write(tmp_path / name, {}, tell, late=lambda: {"before": list(told)})
        writing.finish()
    assert told == [(name, True) for name in "abcabc"]
    assert torch.load(tmp_path / "c")["before"] == told[:5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_two_files_of_one_name_never_wait_at_once(tmp_path, monkeypatch):
    gate, path = Gate(monkeypatch), tmp_path / "a.pt"
    with WriteBehind() as writing:
        writing.write(path, {"step": 1}, lambda _: gate.opened.clear())
        threading.Timer(0.1, gate.opened.set).start()
        writing.write(path, {"step": 2}, lambda _: None)
        assert torch.load(path) == {"step": 1}
        gate.opened.set()
    assert torch.load(path) == {"step": 2}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pt"]


def test_after_a_failure_nothing_is_placed_and_the_error_is_raised_once(tmp_path, monkeypatch):
    told = []
    with WriteBehind() as writing:
        monkeypatch.setattr(os, "fsync", full_disk)
        for name in "ab":
            writing.write(tmp_path / name, {}, told.append)
        with pytest.raises(DiskFull, match="a could not be written.*Make room"):
            writing.finish()
        writing.finish()
    assert told == []
    assert not list(tmp_path.iterdir())


def test_layout_and_kind_of_values_stay(tmp_path):
    weight = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    contents = {"state": {0: {"step": torch.tensor(3.0), "average": weight}}, "groups": [{"betas": (0.9, 0.99)}]}
    with WriteBehind() as writing:
        writing.write(tmp_path / "a", contents, lambda _: None)
        writing.finish()
    found = torch.load(tmp_path / "a", weights_only=True)
    assert found["groups"] == contents["groups"]
    assert torch.equal(found["state"][0]["average"], weight)
    assert found["state"][0]["average"].stride() == weight.stride()


def test_error_of_what_is_told_is_raised_too(tmp_path):
    def lost(digest):
        raise CheckpointError("this attempt is over")

    with WriteBehind() as writing:
        writing.write(tmp_path / "a", {}, lost)
        with pytest.raises(CheckpointError, match="is over"):
            writing.finish()
