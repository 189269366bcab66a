"""Weights to start from: what torchvision and timm publish, or a file; checked before they reach a model.

A file is read as tensors only, never as code. What of it fits is told: see ``weights_fit``.
"""

import hashlib
import json
import pickle
import re
import urllib.error
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from app.pipeline.config import RunConfig
from app.pipeline.data.categories import CategoryMap
from app.pipeline.models.backbones import create_features, inspect_timm, stages_from_the_top
from app.pipeline.models.build import build_model, freeze_for_finetuning, resolve_norm
from app.pipeline.models.catalogue import (
    WEIGHTS,
    PublishedWeights,
    cached_file,
    find_detector,
    of_timm,
    timm_name,
    weights_folder,
)
from app.pipeline.models.weights_fit import WeightsError, WeightsFile, WeightsUnavailable, fit_weights

_DTYPES = frozenset(
    (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    + (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)
)
_WRAPPERS = ("model", "state_dict", "model_state_dict")
COCO_CLASSES = ("COCO",)  # stands for a head that is never kept: its 91 classes are nobody's dataset
_HASH_DIGITS = 8
# Names of torchvision before 0.14, which its published v1 weights still have.
_RENAMED = (
    (re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
)


def start_model(
    config: RunConfig, categories: CategoryMap, class_counts: Sequence[int] = (), *, is_resumed: bool = False
) -> tuple[FasterRCNN, list[str]]:
    """A detector ready to be trained, and what the user should know about its start.

    class_counts: the training boxes of each class, for class weights. is_resumed: the weights of a run that goes on
    are about to be put in, so those that it once began with are not looked for. Raises WeightsUnavailable or
    WeightsError; never falls back to random weights.
    """
    model = build_model(config, len(categories), class_counts)
    if config.pretrained == "none":
        return model, [] if is_resumed else ["Training from random weights."]
    notes = [] if is_resumed else load_pretrained(model, config, categories)
    norm = resolve_norm(config)
    freeze_for_finetuning(model, config.trainable_layers, norm)
    num_stages = len(stages_from_the_top(model.backbone.body))
    if config.trainable_layers < num_stages:
        notes.append(
            f"{config.trainable_layers} of the backbone's {num_stages} stages are trained, the rest is frozen."
        )
    return model, notes


def load_pretrained(model: FasterRCNN, config: RunConfig, categories: CategoryMap) -> list[str]:
    """Load the weights that ``config.pretrained`` names into ``model``; returns notes for the log."""
    if config.pretrained == "file":
        path = Path(config.weights_file).expanduser()
        published = {weights.file_name: weights for weights in WEIGHTS.values() if weights.hash_prefix}
        if path.is_file() and path.name in published:
            check_hash(path, published[path.name].hash_prefix)
        return fit_weights(model, read_weights(path), categories.names, config)
    path = fetch_weights(config.model, config.pretrained)
    name = _timm_backbone(config.model)
    weights = read_weights(path)
    if name:
        weights = replace(weights, tensors=read_as_timm(name, weights))
    if config.pretrained == "network":
        weights = replace(weights, class_names=COCO_CLASSES)
        if config.model == "fasterrcnn_resnet50_fpn":
            weights = _with_default_epsilon(weights)
    return fit_weights(model, weights, categories.names, config)


def _timm_backbone(model: str) -> str:
    """The backbone's name in timm, "" for one of torchvision."""
    detector = find_detector(model)
    if detector is None:
        return timm_name(model)
    return detector.backbone if detector.library == "timm" else ""


def published_weights(model: str, part: str) -> PublishedWeights:
    """What is published of a model's ``part`` ('backbone' or 'network'); raises WeightsUnavailable."""
    published = WEIGHTS.get((model, part))
    if published is None and timm_name(model) and part == "backbone":
        tagged = inspect_timm(timm_name(model))["tagged"]
        published = of_timm(tagged) if tagged else None
    if published is None:
        raise WeightsUnavailable(f"there is no pretrained {part} for {model}: choose another start, or 'none'")
    return published


def fetch_weights(model: str, part: str) -> Path:
    """The file of the published ``part`` ('backbone' or 'network') weights of a model, downloaded if need be.

    Raises WeightsUnavailable naming the file, its address and the folder to put it in, and WeightsError for a file
    that is there but damaged.
    """
    published = published_weights(model, part)
    path = cached_file(published)
    if path is None:
        path = _download(published, f"the pretrained {part} of {model}")
    check_hash(path, _promised_hash(path, published))
    return path


def _promised_hash(path: Path, published: PublishedWeights) -> str:
    """The first digits of the file's SHA-256 as its name, or the hub's name for its contents, tells them; or ""."""
    if published.hash_prefix:
        return published.hash_prefix
    if path.is_symlink() and re.fullmatch("[0-9a-f]{64}", path.resolve().name):
        return path.resolve().name  # the hub keeps each file under its SHA-256, and names of it beside that
    found = re.search(r"-([0-9a-f]{8})\.safetensors$", path.name)
    return found.group(1) if found else ""


def check_hash(path: Path, prefix: str) -> None:
    """Raise WeightsError unless the file's SHA-256 begins with ``prefix`` ("" is not checked)."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(prefix):
        raise WeightsError(
            f"{path.name} is damaged or was not downloaded to its end: the SHA-256 must begin with {prefix[:16]}, "
            f"found {digest[:16]} ({path.stat().st_size:,} bytes). Delete {path} and download it again"
        )


def _download(published: PublishedWeights, what: str) -> Path:
    path = weights_folder() / published.file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        prefix = published.hash_prefix or None
        torch.hub.download_url_to_file(published.url, str(path), hash_prefix=prefix, progress=False)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise WeightsUnavailable(
            f"{what} could not be downloaded ({getattr(error, 'reason', error)}). "
            f"Download {published.url} where there is a network and put it here as {path}, "
            "or choose pretrained 'none'"
        ) from error
    if published.hash_prefix:
        return path
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path.rename(path.with_name(f"{path.stem}-{digest[:_HASH_DIGITS]}{path.suffix}"))


def read_as_timm(name: str, weights: WeightsFile) -> dict[str, Tensor]:
    """timm's own reading of its weights of backbone ``name``: tensors by the names of its feature extractor.

    Two readings into networks of different random weights agree on what the file gives, and on nothing else that is
    random; the rest is left out. Raises WeightsError when timm cannot read the file.
    """
    readings = []
    for seed in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                body = create_features(name, pretrained=True, pretrained_cfg_overlay={"file": str(weights.path)})
            except (RuntimeError, KeyError, ValueError, OSError) as error:
                raise WeightsError(f"{weights.path.name} is not of timm's {name} ({error})") from error
        readings.append(body.state_dict())
    first, second = readings
    return {f"backbone.body.{key}": value for key, value in first.items() if torch.equal(value, second[key])}


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


def _with_default_epsilon(weights: WeightsFile) -> WeightsFile:
    """COCO's ResNet-50 v1 was trained with a batch-norm epsilon of 0; the default 1e-5 goes into the variance."""
    tensors = {name: value - 1e-5 if name.endswith("running_var") else value for name, value in weights.tensors.items()}
    return replace(weights, tensors=tensors)
