"""Compiling what fusing and comparing need, once on a machine: ahead when the app starts, or before the first use.

A process of its own does it; another one that was started meanwhile waits for the first. Who needs it waits for the
process and says so, instead of compiling a second time beside it.
"""

import logging
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from app.jobs import compile_kernels
from app.jobs.process import module_command, start_detached
from app.services.context import Services

logger = logging.getLogger(__name__)

ONLY_ONCE = "only the first time on this machine"
LOOK_S = 0.1


def compile_ahead(services: Services) -> int:
    """Compile while nobody waits for it; blocks, at first for seconds.

    Returns the exit code of the process that does it; where it fails, whoever needs it compiles for itself.
    """
    process = _start(services, "--nice")
    process.wait()
    return _told(services, process.returncode)


def wait_until_compiled(services: Services, parts: Sequence[str], tell: Callable[[], None]) -> None:
    """See to it that some of compile_kernels.PARTS are compiled; ``tell`` is called while that takes its time.

    What it raises ends the waiting, not the compiling.
    """
    if compile_kernels.is_compiled(parts):
        return
    process = _start(services)
    while process.poll() is None:
        tell()
        time.sleep(LOOK_S)
        if compile_kernels.is_compiled(parts):
            return
    _told(services, process.returncode)


def _start(services: Services, *arguments: str) -> subprocess.Popen:
    return start_detached(module_command("app.jobs.compile_kernels", *arguments), _log(services))


def _told(services: Services, code: int) -> int:
    if code:
        logger.warning("fusing and comparing could not be compiled (exit code %d, see %s)", code, _log(services))
    return code


def _log(services: Services) -> Path:
    return services.workspace.hidden("compile.log")
