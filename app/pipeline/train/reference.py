"""A training step as torchvision's detection references make it: what our steps are compared with."""

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import _default_anchorgen
from torchvision.ops.misc import FrozenBatchNorm2d

from app.pipeline.config import RunConfig
from app.pipeline.machine import Machine
from app.pipeline.models.anchor_generator import build_anchor_generator
from app.pipeline.models.build import construct, constructor_arguments
from app.pipeline.models.catalogue import pyramid_strides
from app.pipeline.models.forward import Batch
from app.pipeline.train.optim import make_optimizer


class ReferenceLoop:
    """torchvision's detector and the loop of its detection references: its transform, its pooler, its losses.

    Images are float lists on the host, as its data loader makes them. ``norm``: "batch" or "frozen". ``max_norm`` clips
    gradients as a run does; the references do not (0). ``is_channels_last``: in the layout that mixed precision likes;
    the references keep torch's own.
    """

    def __init__(
        self,
        config: RunConfig,
        num_categories: int,
        machine: Machine,
        norm: str = "batch",
        max_norm: float = 0.0,
        is_channels_last: bool = False,
    ) -> None:
        arguments = constructor_arguments(config, num_categories)
        strides = pyramid_strides(config.model)
        is_default = config.anchors == "stock" and len(strides) == len(_default_anchorgen().sizes)
        arguments["rpn_anchor_generator"] = (
            _default_anchorgen() if is_default else build_anchor_generator(config, strides)
        )
        self.model = construct(config.model, arguments)
        if norm == "frozen":
            _use_torchvisions_frozen_norm(self.model.backbone.body)
        layout = torch.channels_last if is_channels_last else torch.preserve_format
        self.model.to(machine.device, memory_format=layout).train()
        self.optimizer = make_optimizer(self.model, config)
        self.scaler = torch.amp.GradScaler(machine.device.type, enabled=machine.needs_scaler)
        self.machine = machine
        self.max_norm = max_norm

    def start_from(self, model: nn.Module) -> None:
        """Begin with the weights of ``model``, and leave alone what does not learn there."""
        self.model.load_state_dict(model.state_dict())
        learns = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(learns[name])

    def set_learning_rate(self, value: float) -> None:
        """For the steps from here on."""
        for group in self.optimizer.param_groups:
            group["lr"] = value

    def step(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> float:
        """One update; returns the loss."""
        loss = self.loss(images, targets)
        value = loss.item()  # the references look whether it is finite
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        if self.max_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value

    def loss(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
        """The sum of the four losses; images and targets cross to the device here, as in the references."""
        device = self.machine.device
        images = [image.to(device, non_blocking=True) for image in images]
        targets = [{name: value.to(device) for name, value in target.items()} for target in targets]
        with self.machine.autocast():
            return sum(self.model(images, targets).values())


def as_float_images(batch: Batch) -> list[Tensor]:
    """The images of a batch as torchvision takes them: float32 [3, H, W] in 0..1, without padding, on the host."""
    return [
        pixels[:height, :width].permute(2, 0, 1).float() / 255
        for pixels, (height, width) in zip(batch.pixels, batch.sizes, strict=True)
    ]


def _use_torchvisions_frozen_norm(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=child.eps))
        else:
            _use_torchvisions_frozen_norm(child)
