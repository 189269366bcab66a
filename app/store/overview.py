"""What the Projects page says about a project, in one reading."""

from dataclasses import dataclass
from typing import Any

from sqlite_utils.utils import sqlite3

from app.store import settings
from app.store.database import ProjectDatabase, damaged, row_of, rows_of

_COUNTS = (
    "SELECT (SELECT count(*) FROM image) AS images, (SELECT count(*) FROM annotation) AS annotations,"
    " (SELECT count(*) FROM category) AS categories, (SELECT count(*) FROM run) AS runs"
)


@dataclass(frozen=True, slots=True)
class Overview:
    """Name, times (seconds since the epoch), counts and a few images of a project, for thumbnails."""

    name: str
    created_at: float
    opened_at: float
    counts: dict[str, int]
    previews: tuple[dict[str, Any], ...]  # id, sha256, rotation


def read(database: ProjectDatabase, *, num_previews: int = 4) -> Overview:
    """The overview of a project; raises DamagedDatabase when the file cannot be read."""
    try:
        with database.read() as db:
            return Overview(
                name=settings.get(db, "name", ""),
                created_at=settings.get(db, "created_at", 0.0),
                opened_at=settings.get(db, "opened_at", 0.0),
                counts={name: int(value) for name, value in dict(row_of(db, _COUNTS)).items()},
                previews=_previews(db, num_previews),
            )
    except sqlite3.DatabaseError as error:
        raise damaged(database.path, error) from error


def _previews(db: Any, number: int) -> tuple[dict[str, Any], ...]:
    sql = "SELECT id, sha256, rotation FROM image WHERE problem = '' ORDER BY num_annotations = 0, id LIMIT ?"
    return tuple(dict(row) for row in rows_of(db, sql, [number]))
