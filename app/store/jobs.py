"""The queue of long work: one row per job.

A job belongs to an attempt. Whoever runs it may write only while that attempt is the current one and still live, so a
process that was given up for dead cannot spoil what its successor does: such a write raises JobLost.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlite_utils import Database

from app.errors import BadRequest, NotFound
from app.records import Job, state_word
from app.store.database import ProjectDatabase, row_of, rows_of

ACTIVE_STATES = ("queued", "running", "stopping")
FINAL_STATES = ("paused", "done", "failed", "cancelled", "interrupted")


class JobLost(Exception):
    """This attempt of the job is over: it was ended, or another attempt runs. Stop without writing anything."""


def enqueue(target: Database | ProjectDatabase, kind: str, payload: dict[str, Any]) -> Job:
    """Put a job at the end of the queue; with an open transaction, it is queued when that commits."""
    if isinstance(target, ProjectDatabase):
        with target.write() as db:
            return enqueue(db, kind, payload)
    cursor = target.execute(
        "INSERT INTO job (kind, payload, created_at, rank) VALUES (?, ?, ?, ?)",
        [kind, json.dumps(payload), time.time(), time.time()],
    )
    return _job(row_of(target, "SELECT * FROM job WHERE id = ?", [cursor.lastrowid]))


def get_job(database: ProjectDatabase, job_id: int) -> Job:
    """One job; raises NotFound."""
    with database.read() as db:
        row = row_of(db, "SELECT * FROM job WHERE id = ?", [job_id])
    if row is None:
        raise NotFound(f"There is no job {job_id} in this project.")
    return _job(row)


def list_jobs(
    database: ProjectDatabase, states: Sequence[str] | None = None, limit: int = 100, kind: str | None = None
) -> list[Job]:
    """Jobs, newest first; only those in ``states`` and of ``kind`` if given."""
    where = f"state IN ({', '.join('?' * len(states))})" if states is not None else "1"
    sql = f"SELECT * FROM job WHERE {where} AND (? IS NULL OR kind = ?) ORDER BY id DESC LIMIT ?"
    with database.read() as db:
        rows = rows_of(db, sql, [*(states or ()), kind, kind, limit])
    return [_job(row) for row in rows]


def claim(database: ProjectDatabase, job_id: int, gpu: str = "") -> Job | None:
    """Make a queued job the caller's: running, with the next attempt number. None when it is not queued any more."""
    with database.write() as db:
        cursor = db.execute(
            "UPDATE job SET state = 'running', attempt = attempt + 1, started_at = ?, heartbeat_at = ?, error = '', "
            "gpu = ? WHERE id = ? AND state = 'queued'",
            [time.time(), time.time(), gpu, job_id],
        )
        if not cursor.rowcount:
            return None
        return _job(row_of(db, "SELECT * FROM job WHERE id = ?", [job_id]))


@contextmanager
def fenced_write(database: ProjectDatabase, job_id: int, attempt: int) -> Iterator[Database]:
    """A write transaction that belongs to an attempt of a job; raises JobLost when that attempt is over."""
    with database.write() as db:
        _fence(db, job_id, attempt)
        yield db


def set_progress(database: ProjectDatabase, job_id: int, attempt: int, progress: dict[str, Any]) -> None:
    """Tell how far the job is: done, total, message, eta_s. Raises JobLost."""
    with fenced_write(database, job_id, attempt) as db:
        db.execute("UPDATE job SET progress = ? WHERE id = ?", [json.dumps(progress), job_id])


def heartbeat(database: ProjectDatabase, job_id: int, attempt: int, pid: int) -> None:
    """Note that the job moves, and its process. Raises JobLost."""
    with fenced_write(database, job_id, attempt) as db:
        db.execute("UPDATE job SET heartbeat_at = ?, pid = ?, hung = '' WHERE id = ?", [time.time(), pid, job_id])


def set_hung(database: ProjectDatabase, job_id: int, attempt: int, sentence: str) -> None:
    """Say that the job gives no sign of life; its next heartbeat takes that back. Raises JobLost."""
    with fenced_write(database, job_id, attempt) as db:
        db.execute("UPDATE job SET hung = ? WHERE id = ?", [sentence, job_id])


def finish(
    database: ProjectDatabase,
    job_id: int,
    attempt: int,
    state: str,
    result: dict[str, Any] | None = None,
    error: str = "",
) -> None:
    """End the attempt in a final state. Raises JobLost when it is over already.

    An interrupted attempt ended with its last heartbeat, however much later somebody noticed.
    """
    if state not in FINAL_STATES:
        raise ValueError(f"a job ends in one of {FINAL_STATES}, not {state!r}")
    with fenced_write(database, job_id, attempt) as db:
        last_seen = db.execute("SELECT coalesce(heartbeat_at, started_at) FROM job WHERE id = ?", [job_id]).fetchone()[
            0
        ]
        ended_at = last_seen if state == "interrupted" and last_seen else time.time()
        db.execute(
            "UPDATE job SET state = ?, result = ?, error = ?, ended_at = ?, pid = NULL, hung = '' WHERE id = ?",
            [state, json.dumps(result or {}), error, ended_at, job_id],
        )


def fail(database: ProjectDatabase, job_id: int, attempt: int, error: str) -> None:
    """End the attempt as failed, with the reason in words. Raises JobLost."""
    finish(database, job_id, attempt, "failed", error=error)


