"""The jobs of all projects of a workspace seen as one queue, and the jobs whose process died."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.errors import NotFound
from app.jobs.locks import FileLock, is_held
from app.jobs.main import GOES_ON
from app.records import Job
from app.store.database import ProjectDatabase, sqlite3
from app.store.files import ProjectFiles, Workspace
from app.store.jobs import JobLost, finish, list_jobs, requeue_dead

logger = logging.getLogger(__name__)

MAX_DEATHS = 3
ORPHAN_REASON = "The process that ran it died (the machine or the app's worker was stopped)."


@dataclass(frozen=True)
class Queued:
    """A job with the project it belongs to."""

    slug: str
    files: ProjectFiles
    job: Job

    @property
    def database(self) -> ProjectDatabase:
        return ProjectDatabase(self.files.database)

    @property
    def lane(self) -> str:
        return lane_of(self.job.kind)


def lane_of(kind: str) -> str:
    """Trainings wait for each other (the device is theirs); short work has a lane of its own and need not wait."""
    return "train" if kind == "train" else "short"


def worker_lock_path(workspace: Workspace) -> Path:
    """Held by the workspace's one worker while it lives."""
    return workspace.hidden("worker.lock")


def jobs_in(workspace: Workspace, states: Sequence[str]) -> list[Queued]:
    """Jobs of all projects in these states, in the order of their turns; a project that cannot be read is left out."""
    found = []
    for files in _projects(workspace):
        try:
            jobs = list_jobs(ProjectDatabase(files.database), states, limit=-1)
        except sqlite3.DatabaseError as error:
            logger.debug("no queue in %s: %s", files.database, error)
            continue
        found += [Queued(files.slug, files, job) for job in jobs]
    return sorted(found, key=lambda item: (item.job.rank, item.job.id))


def is_running(item: Queued) -> bool:
    """Whether a live process holds the job."""
    return is_held(item.files.job_lock(item.job.id))


def settle_death(item: Queued, reason: str, signal_step: int | None = None) -> str:
    """Write what becomes of a job whose process is gone, and return its state.

    One that was asked to stop has. A training goes on from its last checkpoint, until three attempts have died or a
    signal has ended two at the same ``signal_step``; other work is interrupted, or failed when it died of a signal or
    an exit code. Raises JobLost when the attempt is over already.
    """
    job = item.job
    where = (item.database, job.id, job.attempt)
    if job.stop_as:
        finish(*where, job.stop_as)
        return job.stop_as
    if job.kind not in GOES_ON:
        state = "interrupted" if reason == ORPHAN_REASON else "failed"
        finish(*where, state, error=reason)
        return state
    if signal_step is not None and signal_step == job.death_step:
        finish(*where, "failed", error=f"It died twice at the same step, after step {signal_step}. {reason}")
        return "failed"
    if job.num_deaths + 1 >= MAX_DEATHS:
        finish(*where, "failed", error=f"{MAX_DEATHS} attempts died. {reason}")
        return "failed"
    headline = reason.partition("\n")[0]
    requeue_dead(*where, signal_step, f"{headline} It goes on from its last checkpoint.")
    return "queued"


def settle_orphans(workspace: Workspace, own: Sequence[tuple[str, int]] = ()) -> list[Queued]:
    """Settle jobs that say running but have no live process; those in ``own`` (slug, id) are left alone.

    Only for the holder of the worker's lock: nobody else can know that a job was not claimed a moment ago.
    """
    orphans = []
    for item in jobs_in(workspace, ("running", "stopping")):
        if (item.slug, item.job.id) in own or is_running(item):
            continue
        try:
            state = settle_death(item, ORPHAN_REASON)
        except JobLost:
            continue  # it ended by itself in this very moment
        logger.warning("job %d of %s was orphaned: %s", item.job.id, item.slug, state)
        orphans.append(item)
    return orphans


def settle_orphans_if_no_worker(workspace: Workspace) -> list[Queued]:
    """The same at the start of the app: does nothing when a worker lives, because that one looks itself."""
    with FileLock(worker_lock_path(workspace)) as lock:
        return settle_orphans(workspace) if lock.acquire() else []


def _projects(workspace: Workspace) -> Iterator[ProjectFiles]:
    for slug in workspace.slugs():
        try:
            yield workspace.project(slug)
        except NotFound:
            logger.debug("project %s went away", slug)
