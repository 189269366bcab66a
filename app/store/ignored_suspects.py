"""Suspects of a label audit that people chose to ignore, by image."""

import time
from collections.abc import Sequence
from typing import Any

from sqlite_utils import Database

from app.errors import NotFound
from app.records import IgnoredSuspect
from app.store.database import row_of, rows_of

_COLUMNS = "id, image_id, kind, predicted_id, labeled_id, x1, y1, x2, y2, score, created_at"


def insert(
    db: Database,
    *,
    image_id: int,
    kind: str,
    predicted_id: int,
    labeled_id: int | None,
    bbox: Sequence[float],
    score: float,
) -> IgnoredSuspect:
    """Remember a suspect as ignored."""
    cursor = db.execute(
        "INSERT INTO ignored_suspect (image_id, kind, predicted_id, labeled_id, x1, y1, x2, y2, score, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [image_id, kind, predicted_id, labeled_id, *(float(value) for value in bbox), float(score), time.time()],
    )
    return _ignored(row_of(db, f"SELECT {_COLUMNS} FROM ignored_suspect WHERE id = ?", [cursor.lastrowid]))


def all_of(db: Database) -> list[IgnoredSuspect]:
    """Every ignored suspect, in order of id."""
    return [_ignored(row) for row in rows_of(db, f"SELECT {_COLUMNS} FROM ignored_suspect ORDER BY id")]


def page(db: Database, *, before: int | None, limit: int) -> list[IgnoredSuspect]:
    """At most ``limit`` ignored suspects with ids below ``before`` (None: any), newest first."""
    sql = f"SELECT {_COLUMNS} FROM ignored_suspect WHERE ? IS NULL OR id < ? ORDER BY id DESC LIMIT ?"
    return [_ignored(row) for row in rows_of(db, sql, [before, before, limit])]


def count(db: Database) -> int:
    """How many suspects are ignored."""
    return int(row_of(db, "SELECT count(*) FROM ignored_suspect")[0])


def remove(db: Database, ignored_id: int) -> None:
    """Forget that a suspect was ignored; raises NotFound."""
    cursor = db.execute("DELETE FROM ignored_suspect WHERE id = ?", [ignored_id])
    if not cursor.rowcount:
        raise NotFound(f"There is no ignored suspect {ignored_id}.", "It may have been taken back already.")


def _ignored(row: Any) -> IgnoredSuspect:
    return IgnoredSuspect(
        id=row["id"],
        image_id=row["image_id"],
        kind=row["kind"],
        predicted_id=row["predicted_id"],
        labeled_id=row["labeled_id"],
        bbox=(row["x1"], row["y1"], row["x2"], row["y2"]),
        score=row["score"],
        created_at=row["created_at"],
    )
