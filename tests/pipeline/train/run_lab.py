"""Runs of the tiny detector that die, and what is left of them."""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from app.pipeline.machine import Machine
from app.pipeline.train import run
from app.pipeline.types import CheckpointSaved, Log, Metrics, RunBegun

T = TypeVar("T")
FIRST_SCALE = 2.0**14


def compute_in_float16(monkeypatch):
    """With loss scaling, on the CPU; the scale grows every second step."""
    scaler = partial(torch.amp.GradScaler, init_scale=FIRST_SCALE, growth_interval=2)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    monkeypatch.setattr(run, "choose_machine", lambda *_: Machine(torch.device("cpu"), torch.float16))


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the app catches it."""


def until_done(attempt: Callable[[int], T]) -> tuple[T, int]:
    """Call ``attempt`` with the number of deaths so far until it comes to its end; what it gives, and all deaths."""
    for num_kills in range(60):
        try:
            return attempt(num_kills), num_kills
        except Killed:
            continue
    raise AssertionError("died 60 times and came to no end")


class Store:
    """What a store would hold after the events of all attempts; dies at event number ``dies_at``."""

    def __init__(self):
        self.rows, self.files, self.logs, self.dies_at, self.num_events, self.begun = [], {}, [], None, 0, []

    def emit(self, event):
        self.num_events += 1
        if self.num_events == self.dies_at:
            raise Killed
        if isinstance(event, RunBegun):
            self.begun.append(event)
            self.rows = [
                row for row in self.rows if row[0] <= event.step and (row[1] != "valid" or row[0] <= event.judged_step)
            ]
            self.files = {item.file_name: item.sha256 for item in event.checkpoints}
        elif isinstance(event, Metrics) and event.split != "system":
            self.rows.append((event.step, event.split, event.epoch, event.values))
        elif isinstance(event, CheckpointSaved):
            self.files[event.file_name] = event.sha256
            for name in event.removed:
                self.files.pop(name, None)
        elif isinstance(event, Log):
            self.logs.append(event.text)

    def best_files(self):
        return {name for name in self.files if name != "last.pt"}


def final_state(folder):
    """Everything of a run that must not depend on how often it was killed, as one digest."""
    document = torch.load(folder / "last.pt", weights_only=True)
    progress = json.loads(document.pop("progress_json"))
    for name in ("judge", "elapsed_s"):
        del progress[name]  # seconds
    digest = hashlib.sha256(json.dumps(progress, sort_keys=True).encode())
    _feed(digest, document)
    for path in sorted(folder.glob("epoch_*.pt")):
        digest.update(path.name.encode())
        _feed(digest, torch.load(path, weights_only=True))
    return digest.hexdigest()


def digest_of(value):
    """Of tensors and plain values, in dicts and lists."""
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest, value):
    if isinstance(value, torch.Tensor):
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            digest.update(str(key).encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(digest, item)
    else:
        digest.update(repr(value).encode())
