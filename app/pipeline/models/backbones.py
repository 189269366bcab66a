"""Backbones with feature pyramids: torchvision's by its own builders, any of timm's that gives maps of rising stride.

B images, H x W their size, C the channels of a map; all pyramids have 256 channels on every level.
"""

import difflib
import math
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection.backbone_utils import BackboneWithFPN, mobilenet_backbone, resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from app.pipeline.models.catalogue import Detector, find_detector, timm_name
from app.pipeline.models.frozen_norm import fold_into_convolutions, freeze_layer

PYRAMID_CHANNELS = 256
MAX_NORM_GROUPS = 32  # as in the paper of group norm
TIMM_STRIDES = (4, 8, 16, 32)  # of the maps that a pyramid is built on
_PROBE_SIZE = (96, 160)  # height and width that no network was made for


class UnsuitableBackbone(ValueError):
    """A name that timm does not know, or a backbone without a feature pyramid; the message says why."""


class NormedPyramid(FeaturePyramidNetwork):
    """A pyramid that first brings each map to mean 0 and deviation 1 over its channels.

    Transformers add to their maps block by block and normalize them only where they are used, behind the last one; the
    detectors of the Swin paper (Liu et al. 2021) do the same for every map. Twenty steps of Swin-T on two images ended
    at a loss of .94 with it and 1.31 without.
    """

    def __init__(self, channels: list[int], out_channels: int, extra_blocks: nn.Module | None) -> None:
        super().__init__(channels, out_channels, extra_blocks)
        self.norms = nn.ModuleList(nn.LayerNorm(count) for count in channels)

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Maps [B, C, H, W] by name, the finest first, to maps of the pyramid."""
        maps = zip(x.items(), self.norms, strict=True)
        return super().forward(
            OrderedDict((name, norm(level.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)) for (name, level), norm in maps)
        )


class TimmWithFPN(nn.Module):
    """A timm backbone (``body``) and torchvision's feature pyramid (``fpn``) on its maps of strides 4, 8, 16 and 32.

    ``has_pool``: the coarsest map is pooled once more, to stride 64, as torchvision does.
    """

    def __init__(self, name: str, has_pool: bool) -> None:
        super().__init__()
        self.body = create_features(name)
        self.is_channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
        info = self.body.feature_info
        self.used = [index for index, stride in enumerate(info.reduction()) if stride in TIMM_STRIDES]
        channels = [info.channels()[index] for index in self.used]
        is_normed = any(isinstance(module, nn.BatchNorm2d) for module in self.body.modules())
        pyramid = FeaturePyramidNetwork if is_normed else NormedPyramid
        self.fpn = pyramid(channels, PYRAMID_CHANNELS, LastLevelMaxPool() if has_pool else None)
        self.out_channels = PYRAMID_CHANNELS

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps float [B, 256, H / stride, W / stride] by the names "0", "1", … and "pool", the finest first."""
        maps = self.body(images)
        chosen = [maps[index] for index in self.used]
        if self.is_channels_last:
            chosen = [level.permute(0, 3, 1, 2) for level in chosen]
        return self.fpn(OrderedDict((str(index), level) for index, level in enumerate(chosen)))


def build_backbone(model: str) -> nn.Module:
    """The backbone with feature pyramid of a detector of the catalogue or of timm/NAME: random, with batch norm."""
    detector = find_detector(model)
    if detector is None:
        return TimmWithFPN(timm_name(model), has_pool=True)
    if detector.library == "timm":
        return TimmWithFPN(detector.backbone, has_pool=len(detector.strides) > len(TIMM_STRIDES))
    if detector.family == "mobilenet":
        return mobilenet_backbone(
            backbone_name=detector.backbone, weights=None, fpn=True, norm_layer=nn.BatchNorm2d, trainable_layers=6
        )
    if detector.head == "v2":
        return _resnet_with_normed_pyramid(detector)
    return resnet_fpn_backbone(
        backbone_name=detector.backbone, weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )


def _resnet_with_normed_pyramid(detector: Detector) -> BackboneWithFPN:
    """The v2 backbone: as v1, with batch norm in the pyramid too."""
    body = getattr(resnet, detector.backbone)(weights=None)
    finest = body.inplanes // 8
    return BackboneWithFPN(
        body,
        return_layers={f"layer{level + 1}": str(level) for level in range(4)},
        in_channels_list=[finest * 2**level for level in range(4)],
        out_channels=PYRAMID_CHANNELS,
        norm_layer=nn.BatchNorm2d,
    )


