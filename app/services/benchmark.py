"""What this machine does: images a second for a few detectors that fit it, and the speed-up over plain torchvision.

Each figure is kept at once in the workspace, where the picker of models and the form's estimate of time find it.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from app.jobs.helper import HelperFailed, WarmHelper
from app.services.context import Services
from app.services.suggestions import gpu_name
from app.store import timings

MEASURE = "app.pipeline.models.measure:measure_by_values"
BUDGET_S = 100.0  # nothing new is begun after it: two minutes in all
ROUNDS = 5
ROUNDS_S = 8.0  # of training, and of predicting; at least one round is done
CALL_TIMEOUT_S = 115.0
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


def run_benchmark(services: Services, on_progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Measure, keep and return ``models``: model, image_size, device, and per second of images ``train_images_per_s``,
    ``reference_images_per_s`` (torchvision's own step in float32) and ``speedup``; ``predict_s``, seconds an image.

    ``left_out`` names what time or memory did not allow, with the reason. Raises HelperFailed when that is all.
    """
    plan, began = GPU_PLAN if gpu_name() else CPU_PLAN, time.monotonic()
    helper, found, left_out, longest_s = WarmHelper(), [], {}, 0.0
    try:
        for done, (model, image_size) in enumerate(plan):
            if on_progress is not None:
                on_progress(done, len(plan))
            name, began_one = f"{model} at {image_size}", time.monotonic()
            if found and began_one - began + longest_s > BUDGET_S:
                left_out[name] = "no time was left"
                continue
            try:
                timing = _measure(helper, model, image_size)
            except (RuntimeError, HelperFailed) as error:  # out of memory, among others
                left_out[name] = str(error).split("\n")[0]
                continue
            longest_s = max(longest_s, time.monotonic() - began_one)
            timings.keep(services.workspace, timing)
            found.append(_figures(timing))
    finally:
        helper.close()
    if not found:
        raise HelperFailed(f"Nothing could be measured: {next(iter(left_out.values()))}.", "See `launch.py --doctor`.")
    if on_progress is not None:
        on_progress(len(plan), len(plan))
    return {"models": found, "left_out": left_out, "cores": os.cpu_count(), "seconds": time.monotonic() - began}


def _measure(helper: WarmHelper, model: str, image_size: int) -> dict[str, Any]:
    values = {"model": model, "image_size": image_size}
    limits = {"with_reference": True, "rounds": ROUNDS, "budget_s": ROUNDS_S}
    timing = helper.call(MEASURE, timeout_s=CALL_TIMEOUT_S, values=values, **limits)
    return {**timing, "measured_at": time.time()}


def _figures(timing: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: timing[name] for name in ("model", "image_size", "device")},
        "train_images_per_s": 1 / timing["train_s"],
        "reference_images_per_s": 1 / timing["reference_s"],
        "speedup": timing["reference_s"] / timing["train_s"],
        "predict_s": timing["predict_s"],
    }
