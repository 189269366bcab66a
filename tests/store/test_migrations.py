"""Projects of earlier versions open with all they hold."""

import pytest

from app.store import ignored_suspects, jobs, predictions, runs
from app.store.database import ProjectDatabase, sqlite3
from app.store.migrations import _FIRST_SCHEMA, SCHEMA_VERSION


def write_first_schema(path):
    """A project as the first version left it: two runs with numbers and checkpoints, one asked to stop."""
    connection = sqlite3.connect(path)
    connection.executescript(_FIRST_SCHEMA)
    connection.executescript(
        """
        CREATE TABLE _sqlite_migrations (
            id INTEGER PRIMARY KEY, migration_set TEXT, name TEXT, applied_at TEXT,
            UNIQUE (migration_set, name)
        );
        INSERT INTO _sqlite_migrations (migration_set, name, applied_at)
        VALUES ('anchorage', 'm0001_first_schema', 'x');
        INSERT INTO job (id, kind, state, attempt, payload, error, is_stop_requested, created_at, started_at)
        VALUES (4, 'train', 'interrupted', 1, '{"run_id": 1}', 'the machine went off', 0, 100.5, 101.5),
               (7, 'train', 'stopping', 2, '{"run_id": 2}', '', 1, 200.5, 201.5);
        INSERT INTO run (id, job_id, name, config, created_at, epoch)
        VALUES (1, 4, 'First', '{"epochs": 3}', 100.5, 2), (2, 7, 'Second', '{"epochs": 4}', 200.5, 0);
        INSERT INTO metric (run_id, step, epoch, split, name, value, elapsed_s)
        VALUES (1, 1, 1, 'train', 'loss', 2.5, 1);
        INSERT INTO checkpoint (run_id, epoch, step, file_name, sha256, score) VALUES (1, 2, 9, 'a.pt', 'x', 0.5);
        PRAGMA user_version = 1;
        """
    )
    connection.close()


def test_project_of_the_first_schema_keeps_its_jobs_runs_and_numbers(tmp_path):
    path = tmp_path / "project.db"
    write_first_schema(path)
    database = ProjectDatabase(path)
    database.open_checked()
    first, second = runs.get_run(database, 1), runs.get_run(database, 2)
    assert (first.name, first.state, first.error, first.epoch) == ("First", "interrupted", "the machine went off", 2)
    assert (first.best["score"], runs.numbers_attempt(database, 1)) == (0.5, 0)
    assert [point.value for point in runs.metrics_after(database, 1)] == [2.5]
    assert (second.state, second.attempt) == ("stopping", 2)
    old, asked = jobs.get_job(database, 4), jobs.get_job(database, 7)
    assert (old.payload, old.rank, old.stop_as, old.started_at) == ({"run_id": 1}, 100.5, "", 101.5)
    assert (asked.stop_as, asked.num_deaths, asked.hung) == ("cancelled", 0, "")
    assert jobs.enqueue(database, "train", {}).id == 8
    assert len(list((tmp_path / "backups").iterdir())) == 1
    with database.read() as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA foreign_keys").fetchone()[0] == 1


def test_run_still_needs_its_job_after_the_rebuild(tmp_path):
    path = tmp_path / "project.db"
    write_first_schema(path)
    database = ProjectDatabase(path)
    database.open_checked()
    with pytest.raises(sqlite3.IntegrityError), database.write() as db:
        db.execute("DELETE FROM job WHERE id = 4")


def test_predictions_of_an_earlier_schema_are_kept_without_a_time(tmp_path):
    path = tmp_path / "project.db"
    write_first_schema(path)
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        INSERT INTO prediction_set (id, kind, run_id, checkpoint_id, split, name, snapshot_sha256, created_at)
        VALUES (3, 'checkpoint', 1, 1, 'valid', 'a.pt', 'x', 100.5);
        """
    )
    connection.close()
    database = ProjectDatabase(path)
    database.open_checked()
    record = predictions.get_set(database, 3)
    assert (record.name, record.ms_per_image, record.device, predictions.time_of(record)) == ("a.pt", None, "", None)


def test_project_of_an_earlier_schema_can_ignore_suspects_and_forgets_them_with_the_image(tmp_path):
    path = tmp_path / "project.db"
    write_first_schema(path)
    connection = sqlite3.connect(path)
    connection.executescript(
        f"""
        INSERT INTO category (id, name, position) VALUES (3, 'cell', 0);
        INSERT INTO image (id, file_name, sha256, extension, width, height, split, source_key, coco_id)
        VALUES (5, 'a.png', '{"a" * 64}', 'png', 9, 9, 'valid', '', 1);
        """
    )
    connection.close()
    database = ProjectDatabase(path)
    database.open_checked()
    values = {"image_id": 5, "kind": "missing_box", "predicted_id": 3, "labeled_id": None, "score": 0.5}
    with database.write() as db:
        first = ignored_suspects.insert(db, bbox=(1, 2, 3.5, 4), **values)
        second = ignored_suspects.insert(db, bbox=(0, 0, 1, 1), **values)
    with database.read() as db:
        assert ignored_suspects.all_of(db) == [first, second] and first.bbox == (1, 2, 3.5, 4)
        assert ignored_suspects.page(db, before=second.id, limit=5) == [first]
    with pytest.raises(sqlite3.IntegrityError), database.write() as db:
        ignored_suspects.insert(db, bbox=(1, 2, 3.5, 4), **{**values, "kind": "ugly"})
    with database.write() as db:
        db.execute("DELETE FROM image WHERE id = 5")
    with database.read() as db:
        assert ignored_suspects.count(db) == 0
