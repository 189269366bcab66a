"""The jobs of all projects of a workspace seen as one queue, and the jobs whose process died."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.errors import NotFound
from app.jobs.locks import FileLock, is_held
from app.records import Job
from app.store.database import ProjectDatabase, sqlite3
from app.store.files import ProjectFiles, Workspace
from app.store.jobs import JobLost, finish, list_jobs

logger = logging.getLogger(__name__)

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
    """Jobs of all projects in these states, oldest first. A project that cannot be read is passed over."""
    found = []
    for files in _projects(workspace):
        try:
            jobs = list_jobs(ProjectDatabase(files.database), states)
        except sqlite3.DatabaseError as error:
            logger.debug("no queue in %s: %s", files.database, error)
            continue
        found += [Queued(files.slug, files, job) for job in jobs]
    return sorted(found, key=lambda item: (item.job.created_at, item.job.id))


def is_running(item: Queued) -> bool:
    """Whether a live process holds the job."""
    return is_held(item.files.job_lock(item.job.id))


def interrupt_orphans(workspace: Workspace, own: Sequence[tuple[str, int]] = ()) -> list[Queued]:
    """Mark jobs that say running but have no live process as interrupted; those in ``own`` (slug, id) are left alone.

    Only for the holder of the worker's lock: nobody else can know that a job was not claimed a moment ago.
    """
    orphans = []
    for item in jobs_in(workspace, ("running", "stopping")):
        if (item.slug, item.job.id) in own or is_running(item):
            continue
        state = "cancelled" if item.job.is_stop_requested else "interrupted"
        try:
            finish(item.database, item.job.id, item.job.attempt, state, error=ORPHAN_REASON)
        except JobLost:
            continue  # it ended by itself in this very moment
        logger.warning("job %d of %s was orphaned: %s", item.job.id, item.slug, state)
        orphans.append(item)
    return orphans


def interrupt_orphans_if_no_worker(workspace: Workspace) -> list[Queued]:
    """The same at the start of the app: does nothing when a worker lives, because that one looks itself."""
    with FileLock(worker_lock_path(workspace)) as lock:
        return interrupt_orphans(workspace) if lock.acquire() else []


def _projects(workspace: Workspace) -> Iterator[ProjectFiles]:
    for slug in workspace.slugs():
        try:
            yield workspace.project(slug)
        except NotFound:
            logger.debug("project %s went away", slug)
