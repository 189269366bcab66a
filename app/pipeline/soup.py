"""Soups: the weights of several checkpoints of one run averaged into one model, as fast as any of them.

Wortsman et al., "Model soups" (ICML 2022): *uniform* averages all; *greedy* goes from the best checkpoint to the worst
and keeps each one that does not lower the score on a validation split. Floating-point tensors are averaged, the running
statistics of batch norm among them (they are close within a run, and are not estimated anew on images); counters are
those of the first.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.pipeline.train.checkpoint import (
    Checkpoint,
    CheckpointError,
    categories_to_json,
    load_checkpoint,
    save_checkpoint,
)


@dataclass(frozen=True)
class Soup:
    """A soup's file, its SHA-256, and the names of the files whose weights are in it; epoch and step of the first."""

    path: Path
    sha256: str
    members: tuple[str, ...]
    epoch: int
    step: int


def mix_all(paths: Sequence[Path], target: Path) -> Soup:
    """The uniform soup of checkpoint files, written to ``target``. Raises CheckpointError when they do not fit."""
    pot = _Pot(load_checkpoint(paths[0]))
    for path in paths[1:]:
        pot.add(load_checkpoint(path))
    return pot.save(target)


def mix_greedily(paths: Sequence[Path], target: Path, score: Callable[[Path, tuple[str, ...]], float]) -> Soup:
    """The greedy soup, written to ``target``; ``paths`` from the best to the worst.

    ``score`` judges a checkpoint file, higher is better, and is told the names of the files that are averaged in it:
    the first one is the best checkpoint itself. Raises CheckpointError when the files do not fit, and whatever
    ``score`` raises.
    """
    pot = _Pot(load_checkpoint(paths[0]))
    best = score(paths[0], pot.members)
    trial = target.with_name(f".{target.stem}.trial.pt")
    try:
        for path in paths[1:]:
            fuller = pot.copy()
            fuller.add(load_checkpoint(path))
            fuller.save(trial)
            reached = score(trial, fuller.members)
            if reached >= best:
                pot, best = fuller, reached
    finally:
        trial.unlink(missing_ok=True)
    return pot.save(target)


class _Pot:
    """What is in the soup so far: sums in double precision, so that the order of adding does not show."""

    def __init__(self, first: Checkpoint) -> None:
        self._first = first
        self._members = [first.path.name]
        self._sums = {name: tensor.double() for name, tensor in first.tensors.items() if tensor.is_floating_point()}

    @property
    def members(self) -> tuple[str, ...]:
        """The names of the files that are in it."""
        return tuple(self._members)

    def copy(self) -> "_Pot":
        """A second pot of the same soup."""
        pot = _Pot(self._first)
        pot._members = list(self._members)
        pot._sums = {name: total.clone() for name, total in self._sums.items()}
        return pot

    def add(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint's weights; raises CheckpointError for another architecture or other classes."""
        tensors = self._first.tensors
        shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
        if shapes != {name: tensor.shape for name, tensor in tensors.items()}:
            raise CheckpointError(f"{checkpoint.path.name} has other layers than {self._first.path.name}")
        if checkpoint.categories != self._first.categories:
            raise CheckpointError(f"{checkpoint.path.name} has other classes than {self._first.path.name}")
        for name, total in self._sums.items():
            total += checkpoint.tensors[name].double()
        self._members.append(checkpoint.path.name)

    def save(self, target: Path) -> Soup:
        """Write the average as a checkpoint with the first's options, classes, epoch and step, and no figures."""
        count = len(self._members)
        averaged = {
            name: (self._sums[name] / count).to(tensor.dtype) if name in self._sums else tensor
            for name, tensor in self._first.tensors.items()
        }
        contents = {
            "model": averaged,
            "config_json": self._first.config.model_dump_json(),
            "categories_json": categories_to_json(self._first.categories),
            "metrics_json": "{}",
            "members_json": json.dumps(self._members),
            "epoch": self._first.epoch,
            "step": self._first.step,
        }
        sha256 = save_checkpoint(target, contents)
        return Soup(target, sha256, self.members, self._first.epoch, self._first.step)
