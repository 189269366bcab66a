"""Checkpoint files: plain tensors and JSON text, complete on disk or not there at all.

A file is written under a temporary name, synced, moved into place, and its folder synced: a kill in the middle leaves
the old one. All load with ``weights_only=True``.
"""

import hashlib
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.pipeline.config import RunConfig, parse_config
from app.pipeline.data.categories import CategoryMap
from app.pipeline.evaluate.selection import selection_score
from app.pipeline.models.weights import WeightsError, read_weights
from app.pipeline.types import CheckpointSaved, RunContext

LAST_NAME = "last.pt"
NUM_BEST = 3


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message says why and what to do."""


@dataclass(frozen=True)
class Scores:
    """What a checkpoint scored on the validation split; ``score``, by the selection ``metric``, picks the best."""

    map: float
    map50: float
    map75: float
    f1: float
    metric: str = "map50_f1"

    @property
    def score(self) -> float:
        return selection_score(self.metric, self._figures())

    def to_dict(self) -> dict[str, float]:
        return {**self._figures(), "score": self.score}

    def _figures(self) -> dict[str, float]:
        return {"map": self.map, "map50": self.map50, "map75": self.map75, "f1": self.f1}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint as read from its file; ``tensors`` is the model's state dict."""

    path: Path
    tensors: dict[str, Tensor]
    config: RunConfig
    categories: CategoryMap
    metrics: dict[str, float]
    epoch: int
    step: int


class CheckpointKeeper:
    """Keeps the best three checkpoints of a run, and the last with all that is needed to go on from it."""

    def __init__(self, run_dir: Path, config: RunConfig, categories: CategoryMap, context: RunContext) -> None:
        self._run_dir = run_dir
        self._texts = {"config_json": config.model_dump_json(), "categories_json": categories_to_json(categories)}
        self._context = context
        self._kept: list[tuple[float, int, str]] = []  # score, epoch, file name; the best first
        self.best: dict[str, float] = {}

    def offer(self, model: torch.nn.Module, scores: Scores, epoch: int, step: int) -> str | None:
        """Save the model if it is among the best three; returns the file's name, or None when it is not."""
        if len(self._kept) == NUM_BEST and scores.score <= self._kept[-1][0]:
            return None
        name = f"epoch_{epoch:04d}_map50_{scores.map50:.3f}_f1_{scores.f1:.3f}.pt"
        sha256 = save_checkpoint(self._run_dir / name, self._contents(model, scores.to_dict(), epoch, step))
        self._kept = sorted([*self._kept, (scores.score, epoch, name)], key=lambda kept: (-kept[0], kept[1]))
        removed = tuple(kept[2] for kept in self._kept[NUM_BEST:])
        self._kept = self._kept[:NUM_BEST]
        for old in removed:
            (self._run_dir / old).unlink(missing_ok=True)
        if self._kept[0][2] == name:
            self.best = {**scores.to_dict(), "epoch": epoch}
        self._context.emit(
            CheckpointSaved(
                name, sha256, epoch, step, scores.map50, scores.f1, scores.score, is_last=False, removed=removed
            )
        )
        return name

    def save_last(self, model: torch.nn.Module, progress: dict[str, Any], scores: Scores | None) -> None:
        """Save the model with ``progress``: epoch, step, and what else is needed to go on from there."""
        epoch, step = progress["epoch"], progress["step"]
        contents = self._contents(model, scores.to_dict() if scores else {}, epoch, step)
        contents |= {**progress, "best_json": json.dumps(self._kept)}
        sha256 = save_checkpoint(self._run_dir / LAST_NAME, contents)
        figures = (scores.map50, scores.f1, scores.score) if scores else (None, None, None)
        self._context.emit(CheckpointSaved(LAST_NAME, sha256, epoch, step, *figures, is_last=True))

    def _contents(self, model: torch.nn.Module, metrics: dict[str, float], epoch: int, step: int) -> dict[str, Any]:
        state = tensors_of(model)
        return {"model": state, **self._texts, "metrics_json": json.dumps(metrics), "epoch": epoch, "step": step}


def tensors_of(model: torch.nn.Module) -> dict[str, Tensor]:
    """A model's state dict as it is written: on the CPU, in the ordinary layout."""
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def save_checkpoint(path: Path, contents: dict[str, Any]) -> str:
    """Write ``contents`` to ``path`` all or nothing; returns the file's SHA-256. Raises CheckpointError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb+") as file:
            torch.save(contents, file)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch tells of a full disk by a RuntimeError
        raise CheckpointError(
            f"{path.name} could not be written to {path.parent} ({error}); "
            f"{shutil.disk_usage(path.parent).free / 1e6:.0f} MB are free there. Make room and train again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return digest


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_free_space(run_dir: Path, model: torch.nn.Module, is_averaged: bool = False) -> None:
    """Raise CheckpointError when what a run keeps would not fit.

    That is three best, one last with its optimizer (and with the weights behind the averaged ones), one spare.
    """
    model_bytes = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    needed = model_bytes * (NUM_BEST + 1 + 3 + is_averaged)
    run_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(run_dir).free
    if free < needed:
        raise CheckpointError(
            f"a run of this model needs {needed / 1e6:.0f} MB of disk for its checkpoints, "
            f"and {free / 1e6:.0f} MB are free at {run_dir}: make room first"
        )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of ours, tensors checked; raises CheckpointError."""
    try:
        weights = read_weights(path)
        document = weights.extras
        return Checkpoint(
            path=path,
            tensors=weights.tensors,
            config=parse_config(json.loads(document["config_json"])),
            categories=categories_from_json(document["categories_json"]),
            metrics=json.loads(document["metrics_json"]),
            epoch=int(document["epoch"]),
            step=int(document["step"]),
        )
    except (WeightsError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path.name} is no checkpoint of a run here: {error}") from error


def categories_to_json(categories: CategoryMap) -> str:
    pairs = zip(categories.ids, categories.names, strict=True)
    return json.dumps([{"id": category_id, "name": name} for category_id, name in pairs], ensure_ascii=False)


def categories_from_json(text: str) -> CategoryMap:
    return CategoryMap.from_coco(json.loads(text))
