"""How long a run will take, from what was measured on this machine."""

from collections.abc import Sequence

from app.pipeline.config import RunConfig
from app.pipeline.data.resize import canvas_for
from app.pipeline.train.estimate import estimate_run
from app.services.context import Services
from app.store import timings


def estimated_seconds(
    services: Services, config: RunConfig, num_images: int, sizes: Sequence[tuple[int, int]], num_valid: int
) -> float | None:
    """Seconds of a run with ``num_images`` an epoch; None while its model was not measured here.

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
    return estimate_run(config, num_images * near["train_s"] * scale, num_valid * near["predict_s"] * scale).total
