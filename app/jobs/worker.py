"""The workspace's one worker: starts a process per queued job, ends those that are cancelled, tells how they ended.

It is detached from the app, so jobs go on when the app is closed; when the worker itself dies, its jobs notice the end
of their standard input and leave at a safe point.
"""

import logging
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from app.errors import NotFound
from app.jobs import queue
from app.jobs.gpus import VARIABLE
from app.jobs.hangs import HeartbeatWatch
from app.jobs.locks import FileLock
from app.jobs.logs import append_warning, forget_step, output_path
from app.jobs.main import LEFT, LOST
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
PATIENCE_FOR_PAUSE_S = 60.0  # on top: a pause hurries nobody, and a step cut short comes again


@dataclass
class _Child:
    item: Queued
    process: subprocess.Popen
    stop_seen_at: float | None = None
    is_terminated: bool = False
    watch: HeartbeatWatch = field(default_factory=HeartbeatWatch)


class Worker:
    """Runs the queue of a workspace until nothing was to do for ``idle_s`` seconds.

    One training at a time, or one on each of several ``gpus`` (values of CUDA_VISIBLE_DEVICES), or one of several
    processes on all of them; one short job.
    """

    def __init__(
        self, workspace: Workspace, job_command: JobCommand, idle_s: float = IDLE_S, gpus: Sequence[str] = ()
    ) -> None:
        self.workspace = workspace
        self._gpus = list(gpus) if len(gpus) > 1 else [""]  # with one or none a job finds what there is by itself
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
            self._flag_hung(items)
            self._press(items)
            self._start(items)
        except sqlite3.OperationalError:
            logger.exception("a project could not be read or written; trying again")
            return True
        return bool(items or self._children)

    def _mark_orphans(self) -> None:
        if time.monotonic() - self._orphans_at >= ORPHANS_EVERY_S or not self._orphans_at:
            self._orphans_at = time.monotonic()
            queue.settle_orphans(self.workspace, [(c.item.slug, c.item.job.id) for c in self._children])

    def _start(self, items: list[Queued]) -> None:
        """Start queued jobs in the free places of their lanes. Jobs of a dead worker that still finish keep theirs."""
        running = [item for item in items if item.job.state != "queued"]
        running += [child.item for child in self._children]
        taken = {item.job.gpu for item in running if item.lane == "train"}
        free = {
            "train": [gpu for gpu in self._gpus if gpu not in taken],
            "short": [""] if all(item.lane != "short" for item in running) else [],
        }
        if taken and "" in {*self._gpus, *taken}:  # whoever has none of its own may use any
            free["train"] = []
        for item in items:
            if item.job.state != "queued" or not free[item.lane] or queue.is_running(item):
                continue  # the last: its process, which has queued it again, is still about to leave
            wants_all = item.job.payload.get("processes", 1) != 1
            if wants_all and (taken or len(free["train"]) < len(self._gpus)):
                free["train"] = []  # it waits until all are free; what comes behind it must not overtake it for ever
                continue
            job = jobs.claim(item.database, item.job.id, "" if wants_all else free[item.lane][0])
            if job is not None:
                free[item.lane] = [] if wants_all else free[item.lane][1:]
                self._spawn(Queued(item.slug, item.files, job))

    def _spawn(self, item: Queued) -> None:
        command = self.job_command(item.slug, item.job.id, item.job.attempt)
        variables = {VARIABLE: item.job.gpu} if item.job.gpu else {}
        forget_step(item.files, item.job.id)  # that of the attempt before: this one may die before it has any
        try:
            process = start_attached(command, output_path(item.files, item.job.id), variables)
        except OSError as error:
            jobs.fail(item.database, item.job.id, item.job.attempt, f"Its process could not be started: {error}")
            return
        self._children.append(_Child(item, process))
        logger.info("job %d of %s (%s) runs as process %d", item.job.id, item.slug, item.job.kind, process.pid)

    def _flag_hung(self, items: list[Queued]) -> None:
        """Say of jobs without a sign of life, in their logs too, that they may hang; to end them is for the user."""
        running = {(item.slug, item.job.id, item.job.attempt): item.job for item in items}
        for child in self._children:
            item = child.item
            job = running.get((item.slug, item.job.id, item.job.attempt))
            if job is None or not job.payload.get("flag_when_hung", True):
                continue
            sentence = child.watch.look(job.heartbeat_at)
            if sentence and not job.hung:
                logger.warning("job %d of %s: %s", job.id, item.slug, sentence)
                try:
                    jobs.set_hung(item.database, job.id, job.attempt, sentence)
                    append_warning(item.files, job.id, sentence)
                except jobs.JobLost:
                    logger.debug("job %d ended in this very moment", job.id)

    def _press(self, items: list[Queued]) -> None:
        """Give a job that was asked to stop time to leave, then terminate it, then kill it, children and all."""
        stopping = {(item.slug, item.job.id): item.job.stop_as for item in items if item.job.stop_as}
        for child in self._children:
            stop_as = stopping.get((child.item.slug, child.item.job.id))
            if stop_as is None:
                continue
            child.stop_seen_at = child.stop_seen_at or time.monotonic()
            waited = time.monotonic() - child.stop_seen_at - (PATIENCE_FOR_PAUSE_S if stop_as == "paused" else 0)
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
        if code not in (LOST, LEFT):
            try:
                self._settle(item, code)
            except NotFound:
                logger.warning("job %d of %s was deleted while it ran", item.job.id, item.slug)
        return True

    def _settle(self, item: Queued, code: int) -> None:
        """Write the end of a job whose process could not do it."""
        self.workspace.project(item.slug)
        now = jobs.get_job(item.database, item.job.id)
        if now.attempt != item.job.attempt or now.state not in ("running", "stopping"):
            return
        try:
            queue.settle_death(Queued(item.slug, item.files, now), describe_exit(code), is_signal=code < 0)
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
