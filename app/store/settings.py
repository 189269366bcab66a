"""Named JSON values of a project: its name, the augmentation chain, what must be remembered between visits."""

from typing import Any

import orjson
from sqlite_utils import Database

from app.store.database import row_of


def get(db: Database, name: str, default: Any = None) -> Any:  # noqa: ANN401 - any JSON value
    """The value stored under ``name``, or ``default``."""
    row = row_of(db, "SELECT value FROM setting WHERE name = ?", [name])
    return default if row is None else orjson.loads(row["value"])


def put(db: Database, name: str, value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Store a JSON value under ``name``, replacing what was there."""
    db.execute(
        "INSERT INTO setting (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [name, orjson.dumps(value).decode()],
    )
