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
from app.records import Job
from app.store.database import ProjectDatabase, row_of, rows_of

ACTIVE_STATES = ("queued", "running", "stopping")
FINAL_STATES = ("done", "failed", "cancelled", "interrupted")


class JobLost(Exception):
    """This attempt of the job is over: it was ended, or another attempt runs. Stop without writing anything."""


def enqueue(target: Database | ProjectDatabase, kind: str, payload: dict[str, Any]) -> Job:
    """Put a job at the end of the queue; with an open transaction, it is queued when that commits."""
    if isinstance(target, ProjectDatabase):
        with target.write() as db:
            return enqueue(db, kind, payload)
    cursor = target.execute(
        "INSERT INTO job (kind, payload, created_at) VALUES (?, ?, ?)", [kind, json.dumps(payload), time.time()]
    )
    return _job(row_of(target, "SELECT * FROM job WHERE id = ?", [cursor.lastrowid]))


def get_job(database: ProjectDatabase, job_id: int) -> Job:
    """One job; raises NotFound."""
    with database.read() as db:
        row = row_of(db, "SELECT * FROM job WHERE id = ?", [job_id])
    if row is None:
        raise NotFound(f"There is no job {job_id} in this project.")
    return _job(row)


def list_jobs(database: ProjectDatabase, states: Sequence[str] | None = None, limit: int = 100) -> list[Job]:
    """Jobs, newest first; only those in ``states`` if given."""
    where = f"WHERE state IN ({', '.join('?' * len(states))})" if states is not None else ""
    with database.read() as db:
        rows = rows_of(db, f"SELECT * FROM job {where} ORDER BY id DESC LIMIT ?", [*(states or ()), limit])
    return [_job(row) for row in rows]


def claim(database: ProjectDatabase, job_id: int) -> Job | None:
    """Make a queued job the caller's: running, with the next attempt number. None when it is not queued any more."""
    with database.write() as db:
        cursor = db.execute(
            "UPDATE job SET state = 'running', attempt = attempt + 1, started_at = ?, heartbeat_at = ?, error = '' "
            "WHERE id = ? AND state = 'queued'",
            [time.time(), time.time(), job_id],
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
        db.execute("UPDATE job SET heartbeat_at = ?, pid = ? WHERE id = ?", [time.time(), pid, job_id])


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
            "UPDATE job SET state = ?, result = ?, error = ?, ended_at = ?, pid = NULL WHERE id = ?",
            [state, json.dumps(result or {}), error, ended_at, job_id],
        )


def fail(database: ProjectDatabase, job_id: int, attempt: int, error: str) -> None:
    """End the attempt as failed, with the reason in words. Raises JobLost."""
    finish(database, job_id, attempt, "failed", error=error)


def request_stop(database: ProjectDatabase, job_id: int) -> Job:
    """Ask a job to stop: a queued one is cancelled at once, a running one is told. Raises NotFound, BadRequest."""
    with database.write() as db:
        row = row_of(db, "SELECT state FROM job WHERE id = ?", [job_id])
        if row is None:
            raise NotFound(f"There is no job {job_id} in this project.")
        if row["state"] == "queued":
            db.execute(
                "UPDATE job SET state = 'cancelled', is_stop_requested = 1, ended_at = ? WHERE id = ?",
                [time.time(), job_id],
            )
        elif row["state"] in ("running", "stopping"):
            db.execute("UPDATE job SET state = 'stopping', is_stop_requested = 1 WHERE id = ?", [job_id])
        else:
            raise BadRequest(f"Job {job_id} has ended already ({row['state']}).")
        return _job(row_of(db, "SELECT * FROM job WHERE id = ?", [job_id]))


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
    values["is_stop_requested"] = bool(values["is_stop_requested"])
    return Job(**values)
