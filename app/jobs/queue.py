"""The jobs of all projects of a workspace seen as one queue, and the jobs whose process died."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.errors import NotFound
from app.jobs.locks import FileLock, is_held
from app.jobs.logs import append_warning, failure_tail, read_step
from app.jobs.main import GOES_ON
from app.records import Job
from app.store.database import ProjectDatabase, sqlite3
from app.store.files import ProjectFiles, Workspace
from app.store.jobs import JobLost, finish, list_jobs, requeue_dead
from app.store.runs import saved_step

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


def settle_death(item: Queued, reason: str, is_signal: bool = False) -> str:
    """Write what becomes of a job whose process is gone, and return its state; ``reason`` says why in a sentence.

    One that was asked to stop has. A training goes on from its last checkpoint, until three attempts in a row have died
    without saving a newer state or a signal (``is_signal``) has ended two at the same step; other work is interrupted
    with its worker, and failed when it died alone. Raises JobLost when the attempt is over already.
    """
    job = item.job
    where = (item.database, job.id, job.attempt)
    if job.stop_as:
        finish(*where, job.stop_as)
        return job.stop_as
    if job.kind not in GOES_ON and reason == ORPHAN_REASON:
        finish(*where, "interrupted", error=reason)
        return "interrupted"
    step = read_step(item.files, job.id)
    why_failed = _why_failed(job, step if is_signal else None)
    if why_failed is not None:
        finish(*where, "failed", error=f"{why_failed}{reason}\n{failure_tail(item.files, job.id)}".strip())
        return "failed"
    requeue_dead(*where, step if is_signal else None, f"{reason} It goes on from its last checkpoint.")
    append_warning(item.files, job.id, _tell_death(item, reason, step))
    return "queued"


def _why_failed(job: Job, signal_step: int | None) -> str | None:
    """What to say, before the reason, of a job that does not go on after its death; None for one that does."""
    if job.kind not in GOES_ON:
        return ""
    if signal_step is not None and signal_step == job.death_step:
        return f"It died twice at the same step, after step {signal_step}. "
    if job.num_deaths + 1 >= MAX_DEATHS:
        return f"{MAX_DEATHS} attempts in a row died without saving anything new. "
    return None


def _tell_death(item: Queued, reason: str, step: int | None) -> str:
    """The sentence for the log of a training that goes on after its death."""
    with item.database.read() as db:
        saved = saved_step(db, int(item.job.payload.get("run_id", 0)))
    died = "before its first step" if step is None else f"after step {step}"
    going_on = f"going on from step {saved}" if saved else "beginning again"
    return f"The process died {died}; {going_on}, attempt {item.job.attempt + 1}. {reason}"


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
