"""What this machine does: images a second for a few detectors that fit it, and the speed-up over plain torchvision.

Each figure is kept at once in the workspace, where the picker of models and the form's estimate of time find it.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from app.errors import Conflict
from app.jobs.helper import HelperFailed, WarmHelper
from app.pipeline.config import parse_config
from app.services.context import Services
from app.services.models import TIMED_OPTIONS
from app.services.run_time import is_training
from app.services.suggestions import gpu_name, suggested_values
from app.store import runs, timings

MEASURE = "app.pipeline.models.measure:measure_by_values"
END_S = 115.0  # what is not measured by then is given up: two minutes in all
SPARE_S = 15.0  # a measurement is begun only if it may take so much longer than the longest one before
ROUNDS = 5
ROUNDS_S = 8.0  # of training, and of predicting; at least one round is done
# The most telling first: on a slow machine the last ones are left out.
CPU_PLAN = (
    ("fasterrcnn_resnet18_fpn", 320),
    ("fasterrcnn_mobilenet_v3_large_320_fpn", 320),
    ("fasterrcnn_resnet50_fpn", 320),
    ("fasterrcnn_resnet18_fpn", 224),
)
GPU_PLAN = (
    ("fasterrcnn_resnet50_fpn", 512),
    ("fasterrcnn_resnet18_fpn", 320),
    ("fasterrcnn_resnet50_fpn", 800),
    ("fasterrcnn_resnet50_fpn_v2", 512),
    ("fasterrcnn_resnet101_fpn", 512),
)


def run_benchmark(
    services: Services, on_progress: Callable[[int, int], None] | None = None, slug: str = ""
) -> dict[str, Any]:
    """Measure, keep and return ``models``: model, image_size, device, and per second of images ``train_images_per_s``,
    ``reference_images_per_s`` (torchvision's own step in float32) and ``speedup``; ``predict_s``, seconds an image.

    What the project ``slug`` would train, if given, comes first. ``left_out`` names what time or memory did not allow,
    with the reason. Raises HelperFailed when that is all, Conflict while a training is under way, NotFound.
    """
    if is_training(services.workspace):
        raise Conflict("A training is under way: beside it this machine is slower.", "Measure when it has ended.")
    plan, began = _plan(services, slug), time.monotonic()
    helper, found, left_out, longest_s = WarmHelper(), [], {}, 0.0
    try:
        helper.warm_up()
        for done, values in enumerate(plan):
            if on_progress is not None:
                on_progress(done, len(plan))
            name, left_s = f"{values['model']} at {values['image_size']}", END_S - (time.monotonic() - began)
            if left_s < longest_s + SPARE_S:
                left_out[name] = "no time was left"
                continue
            began_one = time.monotonic()
            try:
                timing = _measure(helper, values, left_s)
            except (ValueError, RuntimeError, OSError, HelperFailed) as error:  # out of memory, among others
                left_out[name] = str(error).split("\n")[0]
                continue
            longest_s = max(longest_s, time.monotonic() - began_one)
            if is_training(services.workspace):
                left_out[name] = "a training began meanwhile"
                continue
            timings.keep(services.workspace, timing)
            found.append(_figures(timing))
    finally:
        helper.close()
    if not found:
        raise HelperFailed(f"Nothing could be measured: {next(iter(left_out.values()))}.", "See `launch.py --doctor`.")
    if on_progress is not None:
        on_progress(len(plan), len(plan))
    return {"models": found, "left_out": left_out, "cores": os.cpu_count(), "seconds": time.monotonic() - began}


def _plan(services: Services, slug: str) -> list[dict[str, Any]]:
    """Option values of each measurement: those of the project, and those that are the same everywhere."""
    plan = [{"model": model, "image_size": size} for model, size in (GPU_PLAN if gpu_name() else CPU_PLAN)]
    own = _own_plan(services, slug) if slug else []
    known = [(one["model"], one["image_size"]) for one in own]
    return own + [one for one in plan if (one["model"], one["image_size"]) not in known]


def _own_plan(services: Services, slug: str) -> list[dict[str, Any]]:
    """What a new run of the project would have, and what its newest run had where that is another model or size."""
    suggested = parse_config(suggested_values(services, slug)).model_dump(mode="json")
    newest = [run.config for run in runs.list_runs(services.database(slug))[:1]]
    found = {}
    for config in (suggested, *newest):
        values = {name: config[name] for name in ("model", *sorted(TIMED_OPTIONS)) if name in config}
        found.setdefault((values["model"], values["image_size"]), values)
    return list(found.values())


def _measure(helper: WarmHelper, values: dict[str, Any], left_s: float) -> dict[str, Any]:
    limits = {"with_reference": True, "rounds": ROUNDS, "budget_s": ROUNDS_S}
    timing = helper.call(MEASURE, timeout_s=left_s, values=values, **limits)
    return {**timing, "speedup": timing["reference_s"] / timing["train_s"], "measured_at": time.time()}


def _figures(timing: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: timing[name] for name in ("model", "image_size", "device")},
        "train_images_per_s": 1 / timing["train_s"],
        "reference_images_per_s": 1 / timing["reference_s"],
        **{name: timing[name] for name in ("speedup", "predict_s")},
    }
