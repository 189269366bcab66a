"""One project's SQLite file: opening it, the one way to write, the version gate, backups.

Deferred transactions lose writes as soon as two processes read and then write, so every write goes through
:meth:`ProjectDatabase.write`, which begins IMMEDIATE. A connection belongs to the call that opened it.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from app.errors import UserError
from app.store.migrations import SCHEMA_VERSION, migrate

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 30.0
NUM_BACKUPS = 5


class DamagedDatabase(UserError):
    """The file is not a healthy database."""


class NewerSchema(UserError):
    """The file was written by a newer version of the app."""


def journal_mode(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> str:
    """WAL, except on SQLite 3.7.0 to 3.51.2, whose WAL-reset race can corrupt a file (fixed in 3.51.3)."""
    return "DELETE" if (3, 7, 0) <= tuple(version) < (3, 51, 3) else "WAL"


class ProjectDatabase:
    """Handle of a project's database; cheap to make, holds no connection."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: Path) -> "ProjectDatabase":
        """Make a new file with the current schema."""
        path.parent.mkdir(parents=True, exist_ok=True)
        database = cls(path)
        database.open_checked()
        return database

    def open_checked(self) -> None:
        """Check health and version and bring the schema up to date, after a backup. Call once at opening."""
        is_new = not self.path.exists()
        version = self._healthy_version()
        if version > SCHEMA_VERSION:
            raise NewerSchema(
                f"{self.path} has schema {version}; Anchorage here knows schemas up to {SCHEMA_VERSION}.",
                "Update Anchorage to open this project.",
            )
        if 0 < version < SCHEMA_VERSION:
            self.backup()
        with self._connect() as db:
            db.execute(f"PRAGMA journal_mode={journal_mode()}").fetchone()
            if version < SCHEMA_VERSION or is_new:
                migrate(db)

    def _healthy_version(self) -> int:
        """The schema version of a healthy file (0 for a new one); raises DamagedDatabase."""
        try:
            with self._connect() as db:
                if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                    raise sqlite3.DatabaseError("the quick check failed")
                return db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.OperationalError:  # locked or unreadable just now, which is not damage
            raise
        except sqlite3.DatabaseError as error:
            raise damaged(self.path, error) from error

    @contextmanager
    def read(self) -> Iterator[Database]:
        """A connection for reading: one consistent view for the length of the block."""
        with self._connect() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.conn.rollback()

    @contextmanager
    def write(self) -> Iterator[Database]:
        """The one way to write: a BEGIN IMMEDIATE transaction, committed at the end, rolled back on any error."""
        with self._connect() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.conn.rollback()
                raise
            db.conn.commit()

    def backup(self) -> Path:
        """Write a compact copy to ``backups/`` beside the file and keep the newest five."""
        folder = self.path.parent / "backups"
        folder.mkdir(exist_ok=True)
        target = folder / f"project-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6:06d}.db"
        with self._connect() as db:
            db.execute("VACUUM INTO ?", [str(target)])
        for old in sorted(folder.glob("project-*.db"))[:-NUM_BACKUPS]:
            old.unlink()
        logger.info("backed up %s to %s", self.path, target)
        return target

    @contextmanager
    def _connect(self) -> Iterator[Database]:
        connection = sqlite3.connect(
            os.fspath(self.path), timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=True
        )
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA synchronous=FULL")
            yield Database(connection)
        finally:
            connection.close()


def damaged(path: Path, error: Exception) -> DamagedDatabase:
    """The error for a file that cannot be read, with the way back."""
    backup = newest_backup(path)
    hint = f"Restore the newest copy: {backup}." if backup else "There is no backup of it; its images are still there."
    return DamagedDatabase(f"{path} is damaged ({error}).", hint)


def newest_backup(path: Path) -> Path | None:
    """The newest backup of the database at ``path``, if any."""
    copies = sorted((path.parent / "backups").glob("project-*.db"))
    return copies[-1] if copies else None


def row_of(db: Database, sql: str, parameters: list[Any] | dict[str, Any] | None = None) -> sqlite3.Row | None:
    """The first row of a query, or None."""
    return db.execute(sql, parameters or []).fetchone()


def rows_of(db: Database, sql: str, parameters: list[Any] | dict[str, Any] | None = None) -> list[sqlite3.Row]:
    """All rows of a query."""
    return db.execute(sql, parameters or []).fetchall()
