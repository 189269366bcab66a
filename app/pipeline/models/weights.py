"""Weights to start from: torchvision's own download and cache, or a file; checked before they reach a model.

A file is read as tensors only, never as code. What does not fit is refused with its reason; only the layers that
depend on the classes are remade.
"""

import json
import pickle
import re
import urllib.error
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from app.pipeline.config import RunConfig
from app.pipeline.data.categories import CategoryMap
from app.pipeline.models.build import build_model, freeze_for_finetuning
from app.pipeline.models.catalogue import WEIGHTS, weights_folder

_HEADS = (
    "roi_heads.box_predictor.cls_score.weight",
    "roi_heads.box_predictor.cls_score.bias",
    "roi_heads.box_predictor.bbox_pred.weight",
    "roi_heads.box_predictor.bbox_pred.bias",
)
_DTYPES = frozenset(
    (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    + (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)
)
_WRAPPERS = ("model", "state_dict", "model_state_dict")
_BODY = "backbone.body."
COCO_CLASSES = ("COCO",)  # stands for a head that is never kept: its 91 classes are nobody's dataset
# Names of torchvision before 0.14, which its published v1 weights still have.
_RENAMED = (
    (re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
)


class WeightsError(ValueError):
    """A weights file that cannot be used; the message says why and names the file."""


class WeightsUnavailable(WeightsError):
    """Pretrained weights are neither in the cache nor could be downloaded."""


@dataclass(frozen=True)
class WeightsFile:
    """Tensors by name, what else the file holds, and the class names if it tells them."""

    path: Path
    tensors: dict[str, Tensor]
    extras: dict[str, object]
    class_names: tuple[str, ...] | None = None


def start_model(config: RunConfig, categories: CategoryMap) -> tuple[FasterRCNN, list[str]]:
    """A detector ready to be trained, and what the user should know about its start.

    Raises WeightsUnavailable or WeightsError; never falls back to random weights.
    """
    model = build_model(config, len(categories))
    if config.pretrained == "none":
        return model, ["Training from random weights."]
    notes = load_pretrained(model, config, categories)
    freeze_for_finetuning(model, config.trainable_layers)
    return model, notes


def load_pretrained(model: FasterRCNN, config: RunConfig, categories: CategoryMap) -> list[str]:
    """Load the weights that ``config.pretrained`` names into ``model``; returns notes for the log."""
    if config.pretrained == "file":
        return fit_weights(model, read_weights(Path(config.weights_file).expanduser()), categories.names)
    weights = read_weights(fetch_weights(config.model, config.pretrained))
    if config.pretrained == "network":
        weights = replace(weights, class_names=COCO_CLASSES)
        if config.model == "fasterrcnn_resnet50_fpn":
            weights = _with_default_epsilon(weights)
    return fit_weights(model, weights, categories.names)


def fetch_weights(model: str, part: str) -> Path:
    """The file of torchvision's ``part`` ('backbone' or 'network') weights of a model, downloaded if need be.

    Raises WeightsUnavailable naming the file, its address and the folder to put it in.
    """
    published = WEIGHTS.get((model, part))
    if published is None:
        raise WeightsUnavailable(f"torchvision has no pretrained {part} for {model}: choose 'backbone' or 'none'")
    path = weights_folder() / published.file_name
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(published.url, str(path), hash_prefix=published.hash_prefix, progress=False)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise WeightsUnavailable(
            f"the pretrained {part} of {model} could not be downloaded ({getattr(error, 'reason', error)}). "
            f"Download {published.url} where there is a network and put it here as {path}, "
            "or choose pretrained 'none'"
        ) from error
    return path


def read_weights(path: Path) -> WeightsFile:
    """The tensors of a .pth, .pt or .safetensors file, all finite; raises WeightsError with the reason otherwise."""
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise WeightsError(f"{path.name} is empty: download or copy it again")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise WeightsError(f"{path.name} is a web page, not weights: download the file itself")
    document = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    tensors = _find_tensors(document, path)
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, path)
    extras = {key: value for key, value in document.items() if isinstance(value, str | int | float)}
    return WeightsFile(path, tensors, extras, _class_names(extras, path))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise WeightsError(f"{path.name} is not a readable .safetensors file ({error})") from error


def _read_pickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path) or path.read_bytes()[:1] == b"\x80":
            raise WeightsError(
                f"{path.name} holds more than tensors and could run code when opened, so it was not opened. "
                "Save its state dict alone: torch.save(model.state_dict(), ...)"
            ) from error
        raise WeightsError(f"{path.name} is damaged or no file of PyTorch weights") from error
    except Exception as error:  # on damaged bytes the unpickler raises whatever it stumbles over
        raise WeightsError(f"{path.name} is damaged or no file of PyTorch weights ({error})") from error


