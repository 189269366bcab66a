"""Training runs: their rows, metrics and checkpoints.

Functions that take an open transaction (``db``) are for writers that must do several things at once or are fenced by a
job's attempt; the others open their own.
"""

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

from sqlite_utils import Database

from app.errors import NotFound
from app.records import Checkpoint, MetricPoint, Run
from app.store.database import ProjectDatabase, row_of, rows_of
from app.store.jobs import delete_job

_RUNS = """
SELECT run.id, run.job_id, run.name, job.state, run.config, run.created_at, run.epoch, job.error, job.progress,
    job.attempt, job.pid, job.hung
FROM run JOIN job ON job.id = run.job_id
"""


def create_run(db: Database, job_id: int, name: str, config: dict[str, Any]) -> int:
    """Add a run that ``job_id`` carries out and return its id; an empty name becomes "Run <id>"."""
    cursor = db.execute(
        "INSERT INTO run (job_id, name, config, created_at) VALUES (?, ?, ?, ?)",
        [job_id, name, json.dumps(config), time.time()],
    )
    run_id = int(cursor.lastrowid)
    if not name:
        db.execute("UPDATE run SET name = ? WHERE id = ?", [f"Run {run_id}", run_id])
    return run_id


def list_runs(database: ProjectDatabase) -> list[Run]:
    """All runs, newest first."""
    with database.read() as db:
        rows = rows_of(db, f"{_RUNS} ORDER BY run.id DESC")
        best = _best_by_run(db)
    return [_run(row, best.get(row["id"], {})) for row in rows]


def get_run(database: ProjectDatabase, run_id: int) -> Run:
    """One run; raises NotFound."""
    with database.read() as db:
        row = row_of(db, f"{_RUNS} WHERE run.id = ?", [run_id])
        if row is None:
            raise NotFound(f"There is no run {run_id} in this project.")
        return _run(row, _best_by_run(db).get(run_id, {}))


def rename_run(database: ProjectDatabase, run_id: int, name: str) -> None:
    """Give a run another name; raises NotFound."""
    with database.write() as db:
        if not db.execute("UPDATE run SET name = ? WHERE id = ?", [name, run_id]).rowcount:
            raise NotFound(f"There is no run {run_id} in this project.")


def delete_run(database: ProjectDatabase, run_id: int) -> None:
    """Remove a run with its metrics, checkpoints, predictions and job; the files are the caller's. Raises NotFound."""
    with database.write() as db:
        row = row_of(db, "SELECT job_id FROM run WHERE id = ?", [run_id])
        if row is None:
            raise NotFound(f"There is no run {run_id} in this project.")
        db.execute("DELETE FROM run WHERE id = ?", [run_id])
        delete_job(db, row["job_id"])


def set_epoch(db: Database, run_id: int, epoch: int) -> None:
    """Note that ``epoch`` epochs are finished; never goes back."""
    db.execute("UPDATE run SET epoch = max(epoch, ?) WHERE id = ?", [epoch, run_id])


def append_metrics(db: Database, points: Iterable[tuple[int, int, int, str, str, float, float]]) -> None:
    """Add numbers in order: (run_id, step, epoch, split, name, value, elapsed_s); every value finite."""
    db.conn.executemany(
        "INSERT INTO metric (run_id, step, epoch, split, name, value, elapsed_s) VALUES (?, ?, ?, ?, ?, ?, ?)",
        list(points),
    )


def cut_back(db: Database, run_id: int, *, step: int, judged_step: int, epoch: int) -> None:
    """Forget the numbers of later steps and validations, and later epochs: they are told anew from here on.

    Ids of the numbers that go are given out again, so whoever asks for what is newer must notice ``numbers_attempt``.
    """
    db.execute(
        "DELETE FROM metric WHERE run_id = ? AND (step > ? OR (split = 'valid' AND step > ?))",
        [run_id, step, judged_step],
    )
    db.execute("UPDATE run SET epoch = ?, numbers_attempt = numbers_attempt + 1 WHERE id = ?", [epoch, run_id])


def numbers_attempt(database: ProjectDatabase, run_id: int) -> int:
    """How often a run has begun to tell its numbers, or gone back and told some anew; 0 before the first."""
    with database.read() as db:
        row = row_of(db, "SELECT numbers_attempt FROM run WHERE id = ?", [run_id])
    return row["numbers_attempt"] if row else 0


def metrics_after(
    database: ProjectDatabase, run_id: int, after: int = 0, names: Sequence[str] | None = None, limit: int = 20_000
) -> list[MetricPoint]:
    """The numbers of a run that were written after the one with id ``after``, oldest first."""
    chosen = f"AND name IN ({', '.join('?' * len(names))})" if names is not None else ""
    with database.read() as db:
        rows = rows_of(
            db,
            f"SELECT id, run_id, step, epoch, split, name, value, elapsed_s FROM metric "
            f"WHERE run_id = ? AND id > ? {chosen} ORDER BY id LIMIT ?",
            [run_id, after, *(names or ()), limit],
        )
    return [MetricPoint(*row) for row in rows]


