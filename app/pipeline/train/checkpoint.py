"""Checkpoint files: plain tensors and JSON text, complete on disk or not there at all.

A file is written under a temporary name, synced, moved into place, and its folder synced: a kill in the middle leaves
the old one. All load with ``weights_only=True``.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch.utils.serialization import config as serialization

from app.pipeline.config import RunConfig, parse_config
from app.pipeline.data.categories import CategoryMap
from app.pipeline.evaluate.selection import selection_score
from app.pipeline.faults import is_disk_full
from app.pipeline.models.weights import WeightsError, read_weights
from app.pipeline.types import CheckpointSaved, RunContext

NUM_BEST = 3


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message says why and what to do."""


class DiskFull(CheckpointError):
    """A checkpoint did not fit on the disk; those written before are whole."""


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
    """Keeps the best three checkpoints of a run. All that it remembers is in ``state_dict``."""

    def __init__(self, run_dir: Path, config: RunConfig, categories: CategoryMap, context: RunContext) -> None:
        self._run_dir = run_dir
        self._texts = {"config_json": config.model_dump_json(), "categories_json": categories_to_json(categories)}
        self._context = context
        self.kept: list[CheckpointSaved] = []  # the best first
        self.best: dict[str, float] = {}

    def offer(self, model: torch.nn.Module, scores: Scores, epoch: int, step: int) -> str | None:
        """Save the model if it is among the best three; returns the file's name, or None when it is not."""
        if len(self.kept) == NUM_BEST and scores.score <= self.kept[-1].score:
            return None
        name = f"epoch_{epoch:04d}_map50_{scores.map50:.3f}_f1_{scores.f1:.3f}.pt"
        sha256 = save_checkpoint(self._run_dir / name, self.contents(model, scores, epoch, step))
        saved = CheckpointSaved(name, sha256, epoch, step, scores.map50, scores.f1, scores.score, is_last=False)
        ranked = sorted([*self.kept, saved], key=lambda kept: (-kept.score, kept.epoch))
        self.kept, beaten = ranked[:NUM_BEST], ranked[NUM_BEST:]
        for old in beaten:
            (self._run_dir / old.file_name).unlink(missing_ok=True)
        if self.kept[0] is saved:
            self.best = {**scores.to_dict(), "epoch": epoch}
        self._context.emit(replace(saved, removed=tuple(old.file_name for old in beaten)))
        return name

    def contents(self, model: torch.nn.Module, scores: Scores | None, epoch: int, step: int) -> dict[str, Any]:
        """What every checkpoint holds: ``model`` (tensors by name) and what it is, as text and numbers."""
        metrics = json.dumps(scores.to_dict() if scores else {})
        return {"model": tensors_of(model), **self._texts, "metrics_json": metrics, "epoch": epoch, "step": step}

    def state_dict(self) -> dict[str, Any]:
        """Plain values to go on from."""
        return {"kept": [asdict(kept) for kept in self.kept], "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`; what the folder has beyond or without that belongs to steps to be repeated.

        A file that better ones have displaced after the state was saved is missing, and comes to be displaced again.
        """
        kept = [CheckpointSaved(**{**values, "removed": ()}) for values in state["kept"]]
        self.kept = [one for one in kept if (self._run_dir / one.file_name).is_file()]
        if not any(one.epoch == state["best"].get("epoch") for one in self.kept):
            best = self.kept[0] if self.kept else None
            state = {"best": {name: getattr(best, name) for name in ("map50", "f1", "score", "epoch")} if best else {}}
        self.best = state["best"]
        self.forget_others()

    def forget_others(self) -> None:
        """Delete the files of best checkpoints that are not kept."""
        names = {one.file_name for one in self.kept}
        for path in self._run_dir.glob("epoch_*.pt"):
            if path.name not in names:
                path.unlink()


def tensors_of(model: torch.nn.Module) -> dict[str, Tensor]:
    """A model's state dict as it is written: on the CPU, in the ordinary layout."""
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def save_checkpoint(path: Path, contents: dict[str, Any], before_placing: Callable[[str], None] | None = None) -> str:
    """Write ``contents`` to ``path`` all or nothing; returns the file's SHA-256. Raises CheckpointError.

    ``before_placing`` is called with the SHA-256 when the file is whole, under another name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb+") as file, ThreadPoolExecutor(1) as beside:
            with serialization.patch("save.compute_crc32", False):  # the SHA-256 tells of damage, in half the time
                torch.save(contents, file)
            file.flush()
            syncing = beside.submit(os.fsync, file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            syncing.result()
        if before_placing is not None:
            before_placing(digest)
        temporary.replace(path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch tells of a full disk by a RuntimeError
        kind = DiskFull if is_disk_full(error, path.parent) else CheckpointError
        raise kind(
            f"{path.name} could not be written to {path.parent} ({error}); "
            f"{shutil.disk_usage(path.parent).free / 1e6:.0f} MB are free there. Make room, then let the run go on"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return digest


def sync_file(file: IO[Any]) -> None:
    """Bring what was written to an open file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk."""
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_free_space(run_dir: Path, model: torch.nn.Module, is_averaged: bool = False) -> None:
    """Raise CheckpointError when what a run keeps would not fit.

    That is four of the size of the model (three best, one being written) and three with its optimizer, and with the
    weights behind the averaged ones (the last, the one before, one being written).
    """
    model_bytes = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    needed = model_bytes * (NUM_BEST + 1 + 3 * (3 + is_averaged))
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
