"""How long a run will take, and how fast its model is, from what was measured on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.jobs import queue
from app.jobs.gpus import list_gpus, resolve_processes
from app.pipeline.config import RunConfig
from app.pipeline.data.resize import canvas_for
from app.pipeline.train.estimate import estimate_run
from app.services.context import Services
from app.store import timings
from app.store.files import Workspace


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of a run, images a second in training, and how many times the plain torchvision step that is (or None).

    ``image_size``: of the measurement; ``device``: what it was made on.
    """

    seconds: float
    images_per_s: float
    speedup: float | None
    image_size: int
    device: str


def estimated_pace(
    services: Services, config: RunConfig, num_images: int, sizes: Sequence[tuple[int, int]], num_valid: int
) -> Pace | None:
    """What to expect of a run with ``num_images`` an epoch; None while its model was not measured here.

    ``sizes``: (width, height) of the training images, which tell how much of the square that was measured they fill.
    """
    known = [one for one in timings.all_of(services.workspace) if one["model"] == config.model]
    if config.device != "auto":
        known = [one for one in known if one["device"].startswith("cpu") == (config.device == "cpu")]
    if not known or not sizes:
        return None
    # Of the size that is nearest, the newest.
    near = min(reversed(known), key=lambda one: abs(one["image_size"] - config.image_size))
    height, width = canvas_for(sizes, config.image_size, config.resize)
    scale = height * width / near["image_size"] ** 2
    num_gpus = 1 if near["device"].startswith("cpu") else _gpus_of(config)
    epoch_s, validation_s = num_images * near["train_s"] * scale, num_valid * near["predict_s"] * scale
    return Pace(
        seconds=estimate_run(config, epoch_s, validation_s, num_gpus=num_gpus).total,
        images_per_s=num_gpus / (near["train_s"] * scale),
        speedup=near.get("speedup"),
        image_size=near["image_size"],
        device=near["device"],
    )


def _gpus_of(config: RunConfig) -> int:
    """The GPUs that a run's processes share its images between: one for each of them, of those that there are."""
    if config.processes == 1:
        return 1
    num_gpus = len(list_gpus())
    return max(1, min(resolve_processes(config, num_gpus), num_gpus))


def is_training(workspace: Workspace) -> bool:
    """Whether a run of any project is under way, beside which nothing else is measured truly."""
    return any(item.lane == "train" for item in queue.jobs_in(workspace, ("running", "stopping")))