def create_features(name: str, **arguments: Any) -> nn.Module:
    """timm's backbone ``name`` as an extractor of maps for images of any size; ``arguments`` are its create_model's.

    Raises UnsuitableBackbone for a name that timm does not know and a backbone that gives no maps.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f": did you mean {' or '.join(f'timm/{one}' for one in near)}?" if near else ""
        raise UnsuitableBackbone(f"timm has no backbone {name!r}{hint}")
    try:
        if "swin" in name:  # made for one image size unless told otherwise
            return timm.create_model(name, features_only=True, strict_img_size=False, **arguments)
        return timm.create_model(name, features_only=True, **arguments)
    except (RuntimeError, AssertionError, AttributeError, TypeError) as error:
        raise UnsuitableBackbone(f"timm/{name} gives no feature maps ({error}): choose another backbone") from error


@lru_cache(maxsize=64)
def inspect_timm(name: str) -> dict[str, Any]:
    """What timm/NAME is, without its weights: plain values, for the form.

    ``strides`` and ``channels`` of the maps used, ``has_batch_norm``, ``tagged`` (the name of its published weights,
    or "") and their ``normalization`` (mean and std of pixels in 0..1; {} for ImageNet's). Raises UnsuitableBackbone
    with the reason.
    """
    with torch.device("meta"):
        body = create_features(name)
    strides = tuple(stride for stride in body.feature_info.reduction() if stride >= TIMM_STRIDES[0])
    if strides != TIMM_STRIDES:
        raise UnsuitableBackbone(
            f"timm/{name} gives no feature pyramid: its maps must have strides {_listed(TIMM_STRIDES)}, "
            f"found {_listed(body.feature_info.reduction())}. Choose another backbone"
        )
    _check_sizes(name, body)
    config = timm.models.get_pretrained_cfg(name)
    hub_id = (config.hf_hub_id or "") if config is not None else ""
    tagged = hub_id.removeprefix("timm/") if hub_id.startswith("timm/") else ""
    chosen = zip(body.feature_info.reduction(), body.feature_info.channels(), strict=True)
    return {
        "strides": list(strides),
        "channels": [channels for stride, channels in chosen if stride in TIMM_STRIDES],
        "has_batch_norm": any(isinstance(module, nn.BatchNorm2d) for module in body.modules()),
        "tagged": tagged,
        "normalization": _normalization(config) if tagged else {},
    }


def _normalization(config: Any) -> dict[str, list[float]]:
    if tuple(config.mean) == IMAGENET_DEFAULT_MEAN and tuple(config.std) == IMAGENET_DEFAULT_STD:
        return {}
    return {"mean": list(config.mean), "std": list(config.std)}


def _check_sizes(name: str, body: nn.Module) -> None:
    """Refuse a network that cannot see images of any size."""
    try:
        maps = body.eval()(torch.zeros(1, 3, *_PROBE_SIZE, device="meta"))
    except Exception as error:  # whatever a network raises on a size it was not made for
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnsuitableBackbone(
            f"timm/{name} does not take images of any size ({reason}): choose another backbone"
        ) from error
    if len(maps) != len(body.feature_info.reduction()):
        raise UnsuitableBackbone(f"timm/{name} gives {len(maps)} maps and names others: choose another backbone")


def _listed(numbers: Any) -> str:
    return ", ".join(str(number) for number in numbers)


# --- norm layers ---


class GroupNormAct(nn.GroupNorm):
    """timm's BatchNormAct2d, with its dropout and activation, and groups of channels in place of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        return self.act(self.drop(super().forward(x)))


def freeze_batch_norm(module: nn.Module) -> int:
    """Fix statistics and weights of all batch norm below ``module``, in place; returns how many layers."""
    count = _replace_batch_norm(module, freeze_layer)
    if count:
        fold_into_convolutions(module)
    return count


def use_group_norm(module: nn.Module) -> int:
    """Put group norm in place of all batch norm below ``module``; returns how many layers.

    Groups: 32, or the largest power of two that divides the channels. (Wu and He, Group Normalization, 2018.)
    """
    return _replace_batch_norm(module, _grouped)


def _grouped(layer: nn.BatchNorm2d) -> nn.Module:
    kind = GroupNormAct if isinstance(layer, BatchNormAct2d) else nn.GroupNorm
    return kind(num_groups(layer.num_features), layer.num_features, eps=layer.eps)


def num_groups(channels: int) -> int:
    """Groups that ``channels`` are normalized in."""
    return math.gcd(MAX_NORM_GROUPS, channels)


def _replace_batch_norm(module: nn.Module, make: Callable[[nn.BatchNorm2d], nn.Module]) -> int:
    count = 0
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            made = make(child)
            if isinstance(child, BatchNormAct2d):
                made.drop, made.act = child.drop, child.act
            setattr(module, name, made)
            count += 1
        else:
            count += _replace_batch_norm(child, make)
    return count


# --- the first convolution ---


def find_stem(body: nn.Module) -> tuple[str, nn.Conv2d]:
    """The convolution that sees the image, with its name in ``body``; raises UnsuitableBackbone if there is none."""
    for name, module in body.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise UnsuitableBackbone("the backbone has no convolution that sees the image: choose another, or channels 3")


def remake_stem(body: nn.Module, channels: int) -> None:
    """Let ``body`` see images of ``channels``; its first convolution starts anew, at random."""
    name, old = find_stem(body)
    arguments = {key: getattr(old, key) for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}
    new = type(old)(channels, old.out_channels, bias=old.bias is not None, **arguments)
    if type(old) is nn.Conv2d:
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    parent, _, child = name.rpartition(".")
    setattr(body.get_submodule(parent), child, new)


def stem_weights(weights: Tensor, channels: int, gray_stem: str) -> Tensor | None:
    """Published weights [F, C, k, k] of a first convolution for ``channels``; None when it must start at random.

    For gray images: their mean over the colors, or their sum ('repeat': the answer to a picture whose three colors
    are that gray). Gray weights for color images are shared out evenly, so that gray pictures give the same answer.
    """
    if weights.shape[1] == channels:
        return weights
    if channels == 1:
        if gray_stem == "random":
            return None
        return weights.mean(1, keepdim=True) if gray_stem == "mean" else weights.sum(1, keepdim=True)
    return weights.expand(-1, channels, -1, -1) / channels if weights.shape[1] == 1 else None


# --- stages ---


def stages_from_the_top(body: nn.Module) -> list[list[str]]:
    """Names of parts of ``body`` (prefixes of parameter names), grouped by stage, the deepest first.

    ResNets have five: four layers and the stem; MobileNet six, as torchvision counts; timm's five, by resolution.
    """
    names = [name for name, _ in body.named_children()]
    if hasattr(body, "feature_info"):
        return _timm_stages(body)[::-1]
    if "layer4" in names:
        return [["layer4"], ["layer3"], ["layer2"], ["layer1"], ["conv1", "bn1"]]
    # MobileNet: a stage begins where the resolution halves (marked by torchvision), the last layer is one of its own.
    starts = [i for i, child in enumerate(body.children()) if i == 0 or getattr(child, "_is_cn", False)]
    edges = [*starts, len(names) - 1, len(names)]
    return [names[first:last] for first, last in zip(edges, edges[1:], strict=False)][::-1]


def _timm_stages(body: nn.Module) -> list[list[str]]:
    """The parts in order, cut behind each map; with four maps the stem before the first is a stage of its own."""
    units = _units(body)
    ends = [_last_unit(units, name) for name in body.feature_info.module_name()]
    if None in ends or ends != sorted(ends) or not ends:
        return [units]  # a network whose maps are no cuts through a row of parts: all or nothing
    ends[-1] = len(units) - 1  # parts behind the last map belong to it
    if len(ends) < 5 and ends[0] > 0:
        ends = [ends[0] - 1, *ends]
    starts = [0, *(end + 1 for end in ends[:-1])]
    return [units[first : end + 1] for first, end in zip(starts, ends, strict=True)]


def _units(body: nn.Module) -> list[str]:
    """Children by name, those of a sequence one by one."""
    units = []
    for name, child in body.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList) and len(child):
            units += [f"{name}.{inner}" for inner, _ in child.named_children()]
        else:
            units.append(name)
    return units


def _last_unit(units: list[str], module: str) -> int | None:
    """The last of the units that belong to a map's module; timm writes a dot of its names as an underscore."""
    wanted = module.replace(".", "_")
    flat = [unit.replace(".", "_") for unit in units]
    found = [index for index, unit in enumerate(flat) if unit == wanted or unit.startswith(f"{wanted}_")]
    return found[-1] if found else None