def put_checkpoint(
    db: Database,
    run_id: int,
    *,
    epoch: int,
    step: int,
    file_name: str,
    sha256: str,
    map50: float | None,
    f1: float | None,
    score: float | None,
    is_last: bool,
) -> int:
    """Record saved weights and return their id. A file written anew loses the predictions of its old weights."""
    db.execute("DELETE FROM checkpoint WHERE run_id = ? AND file_name = ?", [run_id, file_name])
    cursor = db.execute(
        "INSERT INTO checkpoint (run_id, epoch, step, file_name, sha256, map50, f1, score, is_last) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [run_id, epoch, step, file_name, sha256, map50, f1, score, int(is_last)],
    )
    return int(cursor.lastrowid)


def set_figures(db: Database, checkpoint_id: int, *, map50: float, f1: float) -> None:
    """What weights came to on valid that were judged only after they were recorded."""
    db.execute("UPDATE checkpoint SET map50 = ?, f1 = ? WHERE id = ?", [map50, f1, checkpoint_id])


def remove_checkpoints(db: Database, run_id: int, file_names: Sequence[str]) -> None:
    """Forget weights whose files were deleted, with their predictions."""
    for file_name in file_names:
        db.execute("DELETE FROM checkpoint WHERE run_id = ? AND file_name = ?", [run_id, file_name])


def keep_checkpoints(db: Database, run_id: int, file_names: Sequence[str]) -> None:
    """Forget all weights of a run but these, with their predictions."""
    rows = rows_of(db, "SELECT file_name FROM checkpoint WHERE run_id = ?", [run_id])
    remove_checkpoints(db, run_id, [row["file_name"] for row in rows if row["file_name"] not in set(file_names)])


def has_checkpoint(db: Database, run_id: int, file_name: str, sha256: str) -> bool:
    """Whether these very weights of a run are recorded."""
    found = row_of(
        db, "SELECT 1 FROM checkpoint WHERE run_id = ? AND file_name = ? AND sha256 = ?", [run_id, file_name, sha256]
    )
    return found is not None


def saved_step(db: Database, run_id: int) -> int:
    """The step of the newest saved state that is recorded; 0 before the first."""
    row = row_of(db, "SELECT step FROM checkpoint WHERE run_id = ? AND is_last", [run_id])
    return row["step"] if row else 0


def list_checkpoints(database: ProjectDatabase, run_id: int) -> list[Checkpoint]:
    """Kept checkpoints of a run: best score first, the last one behind those that have a score."""
    with database.read() as db:
        rows = rows_of(
            db,
            "SELECT * FROM checkpoint WHERE run_id = ? ORDER BY is_last, score IS NULL, score DESC, epoch DESC",
            [run_id],
        )
    return [_checkpoint(row) for row in rows]


def get_checkpoint(database: ProjectDatabase, checkpoint_id: int) -> Checkpoint:
    """One checkpoint; raises NotFound."""
    with database.read() as db:
        row = row_of(db, "SELECT * FROM checkpoint WHERE id = ?", [checkpoint_id])
    if row is None:
        raise NotFound(f"There is no checkpoint {checkpoint_id} in this project.", "It may have been replaced.")
    return _checkpoint(row)


def checkpoint_id_of(db: Database, run_id: int, file_name: str) -> int | None:
    """The id of a run's checkpoint by its file, or None."""
    row = row_of(db, "SELECT id FROM checkpoint WHERE run_id = ? AND file_name = ?", [run_id, file_name])
    return row["id"] if row else None


def _best_by_run(db: Database) -> dict[int, dict[str, float]]:
    rows = rows_of(
        db, "SELECT run_id, map50, f1, score, epoch FROM checkpoint WHERE score IS NOT NULL ORDER BY score, epoch DESC"
    )
    return {row["run_id"]: {name: row[name] for name in ("map50", "f1", "score", "epoch")} for row in rows}


def _run(row: Any, best: dict[str, float]) -> Run:
    return Run(
        id=row["id"],
        job_id=row["job_id"],
        name=row["name"],
        state=row["state"],
        config=json.loads(row["config"]),
        created_at=row["created_at"],
        epoch=row["epoch"],
        error=row["error"],
        best=best,
        progress=json.loads(row["progress"]),
        attempt=row["attempt"],
        pid=row["pid"],
        hung=row["hung"],
    )


def _checkpoint(row: Any) -> Checkpoint:
    values = {name: row[name] for name in row.keys()}  # noqa: SIM118 (iterating a Row gives values)
    return Checkpoint(**{**values, "is_last": bool(values["is_last"])})
