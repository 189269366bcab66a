"""Runs with their metrics and checkpoints."""

from pathlib import Path

import pytest

from app.errors import NotFound
from app.store import jobs, runs
from app.store.database import ProjectDatabase


@pytest.fixture
def database(tmp_path: Path) -> ProjectDatabase:
    return ProjectDatabase.create(tmp_path / "project.db")


def add_run(database: ProjectDatabase, name: str = "") -> int:
    with database.write() as db:
        return runs.create_run(db, jobs.enqueue(db, "train", {}).id, name, {"epochs": 2})


def checkpoint(file_name: str, score: float | None, epoch: int = 1, is_last: bool = False, sha256: str = "a") -> dict:
    values = {"map50": score, "f1": score, "score": score}
    return {"epoch": epoch, "step": 10 * epoch, "file_name": file_name, "sha256": sha256, "is_last": is_last, **values}


def put(database: ProjectDatabase, run_id: int, **values) -> int:
    with database.write() as db:
        return runs.put_checkpoint(db, run_id, **values)


def test_state_of_a_run_is_that_of_its_job(database: ProjectDatabase) -> None:
    run_id = add_run(database)
    assert runs.get_run(database, run_id).state == "queued"
    jobs.claim(database, runs.get_run(database, run_id).job_id)
    assert runs.get_run(database, run_id).state == "running"


def test_run_without_a_name_gets_one(database: ProjectDatabase) -> None:
    run_id = add_run(database)
    assert runs.get_run(database, run_id).name == f"Run {run_id}"
    runs.rename_run(database, run_id, "small <b>")
    assert runs.list_runs(database)[0].name == "small <b>"


def test_finished_epochs_never_go_back(database: ProjectDatabase) -> None:
    run_id = add_run(database)
    for epoch in (3, 2):
        with database.write() as db:
            runs.set_epoch(db, run_id, epoch)
    assert runs.get_run(database, run_id).epoch == 3


def test_metrics_newer_than_the_last_one_seen(database: ProjectDatabase) -> None:
    run_id, other = add_run(database), add_run(database)
    with database.write() as db:
        runs.append_metrics(db, [(run_id, step, 0, "train", "loss", 1.0 / step, step / 2) for step in (1, 2, 3)])
        runs.append_metrics(db, [(other, 1, 0, "train", "loss", 9.0, 0.1), (run_id, 3, 0, "valid", "map50", 0.5, 2.0)])
    points = runs.metrics_after(database, run_id)
    assert [(point.step, point.name) for point in points] == [(1, "loss"), (2, "loss"), (3, "loss"), (3, "map50")]
    newer = runs.metrics_after(database, run_id, after=points[1].id)
    assert newer == points[2:]
    assert runs.metrics_after(database, run_id, names=["map50"]) == points[3:]
    assert runs.metrics_after(database, run_id, limit=1) == points[:1]


def test_best_is_the_checkpoint_with_the_highest_score(database: ProjectDatabase) -> None:
    run_id = add_run(database)
    assert runs.get_run(database, run_id).best == {}
    put(database, run_id, **checkpoint("a.pt", 0.4, epoch=1))
    put(database, run_id, **checkpoint("b.pt", 0.7, epoch=2))
    put(database, run_id, **checkpoint("c.pt", 0.7, epoch=3))
    put(database, run_id, **checkpoint("last.pt", None, epoch=4, is_last=True))
    assert runs.get_run(database, run_id).best == {"map50": 0.7, "f1": 0.7, "score": 0.7, "epoch": 2}
    assert [item.file_name for item in runs.list_checkpoints(database, run_id)] == ["c.pt", "b.pt", "a.pt", "last.pt"]


def test_removed_checkpoints_are_forgotten(database: ProjectDatabase) -> None:
    run_id = add_run(database)
    first = put(database, run_id, **checkpoint("a.pt", 0.4))
    with database.write() as db:
        runs.remove_checkpoints(db, run_id, ["a.pt", "never-was.pt"])
    with pytest.raises(NotFound):
        runs.get_checkpoint(database, first)


def test_predictions_of_old_weights_go_when_the_file_is_written_anew(database: ProjectDatabase) -> None:
    run_id = add_run(database)
    old = put(database, run_id, **checkpoint("last.pt", 0.4, is_last=True))
    with database.write() as db:
        db.execute(
            "INSERT INTO prediction_set (kind, run_id, checkpoint_id, split, name, snapshot_sha256, created_at) "
            "VALUES ('checkpoint', ?, ?, 'valid', 'x', 'y', 0)",
            [run_id, old],
        )
    new = put(database, run_id, **checkpoint("last.pt", 0.5, is_last=True, sha256="b"))
    with database.read() as db:
        assert db.execute("SELECT count(*) FROM prediction_set").fetchone()[0] == 0
        assert runs.checkpoint_id_of(db, run_id, "last.pt") == new
    assert runs.get_checkpoint(database, new).sha256 == "b"


def test_deleted_run_takes_everything_with_it(database: ProjectDatabase) -> None:
    run_id, other = add_run(database), add_run(database)
    put(database, run_id, **checkpoint("a.pt", 0.4))
    with database.write() as db:
        runs.append_metrics(db, [(run_id, 1, 0, "train", "loss", 1.0, 0.1)])
    runs.delete_run(database, run_id)
    with pytest.raises(NotFound):
        runs.get_run(database, run_id)
    assert runs.metrics_after(database, run_id) == []
    assert [job.id for job in jobs.list_jobs(database)] == [runs.get_run(database, other).job_id]
