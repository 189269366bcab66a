"""Weights to take away: a plain torchvision state dict, and what is needed to build its model."""

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from app.pipeline.anchors import level_shapes
from app.pipeline.config import RunConfig, parse_config
from app.pipeline.loading_recipe import FACTS_NAME, formats, loading_recipe
from app.pipeline.models.build import constructor_arguments
from app.pipeline.models.catalogue import pyramid_strides
from app.pipeline.train.checkpoint import Checkpoint, load_checkpoint


def export_weights(checkpoint_path: Path, format: Literal["pth", "safetensors"], out_dir: Path) -> list[Path]:
    """Write ``model.<format>`` and ``classes.json`` to ``out_dir``; returns their paths.

    Raises CheckpointError for a file that is no checkpoint, ValueError for an unknown format.
    """
    if format not in formats():
        raise ValueError(f"the format must be one of {', '.join(formats())}, got {format!r}")
    checkpoint = load_checkpoint(Path(checkpoint_path))
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    weights, facts = out_dir / f"model.{format}", out_dir / FACTS_NAME
    save = torch.save if format == "pth" else save_file
    _replace(weights, lambda path: save(checkpoint.tensors, path))
    text = json.dumps(describe(checkpoint), indent=2, ensure_ascii=False)
    _replace(facts, lambda path: path.write_text(text + "\n", encoding="utf-8"))
    return [weights, facts]


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """What ``classes.json`` says: label, category id and name of each class, and how torchvision builds the model.

    ``resize`` is done by the model; ``window`` (of gray values; width 0 is none) by whoever reads the images.
    """
    categories = checkpoint.categories
    pairs = zip(categories.ids, categories.names, strict=True)
    return {
        "model": checkpoint.config.model,
        "image_size": checkpoint.config.image_size,
        "resize": checkpoint.config.resize,
        "window": {"center": checkpoint.config.window_center, "width": checkpoint.config.window_width},
        "pooler_size": checkpoint.config.pooler_size,
        "anchors": _cell_anchors(checkpoint.config),
        "config": _building_options(checkpoint.config),
        "arguments": constructor_arguments(checkpoint.config, len(categories)),
        "classes": [{"label": i, "id": id_, "name": name} for i, (id_, name) in enumerate(pairs, start=1)],
        "metrics": checkpoint.metrics,
        "epoch": checkpoint.epoch,
    }


def torchvision_recipe(model: str, format: str = "pth", resize: str = "longest") -> str:
    """The lines that load an export of a model as torchvision makes it: see :func:`loading_recipe`."""
    return loading_recipe(parse_config({"model": model, "resize": resize}), format)


def _cell_anchors(config: RunConfig) -> list[list[list[float]]]:
    """The anchors around a position: [x1, y1, x2, y2] for each shape of each level, the finest first."""
    levels = level_shapes(config, pyramid_strides(config.model))
    return [[[-w / 2, -h / 2, w / 2, h / 2] for w, h in level.tolist()] for level in levels]


def _building_options(config: RunConfig) -> dict[str, Any]:
    """The run's options without what it started from, whose path is nobody else's business."""
    norm = "group" if config.norm == "group" else "auto"
    start = {"pretrained": "none", "weights_file": "", "norm": norm, "trainable_layers": 5}
    return {**config.model_dump(mode="json"), **start}


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
