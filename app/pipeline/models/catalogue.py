"""The detectors on offer, how large they are, and which weights are published for them. Imports no torch.

Counts are those of torchvision and timm as published: batch norm of the v1 ResNets and of MobileNet is frozen there
and therefore not counted, that of the v2 models and of timm's backbones is.
"""

import difflib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

TIMM_PREFIX = "timm/"
PYRAMID = (4, 8, 16, 32, 64)
MOBILE_PYRAMID = (32, 32, 64)
_TRANSFORMER_WORDS = ("swin", "vit", "former", "deit", "beit", "cait", "pvt", "twins", "coat", "xcit", "hiera", "eva02")
COUNTED_CLASSES = 2  # as torchvision counts: with the background
COUNTED_CHANNELS = 3
PARAMETERS_PER_CLASS = 5 * (1024 + 1)  # one score and four box offsets from 1024 features, and their biases


@dataclass(frozen=True)
class Detector:
    """How a model is offered.

    ``num_parameters`` is for two classes (one of them the background) and three channels; ``stem_filters``: weights
    of the first convolution for each channel; ``strides``: pixels a cell of each map of the feature pyramid, the
    finest first; ``backbone``: the name that ``library`` knows it by.
    """

    name: str
    title: str
    family: Literal["resnet", "mobilenet", "efficientnet", "swin"]
    backbone: str
    num_parameters: int
    stem_filters: int
    head: Literal["v1", "v2"] = "v1"
    strides: tuple[int, ...] = PYRAMID
    has_batch_norm: bool = True

    @property
    def library(self) -> str:
        return "torchvision" if self.family in ("resnet", "mobilenet") else "timm"

    def count_parameters(self, num_classes: int = COUNTED_CLASSES, channels: int = COUNTED_CHANNELS) -> int:
        """Parameters with ``num_classes`` as torchvision counts them (the background is one) and input channels."""
        more_classes = (num_classes - COUNTED_CLASSES) * PARAMETERS_PER_CLASS
        return self.num_parameters + more_classes + (channels - COUNTED_CHANNELS) * self.stem_filters

    def describe(self, num_classes: int = COUNTED_CLASSES, channels: int = COUNTED_CHANNELS) -> dict[str, Any]:
        """The facts as plain values: those of the class, ``parameters``, ``pretrained`` and ``cached`` (weights)."""
        count = self.count_parameters(num_classes, channels)
        published = [part for part in ("backbone", "network") if (self.name, part) in WEIGHTS]
        return {
            **asdict(self),
            "library": self.library,
            "parameters": count,
            "num_parameters_m": round(count / 1e6, 2),
            "pretrained": published,
            "cached": [part for part in published if cached_file(WEIGHTS[self.name, part]) is not None],
        }


@dataclass(frozen=True)
class PublishedWeights:
    """A weights file. Names of torchvision's end in the first digits of their SHA-256; timm's lie in a hub repository.

    timm's is kept as ``ARCHITECTURE.TAG-DIGITS.safetensors``, with the first digits of what was downloaded.
    """

    file_name: str
    hub_id: str = ""

    @property
    def url(self) -> str:
        if self.hub_id:
            return f"https://huggingface.co/{self.hub_id}/resolve/main/model.safetensors"
        return f"https://download.pytorch.org/models/{self.file_name}"

    @property
    def hash_prefix(self) -> str:
        return "" if self.hub_id else self.file_name.rpartition("-")[2].partition(".")[0]


def of_timm(tagged: str) -> PublishedWeights:
    """The weights that timm calls ``ARCHITECTURE.TAG``."""
    return PublishedWeights(f"{tagged}.safetensors", f"timm/{tagged}")


def _resnet(number: str, title: str, parameters: int, parameters_v2: int) -> tuple[Detector, Detector]:
    name = f"fasterrcnn_{number}_fpn"
    return (
        Detector(name, f"{title} FPN v1", "resnet", number, parameters, 3136),
        Detector(f"{name}_v2", f"{title} FPN v2", "resnet", number, parameters_v2, 3136, head="v2"),
    )


def _mobilenet(name: str, title: str) -> Detector:
    return Detector(name, title, "mobilenet", "mobilenet_v3_large", 18_930_229, 144, strides=MOBILE_PYRAMID)


