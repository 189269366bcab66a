"""How long work shows on standard error: a line that counts, on a terminal; else a line now and then."""

import sys
import time
from collections.abc import Callable

from app.records import Job

LINE_EVERY_S = 2.0  # of progress, where standard error is no terminal


def progress_of(what: str) -> Callable[[int, int], None]:
    """A line on standard error that counts up, where somebody looks at it."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done >= total else ""
            sys.stderr.write(f"\r{done} of {total} {what}{end}")
            sys.stderr.flush()

    return show


def show_job() -> Callable[[Job], None]:
    """Tell on standard error how a job goes: one line that changes on a terminal, else a line now and then."""
    last = {"state": "", "at": 0.0}

    def show(job: Job) -> None:
        is_due = time.monotonic() - last["at"] >= LINE_EVERY_S
        if job.state == last["state"] and not is_due and not sys.stderr.isatty():
            return
        last.update(state=job.state, at=time.monotonic())
        done, total = job.progress.get("done", 0), job.progress.get("total", 0)
        share = f" {100 * done / total:.0f} %" if total else ""
        text = f"{job.kind} {job.state}{share} {job.progress.get('message', '')}".rstrip()
        end = "\n" if job.is_finished or not sys.stderr.isatty() else ""
        sys.stderr.write(f"\r{text:<79}{end}" if sys.stderr.isatty() else text + end)
        sys.stderr.flush()

    return show
