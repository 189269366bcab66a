"""What a job wrote: its log (rotating, for people), what its process printed beside it, such as native crashes, and
the step it was at."""

import logging
import os
import time
from pathlib import Path

from app.store.files import ProjectFiles

logger = logging.getLogger(__name__)

LINE_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"
TIME_FORMAT = "%H:%M:%S"
PAGE_BYTES = 64 * 1024
_TAIL_LINES = 40
_LINE_LENGTH = 300  # the interpreter's crash report has one of thousands


def output_path(files: ProjectFiles, job_id: int) -> Path:
    """Where the process of a job prints to; not the log itself, which rotates and so cannot be inherited."""
    return files.job_log(job_id).with_suffix(".out")


def read_log(files: ProjectFiles, job_id: int, num_bytes: int = PAGE_BYTES) -> str:
    """The last ``num_bytes`` of a job's log, across its newest rotation; empty before the first line."""
    path = files.job_log(job_id)
    text = _tail(path, num_bytes)
    if len(text) < num_bytes:
        text = _tail(path.with_name(f"{path.name}.1"), num_bytes - len(text)) + text
    return text


def append_warning(files: ProjectFiles, job_id: int, sentence: str) -> None:
    """Add a line to the log of a job that cannot write it itself; not worth an error where there is no room for it."""
    values = {"asctime": time.strftime(TIME_FORMAT), "levelname": "WARNING", "message": sentence}
    path = files.job_log(job_id)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(LINE_FORMAT % values + "\n")
    except OSError as error:
        logger.warning("the log of job %d does not tell: %s (%s)", job_id, sentence, error)


def failure_tail(files: ProjectFiles, job_id: int) -> str:
    """The last lines of the log and of the printed output: what to show for a job that died."""
    text = f"{read_log(files, job_id, 8192)}\n{_tail(output_path(files, job_id), 4096)}"
    lines = [line[:_LINE_LENGTH] for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-_TAIL_LINES:])


def write_step(files: ProjectFiles, job_id: int, step: int) -> None:
    """Note the finished step; one write of fixed length outlives the process and is never seen half done."""
    files.locks.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(files.job_step(job_id), os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{step:20d}".encode())
    finally:
        os.close(descriptor)


def read_step(files: ProjectFiles, job_id: int) -> int | None:
    """The step that an attempt noted last; None before the first."""
    path = files.job_step(job_id)
    return int(path.read_bytes()) if path.is_file() and path.stat().st_size else None


def forget_step(files: ProjectFiles, job_id: int) -> None:
    """Begin a new attempt."""
    files.job_step(job_id).unlink(missing_ok=True)


def remove_logs(files: ProjectFiles, job_id: int) -> None:
    """Delete everything a job wrote."""
    for path in files.logs.glob(f"job-{int(job_id)}.*"):
        path.unlink(missing_ok=True)
    forget_step(files, job_id)


def _tail(path: Path, num_bytes: int) -> str:
    """The end of a file as text, from a line's beginning on; empty when there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - num_bytes))
            data = file.read(num_bytes)
    except FileNotFoundError:
        return ""
    if size > num_bytes:
        data = data.partition(b"\n")[2]
    return data.decode("utf-8", "replace")
