"""Weights to take away: a plain torchvision state dict, and what is needed to build its model."""

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from app.pipeline.models.build import constructor_arguments
from app.pipeline.train.checkpoint import Checkpoint, load_checkpoint

FACTS_NAME = "classes.json"
_LOADERS = {
    "pth": 'torch.load("model.pth", weights_only=True)',
    "safetensors": 'safetensors.torch.load_file("model.safetensors")',
}


def export_weights(checkpoint_path: Path, format: Literal["pth", "safetensors"], out_dir: Path) -> list[Path]:
    """Write ``model.<format>`` and ``classes.json`` to ``out_dir``; returns their paths.

    Raises CheckpointError for a file that is no checkpoint, ValueError for an unknown format.
    """
    if format not in _LOADERS:
        raise ValueError(f"the format must be one of {', '.join(_LOADERS)}, got {format!r}")
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
        "arguments": constructor_arguments(checkpoint.config, len(categories)),
        "classes": [{"label": i, "id": id_, "name": name} for i, (id_, name) in enumerate(pairs, start=1)],
        "metrics": checkpoint.metrics,
        "epoch": checkpoint.epoch,
    }


def torchvision_recipe(model: str, format: str = "pth", resize: str = "longest") -> str:
    """The five lines that load an export with torchvision alone, to be run in the folder of the export.

    The model takes RGB images as float tensors [3, H, W] in 0..1, and resizes them itself, as it was trained: the
    arguments in the file say how. For ``resize`` "as_is" a sixth line takes the resizing out.
    """
    package = "torchvision" if format == "pth" else "safetensors.torch, torchvision"
    if model == "fasterrcnn_resnet18_fpn":
        build = (
            "torchvision.models.detection.FasterRCNN(torchvision.models.detection.backbone_utils.resnet_fpn_backbone("
            'backbone_name="resnet18", weights=None), **facts["arguments"])'
        )
    else:
        build = (
            'torchvision.models.get_model(facts["model"], weights=None, weights_backbone=None, **facts["arguments"])'
        )
    lines = [
        f"import json, torch, {package}",
        f'facts = json.load(open("{FACTS_NAME}", encoding="utf-8"))',
        f"model = {build}",
        f"model.load_state_dict({_LOADERS[format]})",
        "model.eval()",
    ]
    if resize == "as_is":
        lines.append("model.transform.resize = lambda image, target=None: (image, target)")
    return "\n".join(lines)


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
