"""A training step as torchvision's detection references make it: what our steps are compared with."""

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import _default_anchorgen
from torchvision.ops.misc import FrozenBatchNorm2d

from app.pipeline.config import RunConfig
from app.pipeline.machine import Machine
from app.pipeline.models.build import construct, constructor_arguments
from app.pipeline.models.catalogue import pyramid_strides
from app.pipeline.models.forward import Batch


class ReferenceLoop:
    """torchvision's detector and the loop of its detection references: its transform, its pooler, its losses.

    Images are float lists made before the clock starts, as its data loader makes them. ``norm``: "batch" or "frozen".
    """

    def __init__(self, config: RunConfig, num_categories: int, machine: Machine, norm: str = "batch") -> None:
        arguments = constructor_arguments(config, num_categories)
        if len(pyramid_strides(config.model)) == len(_default_anchorgen().sizes):
            arguments["rpn_anchor_generator"] = _default_anchorgen()
        self.model = construct(config.model, arguments)
        if norm == "frozen":
            _use_torchvisions_frozen_norm(self.model.backbone.body)
        self.model.to(machine.device).train()
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        rate, decay = config.learning_rate, config.weight_decay
        self.optimizer = (
            torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
            if config.optimizer == "adamw"
            else torch.optim.SGD(parameters, lr=rate, momentum=config.momentum, weight_decay=decay)
        )
        self.machine = machine

    def step(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> float:
        """One update; returns the loss."""
        loss = self.loss(images, targets)
        value = loss.item()  # the references look whether it is finite
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return value

    def loss(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
        """The sum of the four losses."""
        with self.machine.autocast():
            return sum(self.model(images, targets).values())


def as_float_images(batch: Batch, device: torch.device | str = "cpu") -> list[Tensor]:
    """The images of a batch as torchvision takes them: float32 [3, H, W] in 0..1, without padding."""
    return [
        pixels[:height, :width].permute(2, 0, 1).to(device).float() / 255
        for pixels, (height, width) in zip(batch.pixels, batch.sizes, strict=True)
    ]


def _use_torchvisions_frozen_norm(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=child.eps))
        else:
            _use_torchvisions_frozen_norm(child)