def _efficientnet(number: int, parameters: int, stem_filters: int) -> Detector:
    name, title = f"efficientnet_b{number}", f"EfficientNet-B{number} FPN"
    return Detector(f"fasterrcnn_{name}_fpn", title, "efficientnet", name, parameters, stem_filters)


def _swin(size: str, parameters: int) -> Detector:
    backbone, title = f"swin_{size}_patch4_window7_224", f"Swin-{size[0].upper()} FPN"
    name = f"fasterrcnn_swin_{size[0]}_fpn"
    return Detector(name, title, "swin", backbone, parameters, 1536, strides=PYRAMID[:4], has_batch_norm=False)


_MOBILE = "fasterrcnn_mobilenet_v3_large"
# Sorted by parameters: start with the fewest. The counts are tested against the models themselves.
DETECTORS: tuple[Detector, ...] = tuple(
    sorted(
        (
            _mobilenet(f"{_MOBILE}_320_fpn", "MobileNet-V3 Large 320 FPN"),
            _mobilenet(f"{_MOBILE}_fpn", "MobileNet-V3 Large FPN"),
            *_resnet("resnet18", "ResNet-18", 28_273_881, 30_187_353),
            *_resnet("resnet34", "ResNet-34", 38_374_617, 40_295_513),
            *_resnet("resnet50", "ResNet-50", 41_299_161, 43_256_153),
            *_resnet("resnet101", "ResNet-101", 60_239_065, 62_248_281),
            *_resnet("resnet152", "ResNet-152", 75_836_633, 77_891_929),
            _resnet("resnext101_32x8d", "ResNeXt-101-32x8d", 104_383_705, 0)[0],
            _efficientnet(0, 20_583_573, 288),
            _efficientnet(1, 23_089_209, 288),
            _efficientnet(2, 24_203_035, 288),
            _efficientnet(3, 27_118_145, 360),
            _efficientnet(4, 33_781_601, 432),
            _efficientnet(5, 44_352_073, 432),
            _efficientnet(6, 56_492_529, 504),
            _efficientnet(7, 79_258_601, 576),
            _swin("tiny", 44_754_402),
            _swin("small", 66_072_306),
        ),
        key=lambda detector: detector.num_parameters,
    )
)  # fmt: skip
_BY_NAME = {detector.name: detector for detector in DETECTORS}

# The weights that torchvision's builders take by default, and timm's of the same normalization as ours.
_BACKBONES = {
    "resnet18": PublishedWeights("resnet18-f37072fd.pth"),
    "resnet34": PublishedWeights("resnet34-b627a593.pth"),
    "resnet50": PublishedWeights("resnet50-0676ba61.pth"),
    "resnet101": PublishedWeights("resnet101-63fe2227.pth"),
    "resnet152": PublishedWeights("resnet152-394f9c45.pth"),
    "resnext101_32x8d": PublishedWeights("resnext101_32x8d-8ba56ff5.pth"),
    "mobilenet_v3_large": PublishedWeights("mobilenet_v3_large-8738ca79.pth"),
    "efficientnet_b0": of_timm("efficientnet_b0.ra_in1k"),
    "efficientnet_b1": of_timm("efficientnet_b1.ft_in1k"),
    "efficientnet_b2": of_timm("efficientnet_b2.ra_in1k"),
    "efficientnet_b3": of_timm("efficientnet_b3.ra2_in1k"),
    "efficientnet_b4": of_timm("efficientnet_b4.ra2_in1k"),
    "efficientnet_b5": of_timm("efficientnet_b5.sw_in12k_ft_in1k"),
    "swin_tiny_patch4_window7_224": of_timm("swin_tiny_patch4_window7_224.ms_in1k"),
    "swin_small_patch4_window7_224": of_timm("swin_small_patch4_window7_224.ms_in22k_ft_in1k"),
}

