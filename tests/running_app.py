"""``launch.py`` as a process of its own, for tests of the whole app."""

import os
import queue
import re
import subprocess
import sys
import threading
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
START_S = 60


def start_app(workspace: Path, *arguments: str) -> subprocess.Popen:
    """``launch.py`` as a process whose output can be read."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "launch.py", "--projects", str(workspace), "--no-browser", *arguments]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def wait_for_link(process: subprocess.Popen) -> str:
    """The link that ``launch.py`` prints; what it prints later is read and dropped, so that it never blocks."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    seen = []
    while (line := lines.get(timeout=START_S)) is not None:
        seen.append(line)
        if found := re.search(r"http://\S+/\?token=\S+", line):
            return found.group()
    raise AssertionError(f"launch.py ended without a link: {''.join(seen)}")


def end_job_processes(workspace: Path) -> None:
    """End the worker and the jobs that the app started detached: those that carry this workspace in their command."""
    for process in psutil.process_iter(["cmdline"]):
        if str(workspace) in (process.info["cmdline"] or []):
            process.kill()
