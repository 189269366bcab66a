"""Starting and ending processes alike on every system: own session or process group, no inherited sockets."""

import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

logger = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[2]  # where `python -m app…` finds the package, installed or not


def start_detached(command: Sequence[str], output: Path) -> subprocess.Popen:
    """Start a process that outlives this one; what it prints goes to the end of ``output``."""
    return _start(command, output, subprocess.DEVNULL)


def start_attached(
    command: Sequence[str], output: Path, variables: Mapping[str, str] | None = None
) -> subprocess.Popen:
    """Start a process whose standard input ends when this process dies; what it prints goes to ``output``.

    ``variables`` are put on top of this process's environment.
    """
    return _start(command, output, subprocess.PIPE, variables)


def end_tree(pid: int, *, by_force: bool) -> None:
    """End a process and all its children: ask them to terminate, or kill them. One that is gone is fine."""
    try:
        parent = psutil.Process(pid)
        processes = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        try:
            process.kill() if by_force else process.terminate()
        except psutil.NoSuchProcess:
            logger.debug("process %d was gone already", process.pid)


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this package with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def _start(
    command: Sequence[str], output: Path, standard_input: int, variables: Mapping[str, str] | None = None
) -> subprocess.Popen:
    output.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **(variables or {})}
    with output.open("ab") as file:
        return subprocess.Popen(
            list(command),
            stdin=standard_input,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=_ROOT,
            env=environment,
            close_fds=True,
            **_separation(),
        )


def _separation() -> dict[str, int | bool]:
    """Keep the new process out of our terminal's signals (Ctrl-C, a closed window)."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}
