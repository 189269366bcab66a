"""What a new run starts from on this machine and in this project. Loads no torch: a GPU is asked for by name."""

import logging
import math
import os
import platform
import shutil
import statistics
import subprocess
from dataclasses import asdict
from functools import cache
from typing import Any

from app.errors import BadRequest
from app.pipeline import presets
from app.pipeline.models.catalogue import cached_weights
from app.services import augmenting, gray_window
from app.services.context import Services
from app.store import annotations as annotation_store
from app.store import images as image_store

logger = logging.getLogger(__name__)

_PROBE_TIMEOUT_S = 10.0


def suggested_values(services: Services, slug: str) -> dict[str, Any]:
    """Option name to value for this machine and project; options left out keep their defaults. Raises NotFound.

    The augmentation is the project's chain with its curve, the window the project's.
    """
    with services.database(slug).read() as db:
        images = {image.id: image for image in image_store.all_of(db, "train") if not image.problem}
        boxes = annotation_store.box_rows(db)
    longest = {image_id: max(image.width, image.height) for image_id, image in images.items()}
    values = presets.suggest(
        num_train_images=len(images),
        object_shares=[
            math.sqrt((x2 - x1) * (y2 - y1)) / longest[image_id]
            for image_id, _, x1, y1, x2, y2 in boxes
            if image_id in longest
        ],
        longest_side_px=int(statistics.median(longest.values())) if longest else 640,
        has_gpu=bool(gpu_name()),
        num_cores=os.cpu_count() or 1,
        cached_weights=sorted(cached_weights()),
    )
    values["augmentation"] = [step.model_dump(mode="json") for step in augmenting.load(services, slug)]
    return {
        **values,
        **augmenting.load_curve(services, slug).option_values(),
        **gray_window.option_values(services, slug),
    }


@cache
def gpu_name() -> str:
    """The first GPU by name, or "". Whether torch can use it only a job's process knows (see launch.py --doctor)."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "Apple GPU"
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("nvidia-smi does not answer: %s", error)
        return ""
    return answer.stdout.strip().partition("\n")[0]


def list_presets() -> list[dict[str, Any]]:
    """Every preset: name, title, help, source (its heading), values, and what it ``needs`` that is not here."""
    cached = cached_weights()
    return [{**asdict(preset), "needs": presets.explain_needs(preset.values, cached)} for preset in presets.PRESETS]


def starting_values(services: Services, slug: str, chosen: dict[str, Any], preset: str = "") -> dict[str, Any]:
    """``chosen`` laid over a preset, laid over what suits project, machine and the model that this makes.

    Raises BadRequest naming the known presets, NotFound.
    """
    values = {**_preset_values(preset), **chosen}
    suggested = suggested_values(services, slug)
    model = str(values.get("model", suggested["model"]))
    return {**suggested, **presets.suggest_for_model(model), **values}


def _preset_values(name: str) -> dict[str, Any]:
    if not name:
        return {}
    for preset in presets.PRESETS:
        if preset.name == name:
            return preset.values
    known = ", ".join(preset.name for preset in presets.PRESETS)
    raise BadRequest(f"There is no preset {name!r} (known: {known}).", "Choose one of them.")