def requeue(database: ProjectDatabase, job_id: int, attempt: int, error: str = "") -> None:
    """End the attempt, which left at a safe point, and queue the job at its old place. Raises JobLost.

    A stop that was asked for meanwhile is obeyed instead.
    """
    with fenced_write(database, job_id, attempt) as db:
        *_, stop_as = _standing_of(db, job_id)
        if stop_as:
            db.execute("UPDATE job SET state = stop_as, pid = NULL, ended_at = ? WHERE id = ?", [time.time(), job_id])
        else:
            _queue_again(db, job_id, error)


def requeue_dead(database: ProjectDatabase, job_id: int, attempt: int, step: int | None, error: str) -> None:
    """The same after the death of the attempt's process, at ``step`` when a signal ended it. Raises JobLost."""
    with fenced_write(database, job_id, attempt) as db:
        db.execute("UPDATE job SET num_deaths = num_deaths + 1, death_step = ? WHERE id = ?", [step, job_id])
        _queue_again(db, job_id, error)


def forget_deaths(db: Database, job_id: int) -> None:
    """Count deaths from here on, in the caller's transaction: the job has got further than those that died before."""
    db.execute("UPDATE job SET num_deaths = 0 WHERE id = ?", [job_id])


def request_stop(database: ProjectDatabase, job_id: int, stop_as: str = "cancelled") -> Job:
    """Ask a job to end as 'cancelled' or 'paused': one that waits does at once, a running one is told.

    A paused job can be cancelled, and so can one that is about to pause. Raises NotFound, BadRequest.
    """
    with database.write() as db:
        name, state, wished = _standing_of(db, job_id)
        if state not in (*ACTIVE_STATES, "paused"):
            raise BadRequest(f"{name} has ended already ({state_word(state)}).")
        if wished == "cancelled" != stop_as:
            raise BadRequest(f"{name} is being stopped.")
        if state in ("queued", "paused"):
            db.execute(
                "UPDATE job SET state = ?, stop_as = ?, ended_at = ? WHERE id = ?",
                [stop_as, stop_as, time.time(), job_id],
            )
        else:
            db.execute("UPDATE job SET state = 'stopping', stop_as = ? WHERE id = ?", [stop_as, job_id])
        return _job(row_of(db, "SELECT * FROM job WHERE id = ?", [job_id]))


def start_again(database: ProjectDatabase, job_id: int, states: Sequence[str]) -> Job:
    """Put a job that ended in one of ``states`` at the end of the queue, its deaths forgotten.

    Raises NotFound, BadRequest for a job in another state.
    """
    with database.write() as db:
        name, state, _ = _standing_of(db, job_id)
        if state not in states:
            able = " or ".join(map(state_word, states))
            raise BadRequest(f"{name} is {state_word(state)}; only what is {able} can be started so.")
        db.execute(
            "UPDATE job SET rank = ?, num_deaths = 0, death_step = NULL WHERE id = ?",
            [time.time(), job_id],
        )
        _queue_again(db, job_id, "")
        return _job(row_of(db, "SELECT * FROM job WHERE id = ?", [job_id]))


def set_rank(database: ProjectDatabase, job_id: int, rank: float) -> None:
    """Move a job within the queue; raises NotFound, and BadRequest for a job that does not wait."""
    with database.write() as db:
        name, state, _ = _standing_of(db, job_id)
        if state != "queued":
            raise BadRequest(f"{name} is {state_word(state)}: only what waits can be moved.")
        db.execute("UPDATE job SET rank = ? WHERE id = ?", [rank, job_id])


def _queue_again(db: Database, job_id: int, error: str) -> None:
    db.execute(
        "UPDATE job SET state = 'queued', stop_as = '', error = ?, pid = NULL, ended_at = NULL, gpu = '', "
        "hung = '' WHERE id = ?",
        [error, job_id],
    )


def _standing_of(db: Database, job_id: int) -> tuple[str, str, str]:
    """What people call the job, its state, and the state that it was asked to end in; a training is called its run."""
    row = row_of(db, "SELECT kind, payload, state, stop_as FROM job WHERE id = ?", [job_id])
    if row is None:
        raise NotFound(f"There is no job {job_id} in this project.")
    run_id = json.loads(row["payload"]).get("run_id") if row["kind"] == "train" else None
    name = f"Job {job_id}" if run_id is None else f"Run {run_id}"
    return name, row["state"], row["stop_as"]


def set_payload(db: Database, job_id: int, payload: dict[str, Any]) -> None:
    """Complete the payload of a job that the caller's transaction has just queued."""
    db.execute("UPDATE job SET payload = ? WHERE id = ?", [json.dumps(payload), job_id])


def delete_job(db: Database, job_id: int) -> None:
    """Remove a job's row inside the caller's transaction."""
    db.execute("DELETE FROM job WHERE id = ?", [job_id])


def _fence(db: Database, job_id: int, attempt: int) -> None:
    cursor = db.execute(
        "UPDATE job SET attempt = attempt WHERE id = ? AND attempt = ? AND state IN ('running', 'stopping')",
        [job_id, attempt],
    )
    if not cursor.rowcount:
        raise JobLost(f"attempt {attempt} of job {job_id} is over")


def _job(row: Any) -> Job:
    values = {name: row[name] for name in row.keys()}  # noqa: SIM118 (iterating a Row gives values)
    for name in ("payload", "progress", "result"):
        values[name] = json.loads(values[name])
    return Job(**values)
