"""Seconds that a detector takes for an image on this machine: measured, not guessed.

Random weights and random boxes cost what real ones do: no step of a detector depends on the values it sees, but for
how many proposals survive, which is capped.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from app.pipeline.config import RunConfig, parse_config
from app.pipeline.machine import Machine, choose_machine, finish, keep_freed_memory
from app.pipeline.models.build import build_model
from app.pipeline.models.forward import Batch, compute_losses, detect, place_model, settled
from app.pipeline.train.optim import Updater
from app.pipeline.train.reference import ReferenceLoop, as_float_images

BATCH_SIZE = 2
BATCH_SIZE_ON_GPU = 8
NUM_CATEGORIES = 3
OBJECTS_PER_IMAGE = 8
ROUNDS = 3
BUDGET_S = 20.0  # of rounds; at least one is done

Step = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds an image, for training (a whole step) and predicting, at ``image_size`` on ``device``.

    ``reference_s``: the same of a plain torchvision step in float32, in turns with ours; None when not measured.
    """

    train_s: float
    predict_s: float
    image_size: int
    device: str
    reference_s: float | None = None


def measure_model(
    config: RunConfig,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    with_reference: bool = False,
    rounds: int = ROUNDS,
    budget_s: float = BUDGET_S,
) -> Timing:
    """Time the detector of ``config`` on batches of square images, after one warm-up: medians of a few rounds.

    Stops early, with what it has, when a slow machine has spent ``budget_s`` on training or predicting, or it is
    asked to.
    """
    machine = choose_machine(config.device, config.precision)
    if machine.device.type == "cpu":
        keep_freed_memory()  # as a training does, and for both alike
    config = config.model_copy(update={"max_detections": config.max_detections or 100, "pretrained": "none"})
    if config.anchors == "kmeans" and not config.anchor_shapes:
        config = config.model_copy(update={"anchors": "stock"})  # as many operations, to a few percent
    model = place_model(build_model(config, NUM_CATEGORIES), machine)
    updater = Updater(model, config, machine)
    updater.set_learning_rate(0.0)  # weights that follow noise get where arithmetic is slow
    batch_size = BATCH_SIZE_ON_GPU if machine.device.type == "cuda" else BATCH_SIZE
    batch = _random_batch(config.image_size, batch_size)

    def losses_of(waits: bool) -> tuple[Tensor, dict[str, float]]:
        losses = compute_losses(model, batch, machine, waits=waits)
        numbers = updater.read(list(losses.values()))  # as a run does, to look whether they are finite
        return torch.stack(list(losses.values())).sum(), dict(zip(losses, numbers, strict=True))

    def train() -> None:
        loss, _ = settled(model, machine, losses_of)
        updater.add(loss)
        updater.apply(batch.names)

    def predict() -> None:
        detect(model, batch, machine)

    steps: list[Step] = [train]
    if with_reference:
        at_rest = config.model_copy(update={"learning_rate": 0.0})  # as ours
        plain = ReferenceLoop(at_rest, NUM_CATEGORIES, Machine(machine.device, torch.float32))
        images = as_float_images(batch)
        steps.append(lambda: plain.step(images, batch.targets))
    model.train()
    train_s, *plain_s = _medians(steps, machine, should_stop, rounds, budget_s)
    model.eval()
    (predict_s,) = _medians([predict], machine, should_stop, rounds, budget_s)
    return Timing(
        train_s=train_s / batch_size,
        predict_s=predict_s / batch_size,
        image_size=config.image_size,
        device=machine.describe(),
        reference_s=plain_s[0] / batch_size if plain_s else None,
    )


def measure_by_values(values: dict[str, Any], **limits: Any) -> dict[str, Any]:  # noqa: ANN401 - see measure_model
    """:func:`measure_model` with plain values in and out, for another process; ``model`` is added to the timing."""
    config = parse_config(values)
    return {"model": config.model, **asdict(measure_model(config, **limits))}


def _medians(
    steps: list[Step], machine: Machine, should_stop: Callable[[], bool], rounds: int, budget_s: float
) -> list[float]:
    """The median seconds of each step, taken in turns."""
    found = list(itertools.islice(_rounds(steps, machine, should_stop, budget_s), rounds))
    return [statistics.median(one) for one in zip(*found, strict=True)]


def _rounds(
    steps: list[Step], machine: Machine, should_stop: Callable[[], bool], budget_s: float
) -> Iterator[list[float]]:
    """The seconds of each step, round after round; at least one."""
    began = time.monotonic()
    for step in steps:
        step()  # allocates memory, and chooses algorithms on a GPU
    while True:
        yield [_seconds(step, machine) for step in steps]
        if should_stop() or time.monotonic() - began > budget_s:
            return


def _seconds(step: Step, machine: Machine) -> float:
    finish(machine.device)
    start = time.perf_counter()
    step()
    finish(machine.device)
    return time.perf_counter() - start


def _random_batch(size: int, num_images: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (num_images, size, size, 3), generator=generator, dtype=torch.uint8)
    targets = [_random_target(size, generator) for _ in range(num_images)]
    return Batch(pixels, [(size, size)] * num_images, targets, ["noise"] * num_images)


def _random_target(size: int, generator: torch.Generator) -> dict[str, Any]:
    """Boxes of a tenth to a half of the image, all inside."""
    sides = size * (0.1 + 0.4 * torch.rand(OBJECTS_PER_IMAGE, 2, generator=generator))
    corners = torch.rand(OBJECTS_PER_IMAGE, 2, generator=generator) * (size - sides)
    labels = torch.randint(1, 4, (OBJECTS_PER_IMAGE,), generator=generator)
    return {"boxes": torch.cat([corners, corners + sides], dim=1), "labels": labels}
