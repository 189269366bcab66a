"""The workspace's one worker: starts a process per queued job, ends those that are cancelled, tells how they ended.

It is detached from the app, so jobs go on when the app is closed; when the worker itself dies, its jobs notice the end
of their standard input and leave at a safe point.
"""

import logging
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.errors import NotFound
from app.jobs import queue
from app.jobs.locks import FileLock
from app.jobs.logs import failure_tail, output_path
from app.jobs.main import LOST
from app.jobs.process import end_tree, start_attached
from app.jobs.queue import Queued
from app.store import jobs
from app.store.database import sqlite3
from app.store.files import Workspace

logger = logging.getLogger(__name__)

JobCommand = Callable[[str, int, int], list[str]]  # (slug, job id, attempt) -> command line

POLL_S = 0.25
ORPHANS_EVERY_S = 5.0
IDLE_S = 60.0
TERMINATE_AFTER_S = 6.0  # a cancelled job had this long to finish its step, save and leave by itself
KILL_AFTER_S = 7.5


@dataclass
class _Child:
    item: Queued
    process: subprocess.Popen
    stop_seen_at: float | None = None
    is_terminated: bool = False


class Worker:
    """Runs the queue of a workspace until nothing was to do for ``idle_s`` seconds."""

    def __init__(self, workspace: Workspace, job_command: JobCommand, idle_s: float = IDLE_S) -> None:
        self.workspace = workspace
        self.job_command = job_command
        self.idle_s = idle_s
        self._children: list[_Child] = []
        self._orphans_at = 0.0
        self._lock = FileLock(queue.worker_lock_path(workspace))

    def run(self) -> bool:
        """Work until idle; False at once when another worker has the workspace."""
        while True:
            if not self._lock.acquire():
                return False
            logger.info("worker of %s begins", self.workspace.root)
            try:
                self._work_until_idle()
            finally:
                self._lock.release()
            # Whoever enqueued while the lock was still held started no worker: look once more, now that it is free.
            if not queue.jobs_in(self.workspace, ("queued",)):
                logger.info("nothing to do; the worker leaves")
                return True

    def _work_until_idle(self) -> None:
        busy_at = time.monotonic()
        while time.monotonic() - busy_at < self.idle_s:
            if self._turn():
                busy_at = time.monotonic()
            time.sleep(POLL_S)

    def _turn(self) -> bool:
        """One look at everything; whether there is anything to do or to wait for."""
        try:
            self._children = [child for child in self._children if not self._has_ended(child)]
            self._mark_orphans()
            items = queue.jobs_in(self.workspace, jobs.ACTIVE_STATES)
            self._press(items)
            self._start(items)
        except sqlite3.OperationalError:
            logger.exception("a project could not be read or written; trying again")
            return True
        return bool(items or self._children)

    def _mark_orphans(self) -> None:
        if time.monotonic() - self._orphans_at >= ORPHANS_EVERY_S or not self._orphans_at:
            self._orphans_at = time.monotonic()
            queue.interrupt_orphans(self.workspace, [(c.item.slug, c.item.job.id) for c in self._children])

    def _start(self, items: list[Queued]) -> None:
        """Start the oldest queued job of each free lane. Jobs of a dead worker that still finish keep their lane."""
        taken = {item.lane for item in items if item.job.state != "queued"} | {c.item.lane for c in self._children}
        for item in items:
            if item.job.state != "queued" or item.lane in taken:
                continue
            job = jobs.claim(item.database, item.job.id)
            if job is not None:
                taken.add(item.lane)
                self._spawn(Queued(item.slug, item.files, job))

    def _spawn(self, item: Queued) -> None:
        command = self.job_command(item.slug, item.job.id, item.job.attempt)
        try:
            process = start_attached(command, output_path(item.files, item.job.id))
        except OSError as error:
            jobs.fail(item.database, item.job.id, item.job.attempt, f"Its process could not be started: {error}")
            return
        self._children.append(_Child(item, process))
        logger.info("job %d of %s (%s) runs as process %d", item.job.id, item.slug, item.job.kind, process.pid)

    def _press(self, items: list[Queued]) -> None:
        """Give a cancelled job time to leave, then terminate it, then kill it, children and all."""
        stopping = {(item.slug, item.job.id) for item in items if item.job.is_stop_requested}
        for child in self._children:
            if (child.item.slug, child.item.job.id) not in stopping:
                continue
            child.stop_seen_at = child.stop_seen_at or time.monotonic()
            waited = time.monotonic() - child.stop_seen_at
            if waited >= KILL_AFTER_S:
                end_tree(child.process.pid, by_force=True)
            elif waited >= TERMINATE_AFTER_S and not child.is_terminated:
                child.is_terminated = True
                end_tree(child.process.pid, by_force=False)

    def _has_ended(self, child: _Child) -> bool:
        code = child.process.poll()
        if code is None:
            return False
        child.process.stdin.close()
        item = child.item
        logger.info("job %d of %s left with code %d", item.job.id, item.slug, code)
        if code != LOST:
            try:
                self._settle(item, code)
            except NotFound:
                logger.warning("job %d of %s was deleted while it ran", item.job.id, item.slug)
        return True

    def _settle(self, item: Queued, code: int) -> None:
        """Write the end of a job whose process could not do it."""
        self.workspace.project(item.slug)
        now = jobs.get_job(item.database, item.job.id)
        if now.is_finished or now.attempt != item.job.attempt:
            return
        try:
            if now.is_stop_requested:
                jobs.finish(item.database, now.id, now.attempt, "cancelled")
            else:
                reason = f"{describe_exit(code)}\n{failure_tail(item.files, now.id)}".strip()
                jobs.fail(item.database, now.id, now.attempt, reason)
        except jobs.JobLost:
            logger.debug("job %d ended in this very moment", now.id)


def describe_exit(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"Its process ended with code {code} before it was done."
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return "Its process was killed (SIGKILL): by hand, or by the system because memory ran out."
    return f"Its process crashed ({name})."
