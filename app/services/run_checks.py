"""What a valid configuration asks for that is not here: told when the form is filled in, not by the worker."""

import platform
import shutil
from pathlib import Path

from app.errors import NotFound
from app.pipeline.config import ConfigError, RunConfig
from app.services.context import Services
from app.services.models import RUN_PREFIX, timm_problems
from app.store import runs

# Any of these is a sign of a GPU that torch may call CUDA: NVIDIA's driver, its small boards, AMD's ROCm.
_CUDA_SIGNS = (Path("/dev/nvidia0"), Path("/dev/nvhost-gpu"), Path("/dev/dxg"), Path("/dev/kfd"))


def require_runnable(services: Services, slug: str, config: RunConfig) -> None:
    """Raise ConfigError when there is anything in :func:`problems_here`."""
    problems = problems_here(services, slug, config)
    if problems:
        raise ConfigError(problems)


def problems_here(services: Services, slug: str, config: RunConfig) -> dict[str, str]:
    """Option name to why it cannot work on this machine or in this project, and what to do."""
    found = {
        "device": _device_problem(config.device),
        "precision": _precision_problem(config),
        "weights_file": _weights_problem(services, slug, config),
    }
    return {name: reason for name, reason in {**found, **timm_problems(config)}.items() if reason}


def may_have_cuda() -> bool:
    """Whether there is a sign of a GPU for CUDA; whether torch can use it only a job's process knows."""
    return shutil.which("nvidia-smi") is not None or any(path.exists() for path in _CUDA_SIGNS)


def _device_problem(device: str) -> str:
    advice = "choose 'auto' or 'cpu', or run `python launch.py --doctor`"
    if device == "cuda" and not may_have_cuda():
        return f"there is no CUDA GPU on this machine: {advice}"
    if device == "mps" and (platform.system(), platform.machine()) != ("Darwin", "arm64"):
        return f"there is no Apple GPU on this machine: {advice}"
    return ""


def _precision_problem(config: RunConfig) -> str:
    if config.precision == "float16" and (config.device == "mps" or not may_have_cuda()):
        return "float16 needs a CUDA GPU, and this run has none: choose 'auto' or 'bfloat16'"
    return ""


def _weights_problem(services: Services, slug: str, config: RunConfig) -> str:
    if config.pretrained != "file":
        return ""
    if config.weights_file.startswith(RUN_PREFIX):
        return _run_problem(services, slug, config.weights_file.removeprefix(RUN_PREFIX))
    path = Path(config.weights_file).expanduser()
    if not path.is_file():
        return f"there is no file {path} on this machine: name a .pth or .safetensors file, or run:ID"
    return ""


def _run_problem(services: Services, slug: str, number: str) -> str:
    if not number.isdecimal():
        return f"an earlier run is named run:ID with its number, such as run:3, got run:{number}"
    try:
        run = runs.get_run(services.database(slug), int(number))
    except NotFound:
        return f"there is no run {number} in this project"
    if not runs.list_checkpoints(services.database(slug), run.id):
        return f"run {number} ({run.name}) has kept no checkpoint to start from"
    return ""
