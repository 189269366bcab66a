"""The detectors on offer and torchvision's published weights for them. Imports no torch."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Detector:
    """How a model is offered; ``num_parameters_m`` is in millions, for two classes."""

    name: str
    title: str
    num_parameters_m: float


@dataclass(frozen=True)
class PublishedWeights:
    """A weights file of torchvision; its name ends in the first digits of its SHA-256."""

    file_name: str

    @property
    def url(self) -> str:
        return f"https://download.pytorch.org/models/{self.file_name}"

    @property
    def hash_prefix(self) -> str:
        return self.file_name.rpartition("-")[2].partition(".")[0]


# Sorted by parameters: start with the fewest.
DETECTORS = (
    Detector("fasterrcnn_mobilenet_v3_large_320_fpn", "MobileNet-V3 Large 320 FPN", 18.9),
    Detector("fasterrcnn_resnet18_fpn", "ResNet-18 FPN", 28.3),
    Detector("fasterrcnn_resnet50_fpn", "ResNet-50 FPN v1", 41.3),
    Detector("fasterrcnn_resnet50_fpn_v2", "ResNet-50 FPN v2", 43.3),
)

_RESNET18 = PublishedWeights("resnet18-f37072fd.pth")
_RESNET50 = PublishedWeights("resnet50-0676ba61.pth")
_MOBILENET = PublishedWeights("mobilenet_v3_large-8738ca79.pth")

WEIGHTS: dict[tuple[str, str], PublishedWeights] = {
    ("fasterrcnn_resnet18_fpn", "backbone"): _RESNET18,
    ("fasterrcnn_mobilenet_v3_large_320_fpn", "backbone"): _MOBILENET,
    ("fasterrcnn_mobilenet_v3_large_320_fpn", "network"): PublishedWeights(
        "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth"
    ),
    ("fasterrcnn_resnet50_fpn", "backbone"): _RESNET50,
    ("fasterrcnn_resnet50_fpn", "network"): PublishedWeights("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"),
    ("fasterrcnn_resnet50_fpn_v2", "backbone"): _RESNET50,
    ("fasterrcnn_resnet50_fpn_v2", "network"): PublishedWeights("fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth"),
}


def model_conflicts(model: str, pretrained: str) -> Iterator[str]:
    """Why a model cannot be built, or not started from these weights, if so."""
    if model not in {detector.name for detector in DETECTORS}:
        yield f"there is no model {model!r} (known: {', '.join(detector.name for detector in DETECTORS)})"
    elif pretrained in ("backbone", "network") and (model, pretrained) not in WEIGHTS:
        yield f"pretrained {pretrained!r} is not published for {model}: choose another start"


def weights_folder() -> Path:
    """Where torch.hub keeps downloads: TORCH_HOME, else torch under XDG_CACHE_HOME, else ~/.cache/torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))  # noqa: PTH118
    return Path(home).expanduser() / "hub" / "checkpoints"


def cached_weights() -> set[tuple[str, str]]:
    """The (model, part) pairs whose weights are on this machine already."""
    folder = weights_folder()
    return {key for key, published in WEIGHTS.items() if (folder / published.file_name).is_file()}
