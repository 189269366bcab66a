"""Prepared images through a detector: losses in training, detections otherwise.

The images come resized and padded, so torchvision's transform is not used; the rest of the model is.
B images, H x W the padded size; boxes are xyxy pixels of the resized image.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList

from app.pipeline.machine import Machine
from app.pipeline.models.matching import pad_targets, upload
from app.pipeline.models.proposals import Proposals

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as OpenCV and Pillow make color gray

Part = Literal["all", "rpn", "heads"]  # what of a detector learns: see app.pipeline.train.phases


@dataclass(frozen=True, eq=False)
class Batch:
    """Images of one step.

    pixels: uint8 [B, H, W, 3] RGB, padded right and below; sizes: (height, width) of each image without padding.
    targets: a dict of boxes float32 [N, 4] and labels int64 [N] in 1..K for each image; names: the images' file
    names, for messages. Both are empty when predicting.
    """

    pixels: Tensor
    sizes: list[tuple[int, int]]
    targets: list[dict[str, Tensor]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sizes)

    def split(self, size: int) -> "list[Batch]":
        """The same images in batches of at most ``size``."""
        if len(self) <= size:
            return [self]
        ranges = [slice(start, start + size) for start in range(0, len(self), size)]
        return [Batch(self.pixels[at], self.sizes[at], self.targets[at], self.names[at]) for at in ranges]


def place_model(model: FasterRCNN, machine: Machine) -> FasterRCNN:
    """Bring ``model`` to the device in the layout that is fast there; keys stay the same."""
    keep_head_outputs_in_float(model)
    return model.to(machine.device, memory_format=torch.channels_last)


def keep_head_outputs_in_float(model: FasterRCNN) -> None:
    """Scores and box offsets leave the heads as float32: in bfloat16 objectness has ties that NMS breaks at random."""
    for module in (model.rpn.head, model.roi_heads.box_predictor):
        module.register_forward_hook(_to_float)


def _to_float(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    if isinstance(outputs, torch.Tensor):
        return outputs.float()
    return type(outputs)(_to_float(module, inputs, item) for item in outputs)


def compute_losses(
    model: FasterRCNN, batch: Batch, machine: Machine, part: Part = "all", waits: bool = True
) -> dict[str, Tensor]:
    """The four losses by torchvision's names: loss_objectness, loss_rpn_box_reg, loss_classifier, loss_box_reg.

    For a ``part`` only its two: for the RPN the box head is not run, for the heads what comes before has no gradients.
    Unless it ``waits`` a GPU is asked for nothing; the head's losses are NaN then where its proposals took longer to
    find than is usual, and in a head with batch norm where there were fewer of them than places.
    """
    waits = waits or model.roi_heads.must_ask
    targets = pad_targets(batch.targets, machine.device)
    images = _to_images(model, batch, machine)
    with machine.autocast():
        with torch.set_grad_enabled(torch.is_grad_enabled() and part != "heads"):
            features = model.backbone(images.tensors)
            proposals, rpn_losses = model.rpn(images, features, targets, waits)
        if part == "rpn":
            return rpn_losses
        _, roi_losses = model.roi_heads(features, proposals, batch.sizes, targets)
    return roi_losses if part == "heads" else {**rpn_losses, **roi_losses}


def settled(
    model: nn.Module, machine: Machine, losses_of: Callable[[bool], tuple[Tensor, dict[str, float]]]
) -> tuple[Tensor, dict[str, float]]:
    """The sum of a batch's losses, to go back from, and their numbers; on a GPU with one wait, as a rule.

    ``losses_of`` makes them, waiting or not (see :func:`compute_losses`). Where its numbers tell that it should have
    waited, all is done once more, and batch norm counts what it sees then in place of what it saw before.
    """
    if machine.waits_are_free:
        return losses_of(True)
    statistics = _Statistics(model)
    loss, values = losses_of(False)
    if all(map(math.isfinite, values.values())):
        return loss, values
    del loss  # and with it what it keeps for the backward pass
    statistics.restore()
    return losses_of(True)


class _Statistics:
    """Running statistics of batch norm as they are now, copied by two operations."""

    def __init__(self, model: nn.Module) -> None:
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
        self._moments = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
        self._counts = [norm.num_batches_tracked for norm in norms]
        if norms:
            self._kept = torch.cat(self._moments), torch.stack(self._counts)

    def restore(self) -> None:
        if self._counts:
            moments, counts = self._kept
            torch._foreach_copy_(self._moments, moments.split([len(one) for one in self._moments]))
            torch._foreach_copy_(self._counts, counts.unbind())


def detect(model: FasterRCNN, batch: Batch, machine: Machine) -> list[dict[str, Tensor]]:
    """Boxes, labels and scores of each image, in its resized frame, highest score first; the model is in eval mode."""
    images = _to_images(model, batch, machine)
    with torch.inference_mode(), machine.autocast():
        features = model.backbone(images.tensors)
        proposals, _ = model.rpn(images, features, None)
        detections, _ = model.roi_heads(features, proposals, batch.sizes, None)
    return detections


def propose(model: FasterRCNN, batch: Batch, machine: Machine) -> tuple[Proposals, Tensor]:
    """What the first stage hands to the second, and the anchors [A, 4] it comes from; the model is in eval mode."""
    images = _to_images(model, batch, machine)
    with torch.inference_mode(), machine.autocast():
        features = model.backbone(images.tensors)
        proposals, _ = model.rpn(images, features, None)
        anchors = model.rpn.anchor_generator(images, list(features.values()))[0]
    return proposals, anchors


def _to_images(model: FasterRCNN, batch: Batch, machine: Machine) -> ImageList:
    """The batch as the model sees it: normalized by its own mean and deviation, gray when these are of one channel."""
    mean, std = model.transform.image_mean, model.transform.image_std
    return ImageList(normalize(batch.pixels, batch.sizes, machine.device, mean, std), batch.sizes)


def normalize(
    pixels: Tensor,
    sizes: list[tuple[int, int]],
    device: torch.device,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """uint8 [B, H, W, 3] to float32 [B, C, H, W] (channels last in memory), zero in the padding as in torchvision.

    C is the length of ``mean`` and ``std`` (of pixels in 0..1): 3, or 1 for the luminance.
    """
    # The bytes cross to the device, four times fewer than floats; a permuted view of HWC is channels-last already.
    images = upload(pixels, device).permute(0, 3, 1, 2).float()
    if len(mean) == 1 and images.shape[1] == 3:
        red, green, blue = LUMINANCE
        images = (images[:, :1] * red).add_(images[:, 1:2], alpha=green).add_(images[:, 2:], alpha=blue)
    images.sub_(_of_channels(tuple(mean), device)).div_(_of_channels(tuple(std), device))
    canvas = (images.shape[2], images.shape[3])
    if any(size != canvas for size in sizes):
        ends = upload(torch.tensor(sizes), device)
        for axis, end in zip((2, 3), ends.unbind(1), strict=True):
            shape = [-1 if at == axis else 1 for at in range(4)]
            places = torch.arange(canvas[axis - 2], device=device).view(shape)
            images.mul_(places < end.view(-1, 1, 1, 1))
    return images


@lru_cache(maxsize=16)
def _of_channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """``values`` of pixels in 0..1 as [1, C, 1, 1] of bytes; kept, so that a GPU gets them once."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).mul_(255).view(1, -1, 1, 1)
