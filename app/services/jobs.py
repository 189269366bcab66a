"""Long work as the user sees it: queued, running, stopped; and the worker that carries it out."""

import logging
import subprocess
import time
from collections.abc import Callable
from typing import Any

from app.errors import BadRequest
from app.jobs import logs, queue
from app.jobs.locks import is_held
from app.jobs.process import module_command, start_detached
from app.records import Job
from app.services.context import Services
from app.store import jobs

logger = logging.getLogger(__name__)

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
    """At the start of the app: mark what died with the machine, and start a worker if jobs still wait."""
    for item in queue.interrupt_orphans_if_no_worker(services.workspace):
        logger.warning("job %d of %s was interrupted", item.job.id, item.slug)
    if queue.jobs_in(services.workspace, ("queued",)):
        ensure_worker(services)


def get(services: Services, slug: str, job_id: int) -> Job:
    """One job; raises NotFound."""
    return jobs.get_job(services.database(slug), job_id)


def list_jobs(services: Services, slug: str) -> list[Job]:
    """The project's jobs, newest first (the last hundred)."""
    return jobs.list_jobs(services.database(slug))


def cancel(services: Services, slug: str, job_id: int) -> Job:
    """Stop a job: a queued one at once, a running one within ten seconds. Raises NotFound, BadRequest when it ended."""
    job = jobs.request_stop(services.database(slug), job_id)
    if not job.is_finished:
        ensure_worker(services)  # without one, a job whose process died would say "stopping" for ever
    return job


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
            raise BadRequest(f"Job {job_id} did not end within {timeout_s:.0f} s (it is {job.state}).")
        if now - checked > 5:
            checked = now
            ensure_worker(services)
        time.sleep(0.2)
