"""The GPUs that jobs can be given, without loading torch: each training gets one of its own."""

import logging
import os
import shutil
import subprocess
from collections.abc import Mapping

from app.pipeline.config import RunConfig

logger = logging.getLogger(__name__)

VARIABLE = "CUDA_VISIBLE_DEVICES"
_TIMEOUT_S = 20


def list_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """What CUDA_VISIBLE_DEVICES is for each GPU of NVIDIA's; only those that it already names, where it is set."""
    if environment.get(VARIABLE):
        return [name.strip() for name in environment[VARIABLE].split(",") if name.strip()]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=index", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("nvidia-smi does not answer: %s", error)
        return []
    return answer.stdout.split()


def resolve_processes(config: RunConfig, num_gpus: int) -> int:
    """``processes``, where 0 stands for as many as have a GPU each and share the batches of a step evenly."""
    if config.processes or config.device in ("cpu", "mps"):
        return config.processes or 1
    return max(count for count in range(1, max(1, num_gpus) + 1) if config.accumulate_batches % count == 0)
