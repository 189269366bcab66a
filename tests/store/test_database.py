"""One project's database: nothing lost with several writers, old SQLite handled, damage and newer schemas told."""

import multiprocessing
import sqlite3 as standard_sqlite
from pathlib import Path

import pytest

from app.store.database import (
    NUM_BACKUPS,
    DamagedDatabase,
    NewerSchema,
    ProjectDatabase,
    journal_mode,
    newest_backup,
    row_of,
    rows_of,
    sqlite3,
)
from app.store.migrations import SCHEMA_VERSION


@pytest.fixture
def database(tmp_path) -> ProjectDatabase:
    return ProjectDatabase.create(tmp_path / "project.db")


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ((3, 40, 1), "DELETE"),  # the interpreter's own on many systems: has the WAL-reset race
        ((3, 51, 2), "DELETE"),  # the last version with the race
        ((3, 51, 3), "WAL"),  # the first without
        ((3, 53, 0), "WAL"),
        ((3, 6, 23), "WAL"),  # older than the race; SQLite itself falls back where it has no WAL
    ],
)
def test_wal_is_used_only_where_sqlite_cannot_corrupt_it(version, mode):
    assert journal_mode(version) == mode


def test_the_gate_is_applied_to_the_file(database):
    with database.read() as db:
        assert row_of(db, "PRAGMA journal_mode")[0].upper() == journal_mode()
        assert row_of(db, "PRAGMA foreign_keys")[0] == 1


def _increment(path: str, times: int) -> None:
    database = ProjectDatabase(Path(path))
    for _ in range(times):
        with database.write() as db:
            value = int(row_of(db, "SELECT value FROM setting WHERE name = 'n'")[0])
            db.execute("UPDATE setting SET value = ? WHERE name = 'n'", [str(value + 1)])


def test_four_processes_that_read_then_write_lose_nothing(database):
    with database.write() as db:
        db["setting"].insert({"name": "n", "value": "0"})
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_increment, args=(str(database.path), 25)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    with database.read() as db:
        assert row_of(db, "SELECT value FROM setting WHERE name = 'n'")[0] == "100"


def test_an_error_inside_a_write_leaves_nothing_behind(database):
    with pytest.raises(RuntimeError), database.write() as db:
        db["setting"].insert({"name": "half", "value": "1"})
        raise RuntimeError("power cut")
    with database.read() as db:
        assert rows_of(db, "SELECT * FROM setting") == []


def test_a_reader_sees_one_moment(database):
    with database.read() as db:
        assert rows_of(db, "SELECT * FROM setting") == []
        with database.write() as other:
            other["setting"].insert({"name": "later", "value": "1"})
        assert rows_of(db, "SELECT * FROM setting") == []


@pytest.mark.parametrize(
    "row",
    [
        {"x1": 5, "y1": 0, "x2": 5, "y2": 9},  # no width
        {"x1": -1, "y1": 0, "x2": 5, "y2": 9},  # outside
        {"x1": 0, "y1": 0, "x2": float("inf"), "y2": 9},  # an infinite box kills training
        {"x1": 0, "y1": 0, "x2": float("nan"), "y2": 9},  # SQLite turns NaN into NULL
    ],
)
def test_the_schema_itself_refuses_boxes_that_break_training(database, row):
    with database.write() as db:
        db["category"].insert({"id": 1, "name": "cell", "position": 0})
        db["image"].insert(
            {
                "id": 1,
                "file_name": "a.jpg",
                "sha256": "0" * 64,
                "extension": "jpg",
                "width": 10,
                "height": 10,
                "split": "train",
                "source_key": "a",
                "coco_id": 0,
            }
        )
    with pytest.raises(sqlite3.IntegrityError), database.write() as db:
        db["annotation"].insert({"image_id": 1, "category_id": 1, **row})


def test_a_newer_schema_is_refused_by_its_number(database):
    with database.write() as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    with pytest.raises(NewerSchema, match=str(SCHEMA_VERSION + 1)):
        database.open_checked()


def test_damage_is_told_and_the_newest_backup_named(database):
    backup = database.backup()
    data = bytearray(database.path.read_bytes())
    data[100:4000] = b"\xff" * 3900
    database.path.write_bytes(data)
    with pytest.raises(DamagedDatabase) as caught:
        database.open_checked()
    assert str(backup) in caught.value.hint


def test_the_newest_five_backups_are_kept_and_readable(database):
    with database.write() as db:
        db["setting"].insert({"name": "n", "value": "1"})
    for _ in range(NUM_BACKUPS + 2):
        database.backup()
    copies = list((database.path.parent / "backups").glob("*.db"))
    assert len(copies) == NUM_BACKUPS
    with ProjectDatabase(newest_backup(database.path)).read() as db:
        assert row_of(db, "SELECT value FROM setting WHERE name = 'n'")[0] == "1"


def test_a_migration_that_fails_leaves_the_old_state(tmp_path, monkeypatch):
    path = tmp_path / "project.db"
    monkeypatch.setattr(
        "app.store.migrations._FIRST_SCHEMA", "CREATE TABLE a (x INTEGER) STRICT;\nCREATE TABLE oops (;"
    )
    with pytest.raises(sqlite3.OperationalError):
        ProjectDatabase.create(path)
    connection = standard_sqlite.connect(path)
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    connection.close()
