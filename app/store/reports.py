"""Import reports, kept for good: what each import brought, mended and left out."""

import time
from typing import Any

import orjson
from sqlite_utils import Database

from app.store.database import row_of, rows_of


def insert(db: Database, source: str, report: dict[str, Any]) -> int:
    """Keep a report; ``source`` is the name of the zip or folder. Returns its id."""
    cursor = db.execute(
        "INSERT INTO import_report (created_at, source, report) VALUES (?, ?, ?)",
        [time.time(), source, orjson.dumps(report).decode()],
    )
    return int(cursor.lastrowid)


def newest(db: Database) -> dict[str, Any] | None:
    """The last import's report with its ``id``, ``created_at`` and ``source``, or None before the first."""
    row = row_of(db, "SELECT * FROM import_report ORDER BY id DESC LIMIT 1")
    return None if row is None else _report(row)


def all_of(db: Database) -> list[dict[str, Any]]:
    """Every report, newest first."""
    return [_report(row) for row in rows_of(db, "SELECT * FROM import_report ORDER BY id DESC")]


def _report(row: Any) -> dict[str, Any]:
    values = orjson.loads(row["report"])
    return {**values, "id": row["id"], "created_at": row["created_at"], "source": row["source"]}
