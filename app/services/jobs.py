"""Long work as the user sees it: queued, running, stopped; and the worker that carries it out."""

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from app.errors import BadRequest, UserError
from app.jobs import logs, queue
from app.jobs.locks import is_held
from app.jobs.process import module_command, start_detached
from app.records import Job, explain_end, state_word
from app.services.context import Services
from app.store import jobs
from app.store.jobs import ACTIVE_STATES

logger = logging.getLogger(__name__)

WATCH_EVERY_S = 5.0
JOB_PROCESS = "app.services.job_process"

_started: list[subprocess.Popen] = []  # workers this process began; polled so that none stays behind as a zombie


def enqueue(services: Services, slug: str, kind: str, payload: dict[str, Any]) -> Job:
    """Queue a job of a project and see to it that a worker runs; raises NotFound."""
    job = jobs.enqueue(services.database(slug), kind, payload)
    ensure_worker(services)
    return job


def ensure_worker(services: Services) -> None:
    """Start the workspace's worker, detached from this process, unless one lives. Call after enqueueing."""
    _started[:] = [process for process in _started if process.poll() is None]
    if is_held(queue.worker_lock_path(services.workspace)):
        return
    command = module_command(JOB_PROCESS, "worker", "--projects", str(services.workspace.root))
    _started.append(start_detached(command, services.workspace.hidden("worker.log")))


def resume_at_launch(services: Services) -> None:
    """At the start of the app: settle what died with the machine, and start a worker if jobs still wait."""
    queue.settle_orphans_if_no_worker(services.workspace)
    see_to_the_queue(services)


def see_to_the_queue(services: Services) -> None:
    """Start a worker if something waits, or ran under a worker that is gone."""
    if not is_held(queue.worker_lock_path(services.workspace)) and queue.jobs_in(services.workspace, ACTIVE_STATES):
        ensure_worker(services)


def watch_queue(services: Services) -> None:
    """See to the queue every few seconds, on a thread of its own, while this process lives."""

    def watch() -> None:
        while True:
            time.sleep(WATCH_EVERY_S)
            try:
                see_to_the_queue(services)
            except Exception:  # a full disk now must not end the watch for ever
                logger.exception("the queue could not be looked at")

    threading.Thread(target=watch, name="queue watch", daemon=True).start()


def get(services: Services, slug: str, job_id: int) -> Job:
    """One job; raises NotFound."""
    return jobs.get_job(services.database(slug), job_id)


def list_jobs(services: Services, slug: str) -> list[Job]:
    """The project's jobs, newest first (the last hundred)."""
    return jobs.list_jobs(services.database(slug))


def cancel(services: Services, slug: str, job_id: int) -> Job:
    """Stop a job: a queued one at once, a running one within ten seconds. Raises NotFound, BadRequest when it ended."""
    job = jobs.request_stop(services.database(slug), job_id)
    if job.state == "stopping":
        ensure_worker(services)  # without one, a job whose process died would say "stopping" for ever
    return job


def pause(services: Services, slug: str, job_id: int) -> Job:
    """Let a job leave at a safe point, to go on later. Raises NotFound, BadRequest when it neither waits nor runs."""
    job = jobs.request_stop(services.database(slug), job_id, "paused")
    if job.state == "stopping":
        ensure_worker(services)
    return job


def start_again(services: Services, slug: str, job_id: int, states: Sequence[str]) -> Job:
    """Queue a job that ended in one of ``states`` once more; raises NotFound, BadRequest."""
    job = jobs.start_again(services.database(slug), job_id, states)
    ensure_worker(services)
    return job


def move(services: Services, slug: str, job_id: int, to: str) -> Job:
    """Move a waiting job 'up' by one place or to the 'front' of its lane, before those of other projects too.

    Raises NotFound, BadRequest for a job that does not wait.
    """
    if to not in ("up", "front"):
        raise BadRequest(f"A job is moved 'up' or to the 'front', not {to!r}.")
    job = get(services, slug, job_id)
    waiting = queue.jobs_in(services.workspace, ("queued",))
    before = [item.job.rank for item in waiting if item.lane == queue.lane_of(job.kind) and _comes_before(item, job)]
    rank = job.rank  # of the first one: it stays, but is refused when it does not wait
    if before:
        rank = (before[-2] + before[-1]) / 2 if to == "up" and len(before) > 1 else before[0] - 1
    jobs.set_rank(services.database(slug), job_id, rank)
    return get(services, slug, job_id)


def _comes_before(item: queue.Queued, job: Job) -> bool:
    return (item.job.rank, item.job.id) < (job.rank, job.id)


def log_tail(services: Services, slug: str, job_id: int) -> str:
    """The last 64 KB of a job's log."""
    return logs.read_log(services.files(slug), get(services, slug, job_id).id)


def wait_for(
    services: Services,
    slug: str,
    job_id: int,
    on_change: Callable[[Job], None] | None = None,
    timeout_s: float | None = None,
) -> Job:
    """Block until a job has ended and return it, telling ``on_change`` at each new state or progress.

    Raises BadRequest after ``timeout_s``. Sees to it that a worker lives while the job waits.
    """
    began = checked = time.monotonic()
    last: tuple[str, dict[str, Any]] | None = None
    while True:
        job = get(services, slug, job_id)
        if on_change is not None and (job.state, job.progress) != last:
            last = (job.state, job.progress)
            on_change(job)
        if job.is_finished:
            return job
        now = time.monotonic()
        if timeout_s is not None and now - began > timeout_s:
            raise BadRequest(f"Job {job_id} did not end within {timeout_s:.0f} s (it is {state_word(job.state)}).")
        if now - checked > 5:
            checked = now
            ensure_worker(services)
        time.sleep(0.2)


def wait_until_done(
    services: Services, slug: str, job_id: int, what: str, on_change: Callable[[Job], None] | None = None
) -> Job:
    """As :func:`wait_for`; raises UserError with its reason unless the job ended well. ``what`` begins the text."""
    job = wait_for(services, slug, job_id, on_change)
    if job.state != "done":
        raise UserError(f"{what} {explain_end(job.state, job.error)}.", f"The log of job {job.id} says more.")
    return job
