"""Seconds that a detector takes for an image on this machine: measured, not guessed.

Random weights and random boxes cost what real ones do: no step of a detector depends on the values it sees, but for
how many proposals survive, which is capped.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from app.pipeline.config import RunConfig
from app.pipeline.machine import Machine, choose_machine
from app.pipeline.models.build import build_model
from app.pipeline.models.forward import Batch, compute_losses, detect, place_model

BATCH_SIZE = 2
OBJECTS_PER_IMAGE = 8
ROUNDS = 3
BUDGET_S = 20.0  # of rounds; at least one is done


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds an image, for training (forward, backward) and predicting, at ``image_size`` on ``device``."""

    train_s: float
    predict_s: float
    image_size: int
    device: str


def measure_model(config: RunConfig, should_stop: Callable[[], bool] = lambda: False) -> Timing:
    """Time the detector of ``config`` on batches of two square images, after one warm-up: medians of three rounds.

    Stops early, with what it has, when a slow machine has spent 20 seconds or it is asked to.
    """
    machine = choose_machine(config.device, config.precision)
    config = config.model_copy(update={"max_detections": config.max_detections or 100, "pretrained": "none"})
    if config.anchors == "kmeans" and not config.anchor_shapes:
        config = config.model_copy(update={"anchors": "stock"})  # as many operations, to a few percent
    model = place_model(build_model(config, 3), machine)
    batch = _random_batch(config.image_size)

    def train() -> None:
        losses = compute_losses(model, batch, machine)
        torch.stack(list(losses.values())).sum().backward()
        model.zero_grad(set_to_none=True)

    def predict() -> None:
        detect(model, batch, machine)

    model.train()
    train_s = statistics.median(_rounds(train, machine, should_stop))
    model.eval()
    predict_s = statistics.median(_rounds(predict, machine, should_stop))
    return Timing(train_s / BATCH_SIZE, predict_s / BATCH_SIZE, config.image_size, machine.describe())


def _rounds(step: Callable[[], None], machine: Machine, should_stop: Callable[[], bool]) -> Iterator[float]:
    began = time.monotonic()
    step()  # allocates memory, and chooses algorithms on a GPU
    for index in range(ROUNDS):
        if index and (should_stop() or time.monotonic() - began > BUDGET_S):
            return
        _wait_for(machine)
        start = time.perf_counter()
        step()
        _wait_for(machine)
        yield time.perf_counter() - start


def _wait_for(machine: Machine) -> None:
    if machine.device.type == "cuda":
        torch.cuda.synchronize(machine.device)


def _random_batch(size: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (BATCH_SIZE, size, size, 3), generator=generator, dtype=torch.uint8)
    return Batch(pixels, [(size, size)] * BATCH_SIZE, [_random_target(size, generator) for _ in range(BATCH_SIZE)])


def _random_target(size: int, generator: torch.Generator) -> dict[str, Any]:
    """Boxes of a tenth to a half of the image, all inside."""
    sides = size * (0.1 + 0.4 * torch.rand(OBJECTS_PER_IMAGE, 2, generator=generator))
    corners = torch.rand(OBJECTS_PER_IMAGE, 2, generator=generator) * (size - sides)
    labels = torch.randint(1, 4, (OBJECTS_PER_IMAGE,), generator=generator)
    return {"boxes": torch.cat([corners, corners + sides], dim=1), "labels": labels}
