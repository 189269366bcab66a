"""Our training step and the reference's side by side: loops, batches of noise, the arithmetic that a device has."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from app.pipeline.config import RunConfig, parse_config
from app.pipeline.machine import Machine, choose_machine
from app.pipeline.models.build import build_model, freeze_for_finetuning
from app.pipeline.models.forward import Batch, compute_losses, place_model, settled
from app.pipeline.models.measure import _random_target
from app.pipeline.train.optim import Updater, check_losses
from app.pipeline.train.reference import ReferenceLoop, as_float_images

NUM_CLASSES = 3
SHORT_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


class OurLoop:
    """Our model and step, as a run does it for one batch.

    ``num_repeated`` counts the forward passes that were done once more, as NMS was not settled (never on a CPU).
    """

    def __init__(self, config: RunConfig, num_categories: int, machine: Machine, norm: str = "batch") -> None:
        model = build_model(config, num_categories)
        if norm == "frozen":
            calibrate(model.backbone.body, config.image_size)
            freeze_for_finetuning(model, trainable_layers=5)
        self.model = place_model(model, machine).train()
        self.updater = Updater(self.model, config, machine)
        self.machine = machine
        self.num_repeated = 0

    def step(self, batch: Batch) -> float:
        """One update; returns the loss."""
        asked: list[bool] = []

        def losses_of(waits: bool) -> tuple[Tensor, dict[str, float]]:
            asked.append(waits)
            return self._losses(batch, waits)

        loss, values = settled(self.model, self.machine, losses_of)
        self.num_repeated += len(asked) - 1
        check_losses(values, batch.names)
        self.updater.add(loss)
        self.updater.apply(batch.names)
        return values["loss"]

    def loss(self, batch: Batch) -> Tensor:
        """The sum of the four losses."""
        return torch.stack(list(compute_losses(self.model, batch, self.machine).values())).sum()

    def _losses(self, batch: Batch, waits: bool) -> tuple[Tensor, dict[str, float]]:
        losses = compute_losses(self.model, batch, self.machine, waits=waits)
        loss = torch.stack(list(losses.values())).sum()
        return loss, dict(zip([*losses, "loss"], self.updater.read([*losses.values(), loss]), strict=True))


Loop = OurLoop | ReferenceLoop


@torch.no_grad()
def calibrate(body: nn.Module, size: int) -> None:
    """Statistics of noise, so that frozen norms do what they do after a pretraining: without, maps grow and grow."""
    for layer in body.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    body.train()(torch.randn(2, 3, size, size))


def build_both(config: RunConfig, machine: Machine, norm: str) -> tuple[OurLoop, ReferenceLoop]:
    """Ours and the reference's, from the same weights."""
    ours, theirs = (loop(config, NUM_CLASSES, machine, norm) for loop in (OurLoop, ReferenceLoop))
    theirs.model.load_state_dict(ours.model.state_dict())
    return ours, theirs


def loops_on(
    device: torch.device, config: RunConfig, norm: str
) -> Iterator[tuple[tuple[str, str], Callable[[], Loop]]]:
    """What is compared on a device: (whose, arithmetic), and how to build it.

    The reference in mixed precision is there in torch's own layout and channels-last ("cl").
    """
    for precision in (*half_precisions(device), "float32"):
        machine, name = choose_machine(device.type, precision), SHORT_NAMES[precision]
        parts = config, NUM_CLASSES, machine, norm
        yield ("ours", name), partial(OurLoop, *parts)
        yield ("theirs", name), partial(ReferenceLoop, *parts)
        if precision != "float32":
            yield ("theirs", f"{name} cl"), partial(ReferenceLoop, *parts, is_channels_last=True)


def half_precisions(device: torch.device) -> list[str]:
    """The mixed precisions to measure on a device: on a GPU both, but bfloat16 only where it is not emulated."""
    if device.type != "cuda":
        return ["bfloat16"]
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return ["bfloat16", "float16"] if has_bfloat16 else ["float16"]


def config_of(model: str, size: int, **values: Any) -> RunConfig:
    settings = {"optimizer": "sgd", "learning_rate": 1e-3, "pretrained": "none"}
    return parse_config({"model": model, "image_size": size, "max_detections": 100, **settings, **values})


def random_batch(size: int, num_images: int, device: torch.device, seed: int = 0) -> Batch:
    """Noise with boxes, as the loader of a run hands it over: bytes on the host, in pinned memory for a GPU."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (num_images, size, size, 3), generator=generator, dtype=torch.uint8)
    if device.type == "cuda":
        pixels = pixels.pin_memory()
    targets = [_random_target(size, generator) for _ in range(num_images)]
    return Batch(pixels, [(size, size)] * num_images, targets, ["noise"] * num_images)


def as_loaded(batch: Batch) -> list[Tensor]:
    """The same images as the reference's loader hands them over: floats on the host, pinned where ours are."""
    images = as_float_images(batch)
    return [image.pin_memory() for image in images] if batch.pixels.is_pinned() else images


def step_of(loop: Loop, batch: Batch, images: list[Tensor]) -> Callable[[], float]:
    """A step of ``loop`` on a batch, of which ``images`` are :func:`as_loaded`; the way to the device is part of it."""
    return partial(loop.step, batch) if isinstance(loop, OurLoop) else partial(loop.step, images, batch.targets)