def _find_tensors(document: object, path: Path) -> dict[str, Tensor]:
    if isinstance(document, Mapping):
        inner = next((document[key] for key in _WRAPPERS if isinstance(document.get(key), Mapping)), document)
        tensors = {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
        if tensors and len(tensors) == len(inner):
            return {_current_name(name): tensor for name, tensor in tensors.items()}
    raise WeightsError(f"{path.name} holds no state dict (tensors by name)")


def _check_tensor(name: str, tensor: Tensor, path: Path) -> None:
    """Refuse what a weight never is; a view may claim far more elements than the file holds, so that comes first."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype not in _DTYPES:
        raise WeightsError(f"{path.name}: {name} must be an ordinary tensor of numbers, found {tensor.dtype}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise WeightsError(f"{path.name}: {name} claims to be {tuple(tensor.shape)}, more than the file holds")
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise WeightsError(f"{path.name}: {name} holds values that are not finite (NaN or infinity)")


def _current_name(name: str) -> str:
    name = name.removeprefix("module.")
    for old, new in _RENAMED:
        name = old.sub(new, name)
    return name


def _class_names(extras: dict[str, object], path: Path) -> tuple[str, ...] | None:
    text = extras.get("categories_json")
    if not isinstance(text, str):
        return None
    try:
        return tuple(str(item["name"]) for item in json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(f"{path.name}: its list of classes cannot be read ({error})") from error


def fit_weights(model: FasterRCNN, weights: WeightsFile, class_names: tuple[str, ...]) -> list[str]:
    """Copy ``weights`` into ``model``; returns notes for the log.

    The head's last layers are left as they are (random) when the classes differ. A backbone alone (a classification
    network of torchvision) fills the backbone. Raises WeightsError naming the first tensor that is missing or has
    another shape.
    """
    own = model.state_dict()
    tensors, is_backbone = dict(weights.tensors), False
    if not any(name.startswith("backbone.") for name in tensors):
        tensors, is_backbone = _as_backbone(tensors, own), True
    notes = [f"Started from {weights.path.name}{' (backbone only)' if is_backbone else ''}."]
    if not is_backbone and _has_other_classes(tensors, own, weights.class_names, class_names):
        notes.append(f"Its classes are not these {len(class_names)}: the last layers of the head start at random.")
        tensors = {name: value for name, value in tensors.items() if name not in _HEADS}
    wanted = [name for name in own if name.startswith(_BODY) or not is_backbone]
    _check_fit(tensors, own, wanted, weights.path.name)
    model.load_state_dict({name: tensors.get(name, value) for name, value in own.items()})
    return notes


def _as_backbone(tensors: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of a classification network to those of the detector's backbone; its classifier is left out."""
    renamed = {_BODY + name.removeprefix("features."): value for name, value in tensors.items()}
    return {name: value for name, value in renamed.items() if name in own}


def _has_other_classes(
    tensors: dict[str, Tensor], own: dict[str, Tensor], theirs: tuple[str, ...] | None, ours: tuple[str, ...]
) -> bool:
    """Whether the head speaks of other classes: by name if they are told, else by number."""
    if theirs is not None and theirs != ours:
        return True
    return any(name in tensors and tensors[name].shape[:1] != own[name].shape[:1] for name in _HEADS)


def _check_fit(tensors: dict[str, Tensor], own: dict[str, Tensor], wanted: list[str], file_name: str) -> None:
    for name in wanted:
        if name in _HEADS and name not in tensors:
            continue
        if name not in tensors:
            if name.endswith("num_batches_tracked"):  # a counter that frozen batch norm does not have
                continue
            raise WeightsError(
                f"{file_name} does not fit the chosen model: it has no {name}. Choose the model it is of"
            )
        if tensors[name].shape != own[name].shape:
            raise WeightsError(
                f"{file_name} does not fit the chosen model: {name} must have shape {tuple(own[name].shape)}, "
                f"found {tuple(tensors[name].shape)}. Choose the model it is of"
            )
    unknown = next((name for name in tensors if name not in own), None)
    if unknown is not None:
        raise WeightsError(f"{file_name} does not fit the chosen model: it has {unknown}, which the model has not")


def _with_default_epsilon(weights: WeightsFile) -> WeightsFile:
    """COCO's ResNet-50 v1 was trained with a batch-norm epsilon of 0; the default 1e-5 goes into the variance."""
    tensors = {name: value - 1e-5 if name.endswith("running_var") else value for name, value in weights.tensors.items()}
    return replace(weights, tensors=tensors)
