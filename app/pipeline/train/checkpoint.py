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
from dataclasses import dataclass
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

NUM_BEST = 3


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message says why and what to do."""


class DiskFull(CheckpointError):
    """A checkpoint did not fit on the disk, or would not; those written before are whole."""


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
        is_full = is_disk_full(error, path.parent)
        why = "" if is_full else f" ({error})"  # how torch puts it that the disk is full helps nobody
        raise (DiskFull if is_full else CheckpointError)(
            f"{path.name} could not be written to {path.parent}{why}: "
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
    """Raise DiskFull when what a run keeps would not fit.

    That is five of the size of the model (three best, two being written) and three with its optimizer, and with the
    weights behind the averaged ones (the last, the one before, one being written).
    """
    model_bytes = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    needed = model_bytes * (NUM_BEST + 2 + 3 * (3 + is_averaged))
    run_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(run_dir).free
    if free < needed:
        raise DiskFull(
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