WEIGHTS: dict[tuple[str, str], PublishedWeights] = {
    **{
        (detector.name, "backbone"): _BACKBONES[detector.backbone]
        for detector in DETECTORS
        if detector.backbone in _BACKBONES
    },
    (f"{_MOBILE}_320_fpn", "network"): PublishedWeights(f"{_MOBILE}_320_fpn-907ea3f9.pth"),
    (f"{_MOBILE}_fpn", "network"): PublishedWeights(f"{_MOBILE}_fpn-fb6a3cc7.pth"),
    ("fasterrcnn_resnet50_fpn", "network"): PublishedWeights("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"),
    ("fasterrcnn_resnet50_fpn_v2", "network"): PublishedWeights("fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth"),
}


def find_detector(name: str) -> Detector | None:
    """The catalogue's entry of that name; None for timm/NAME and for what does not exist."""
    return _BY_NAME.get(name)


def is_transformer(model: str) -> bool:
    """Whether the backbone is built of attention, by the catalogue's family or timm's naming: it wants low rates."""
    detector = find_detector(model)
    if detector is not None:
        return detector.family == "swin"
    return any(word in timm_name(model) for word in _TRANSFORMER_WORDS)


def pyramid_strides(model: str) -> tuple[int, ...]:
    """Strides of the feature pyramid's maps, the finest first; every timm/NAME that is accepted has the same."""
    detector = find_detector(model)
    return PYRAMID if detector is None else detector.strides


def timm_name(model: str) -> str:
    """NAME of a model timm/NAME, else ""."""
    return model.removeprefix(TIMM_PREFIX) if model.startswith(TIMM_PREFIX) else ""


def model_conflicts(model: str, pretrained: str, norm: str = "auto") -> Iterator[tuple[str, str]]:
    """(option, why a model cannot be built, or not started from these weights with these norm layers), if so.

    Of timm/NAME only the helper process can tell whether the name exists: see ``services/models.py``.
    """
    if timm_name(model):
        if pretrained == "network":
            yield "pretrained", f"'network' is not published for {model}: timm has backbones alone, choose 'backbone'"
        return
    detector = find_detector(model)
    if detector is None:
        yield "model", f"there is no model {model!r}{_did_you_mean(model)}"
        return
    if pretrained in ("backbone", "network") and (model, pretrained) not in WEIGHTS:
        others = [part for part in ("backbone", "network") if (model, part) in WEIGHTS]
        advice = " or ".join(f"'{part}'" for part in [*others, "none", "file"])
        yield "pretrained", f"{pretrained!r} is not published for {model}: choose {advice}"
    if not detector.has_batch_norm and norm != "auto":
        yield "norm", f"{norm!r} replaces batch norm, and {model} has none: choose 'auto'"


def _did_you_mean(model: str) -> str:
    near = difflib.get_close_matches(model, list(_BY_NAME), n=3, cutoff=0.6)
    if near:
        return f": did you mean {' or '.join(near)}?"
    return f" (known: {', '.join(_BY_NAME)}, and timm/NAME)"


def weights_folder() -> Path:
    """Where torch.hub keeps downloads: TORCH_HOME, else torch under XDG_CACHE_HOME, else ~/.cache/torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))  # noqa: PTH118
    return Path(home).expanduser() / "hub" / "checkpoints"


def cached_file(published: PublishedWeights) -> Path | None:
    """Where the weights lie on this machine, or None; timm's may be in the folder of the Hugging Face hub too."""
    folder = weights_folder()
    if (folder / published.file_name).is_file():
        return folder / published.file_name
    if not published.hub_id:
        return None
    stem = published.file_name.removesuffix(".safetensors")
    found = sorted(folder.glob(f"{stem}-{'[0-9a-f]' * 8}.safetensors"))
    snapshots = _hub_folder() / f"models--{published.hub_id.replace('/', '--')}" / "snapshots"
    return next(iter([*found, *sorted(snapshots.glob("*/model.safetensors"))]), None)


def cached_weights() -> set[tuple[str, str]]:
    """The (model, part) pairs whose weights are on this machine already."""
    return {key for key, published in WEIGHTS.items() if cached_file(published) is not None}


def _hub_folder() -> Path:
    """Where the Hugging Face hub keeps downloads: HF_HUB_CACHE, else hub under HF_HOME, else ~/.cache/huggingface."""
    home = os.environ.get("HF_HOME", os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface"))  # noqa: PTH118
    return Path(os.environ.get("HF_HUB_CACHE", os.path.join(home, "hub"))).expanduser()  # noqa: PTH118
