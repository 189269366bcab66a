"""A training step as torchvision's own reference script makes it: what our steps are compared with.

Its transform, its pooler, its loops over images, an ordinary AdamW; nothing of ours but the choice of the model.
"""

import torch

from app.pipeline.config import RunConfig
from app.pipeline.machine import Machine
from app.pipeline.models import build
from app.pipeline.models.forward import Batch


class ReferenceStep:
    """A detector of ``config`` with random weights, and steps of it on our batches."""

    def __init__(self, config: RunConfig, num_categories: int, machine: Machine) -> None:
        arguments = build.constructor_arguments(config, num_categories)
        self.model = build.construct(config.model, arguments).to(machine.device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.learning_rate)
        self.machine = machine

    def step(self, batch: Batch) -> None:
        """Forward, backward, update; the images go in as a list of floats in 0..1, without padding."""
        device = self.machine.device
        images = [
            pixels[:height, :width].permute(2, 0, 1).to(device).float() / 255
            for pixels, (height, width) in zip(batch.pixels, batch.sizes, strict=True)
        ]
        targets = [{name: value.to(device) for name, value in target.items()} for target in batch.targets]
        with self.machine.autocast():
            loss = sum(self.model(images, targets).values())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
