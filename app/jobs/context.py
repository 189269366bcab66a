"""What a job's handler gets: its project, its payload, and how to tell its progress and hear that it must stop."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlite_utils import Database

from app.jobs.logs import write_step
from app.pipeline.faults import is_disk_full
from app.pipeline.types import Event, Log, Progress, RunContext
from app.records import Job
from app.store import jobs
from app.store.database import ProjectDatabase, sqlite3
from app.store.files import ProjectFiles, Workspace
from app.store.reserve import with_reserve

logger = logging.getLogger(__name__)

CHECK_EVERY_S = 0.4
HEARTBEAT_EVERY_S = 1.0
LEAVE_WITHIN_S = 60.0  # after the worker's death


class Stopped(Exception):
    """A handler left early because it was asked to; ``result`` is what it has so far."""

    def __init__(self, result: dict[str, Any] | None = None) -> None:
        super().__init__("stopped early")
        self.result = result or {}


class PeerDied(BaseException):
    """Another process of this job has died, so that this one must too, without a word: the queue begins again."""


class JobContext:
    """A job from the inside. ``payload`` is what was enqueued; a handler returns its result as a dict.

    A thread looks for a stop request and writes the heartbeat, but only while the handler gives signs of life (events,
    questions whether to stop), so that a hung job shows as one.
    """

    def __init__(self, workspace: Workspace, slug: str, job: Job) -> None:
        self.workspace = workspace
        self.files: ProjectFiles = workspace.project(slug)
        self.database = ProjectDatabase(self.files.database)
        self.slug = slug
        self.job = job
        self.payload = job.payload
        self.stop_reason = ""  # cancelled, paused, interrupted (the worker died) or lost (another attempt runs)
        self.on_pulse: Callable[[], None] | None = None  # called about once a second from the pulse thread
        self._is_stopping = threading.Event()
        self._is_over = threading.Event()
        self._is_alive = True
        self._failure = ""  # of the last pulse
        self._progress: dict[str, Any] | None = None
        self._pulse = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def should_stop(self) -> bool:
        """Whether to finish the step at hand, keep what is worth keeping, and leave by raising Stopped."""
        self._is_alive = True
        return self._is_stopping.is_set()

    def set_progress(self, done: float, total: float, message: str = "", eta_s: float | None = None) -> None:
        """How far the work is; written with the next pulse."""
        self._is_alive = True
        self._progress = {"done": done, "total": total, "message": message, "eta_s": eta_s}

    def emit(self, event: Event) -> None:
        """Take the events of work that is not a training: progress and log lines."""
        if isinstance(event, Progress):
            self.set_progress(event.done, event.total, event.message, event.eta_s)
        elif isinstance(event, Log):
            logger.log(logging.getLevelNamesMapping().get(event.level.upper(), logging.INFO), "%s", event.text)
        else:
            raise TypeError(f"{type(event).__name__} belongs to a training")

    def run_context(self, emit: Callable[[Event], None] | None = None) -> RunContext:
        """The pipeline's view of this job."""
        return RunContext(emit or self.emit, self.should_stop)

    @contextmanager
    def write(self) -> Iterator[Database]:
        """A write transaction that fails with JobLost once this attempt is over: the only way for a job to write."""
        with jobs.fenced_write(self.database, self.job.id, self.job.attempt) as db:
            yield db

    def start(self) -> None:
        """Begin to pulse and to watch standard input."""
        self._pulse.start()
        threading.Thread(target=self._watch_worker, name="worker watch", daemon=True).start()

    def finish(self, state: str, result: dict[str, Any] | None = None, error: str = "") -> None:
        """End the attempt, on a full disk too; raises JobLost when it is over already."""
        self._is_over.set()
        if self._pulse.is_alive():
            self._pulse.join(timeout=10)

        def write() -> None:
            if self._progress is not None:
                jobs.set_progress(self.database, self.job.id, self.job.attempt, self._progress)
            jobs.finish(self.database, self.job.id, self.job.attempt, state, result, error)

        with_reserve(self.files.reserve, write)

    def requeue(self, error: str = "") -> None:
        """End the attempt at a safe point from which another goes on; raises JobLost when it is over already."""
        self._is_over.set()
        if self._pulse.is_alive():
            self._pulse.join(timeout=10)
        jobs.requeue(self.database, self.job.id, self.job.attempt, error)

    def note_step(self, step: int) -> None:
        """Leave word of the step that is finished, for whoever finds the process dead."""
        write_step(self.files, self.job.id, step)

    def request_stop(self, reason: str) -> None:
        """Make should_stop() true; the first reason stays."""
        if not self._is_stopping.is_set():
            self.stop_reason = reason
            self._is_stopping.set()
            logger.info("asked to stop: %s", reason)

    def _beat(self) -> None:
        last = 0.0
        while not self._is_over.wait(CHECK_EVERY_S):
            try:
                self._look_for_stop()
                if time.monotonic() - last >= HEARTBEAT_EVERY_S:
                    last = time.monotonic()
                    self._write_pulse()
                    self._failure = ""
            except jobs.JobLost:
                self.request_stop("lost")
                return
            except Exception as error:  # a full disk or a locked file now must not silence the job for ever
                self._tell_failure(error)

    def _tell_failure(self, error: Exception) -> None:
        """Say once why the job's row cannot be read or written; of a full disk the work itself finds out and tells."""
        text = f"{type(error).__name__}: {error}"
        if text == self._failure or is_disk_full(error, self.workspace.root):
            return
        self._failure = text
        is_of_the_system = isinstance(error, OSError | sqlite3.Error)
        logger.warning("Progress cannot be written down for now (%s).", error, exc_info=not is_of_the_system)

    def _look_for_stop(self) -> None:
        job = jobs.get_job(self.database, self.job.id)
        if job.attempt != self.job.attempt or job.is_finished:
            raise jobs.JobLost(f"attempt {self.job.attempt} of job {job.id} is over")
        if job.is_stop_requested:
            self.request_stop(job.stop_as)

    def _write_pulse(self) -> None:
        if self.on_pulse is not None:
            self.on_pulse()
        if self._progress is not None:
            progress, self._progress = self._progress, None
            jobs.set_progress(self.database, self.job.id, self.job.attempt, progress)
        if self._is_alive:
            self._is_alive = False
            jobs.heartbeat(self.database, self.job.id, self.job.attempt, os.getpid())

    def _watch_worker(self) -> None:
        """Standard input ends when the worker dies. Not sys.stdin: a thread waiting in it aborts the exit."""
        while os.read(0, 64):
            pass
        self.request_stop("interrupted")
        if not self._is_over.wait(LEAVE_WITHIN_S):
            logger.error("the work did not stop within %.0f s of the worker's death", LEAVE_WITHIN_S)
            logging.shutdown()
            os._exit(70)
