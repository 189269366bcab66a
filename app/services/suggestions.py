"""What a new run starts from on this machine and in this project. Loads no torch: a GPU is asked for by name."""

import logging
import platform
import shutil
import subprocess
from functools import cache
from typing import Any

from app.errors import BadRequest
from app.services import augmenting
from app.services.context import Services

logger = logging.getLogger(__name__)

_PROBE_TIMEOUT_S = 10.0


def suggested_values(services: Services, slug: str) -> dict[str, Any]:
    """Option name to value where this machine or project calls for another than the option's default.

    Raises NotFound.
    """
    steps = augmenting.load(services, slug)
    return {"augmentation": [step.model_dump(mode="json") for step in steps]}


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


def list_presets(services: Services, slug: str) -> list[dict[str, Any]]:
    """Ready-made settings: name, title, help and the full values each gives in this project."""
    return []


def preset_values(services: Services, slug: str, name: str) -> dict[str, Any]:
    """The values of a preset by name; raises BadRequest naming the known ones."""
    for preset in list_presets(services, slug):
        if preset["name"] == name:
            return preset["values"]
    known = ", ".join(preset["name"] for preset in list_presets(services, slug))
    raise BadRequest(f"There is no preset {name!r} (known: {known}).", "Choose one of them.")
