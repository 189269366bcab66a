"""From a training's events to the store."""

import sys
import types
from dataclasses import dataclass

import numpy as np
import pytest

from app.jobs import handlers
from app.jobs.context import JobContext, Stopped
from app.jobs.recorder import RunRecorder
from app.pipeline.config import parse_config
from app.pipeline.types import (
    CheckpointDue,
    CheckpointSaved,
    Detections,
    Log,
    Metrics,
    PredictionsReady,
    PredictionTime,
    Progress,
    RunBegun,
)
from app.store import jobs, predictions, runs
from app.store.database import ProjectDatabase
from app.store.files import Workspace
from app.store.jobs import JobLost


@pytest.fixture
def job(tmp_path):
    """The claimed job of a run in a project of its own."""
    workspace = Workspace(tmp_path)
    files = workspace.new_project("demo")
    database = ProjectDatabase.create(files.database)
    with database.write() as db:
        row = jobs.enqueue(db, "train", {})
        jobs.set_payload(db, row.id, {"run_id": runs.create_run(db, row.id, "", {})})
    return JobContext(workspace, "demo", jobs.claim(database, row.id))


@pytest.fixture
def recorder(job):
    return RunRecorder(job, job.payload["run_id"], "sha")


def saved(file_name="a.pt", epoch=1, **changes):
    values = {"sha256": "x", "step": 10, "map50": 0.5, "f1": 0.5, "score": 0.5, "is_last": False, **changes}
    return CheckpointSaved(file_name=file_name, epoch=epoch, **values)


def ready(file_name="a.pt"):
    found = Detections(np.array([[1, 2, 3, 4]]), np.array([0.25]), np.array([1]))
    return PredictionsReady(file_name, "valid", {7: found}, PredictionTime(2.5, "cpu"))


def test_metrics_gather_and_are_written_together(job, recorder):
    recorder.emit(Metrics(1, 1, "train", {"loss": 2.0, "learning_rate": 0.1}))
    recorder.emit(Metrics(2, 1, "train", {"loss": 1.0}))
    assert runs.metrics_after(job.database, 1) == []
    recorder.flush()
    points = runs.metrics_after(job.database, 1)
    assert [(point.step, point.name, point.value) for point in points] == [
        (1, "loss", 2.0),
        (1, "learning_rate", 0.1),
        (2, "loss", 1.0),
    ]
    assert points[0].elapsed_s <= points[-1].elapsed_s
    recorder.flush()
    assert len(runs.metrics_after(job.database, 1)) == 3


def test_number_that_is_none_is_left_out(job, recorder):
    recorder.emit(Metrics(1, 1, "train", {"loss": float("nan"), "learning_rate": 0.1}))
    recorder.flush()
    assert [point.name for point in runs.metrics_after(job.database, 1)] == ["learning_rate"]


def test_epoch_is_finished_with_its_validation(job, recorder):
    recorder.emit(Metrics(30, 3, "train", {"loss": 1.0}))
    recorder.flush()
    assert runs.get_run(job.database, 1).epoch == 2
    recorder.emit(Metrics(30, 3, "valid", {"map50": 0.5}))
    recorder.flush()
    assert runs.get_run(job.database, 1).epoch == 3


def test_checkpoint_comes_after_the_numbers_before_it(job, recorder):
    recorder.emit(Metrics(10, 1, "valid", {"map50": 0.5}))
    recorder.emit(saved())
    assert [item.file_name for item in runs.list_checkpoints(job.database, 1)] == ["a.pt"]
    assert len(runs.metrics_after(job.database, 1)) == 1


def test_replaced_checkpoint_takes_its_predictions_along(job, recorder):
    recorder.emit(saved("a.pt"))
    recorder.emit(ready("a.pt"))
    (first,) = predictions.list_sets(job.database, run_id=1)
    assert (first.split, first.snapshot_sha256, first.ms_per_image, first.device) == ("valid", "sha", 2.5, "cpu")
    assert predictions.read_detections(job.database, first.id)[7].scores.tolist() == [0.25]
    recorder.emit(saved("b.pt", epoch=2, removed=("a.pt",)))
    assert predictions.list_sets(job.database, run_id=1) == []
    assert [item.file_name for item in runs.list_checkpoints(job.database, 1)] == ["b.pt"]


def test_what_was_told_beyond_the_saved_state_is_forgotten_when_the_run_goes_on(job, recorder):
    for step in (1, 2, 3):
        recorder.emit(Metrics(step, step, "train", {"loss": 1.0}))
        recorder.emit(Metrics(step, step, "valid", {"map50": 0.5}))
        recorder.emit(saved(f"{step}.pt", epoch=step, step=step))
        recorder.emit(ready(f"{step}.pt"))
    lost, rewritten = saved("lost.pt", sha256="z"), saved("1.pt", sha256="other")
    recorder.emit(RunBegun(2, 1, 1, 50.0, (rewritten, saved("2.pt", epoch=2, step=2), lost)))
    points = runs.metrics_after(job.database, 1)
    assert [(point.step, point.split) for point in points] == [(1, "train"), (1, "valid"), (2, "train")]
    assert {item.file_name: item.sha256 for item in runs.list_checkpoints(job.database, 1)} == {
        "1.pt": "other",
        "2.pt": "x",
        "lost.pt": "z",
    }
    assert [one.name for one in predictions.list_sets(job.database, run_id=1)] == ["2.pt"]
    assert runs.get_run(job.database, 1).epoch == 1
    recorder.emit(Metrics(3, 2, "train", {"loss": 1.0}))
    recorder.flush()
    assert 50 <= runs.metrics_after(job.database, 1)[-1].elapsed_s < 60


def test_numbers_are_safe_before_the_state_that_lies_behind_them(job, recorder):
    recorder.emit(Metrics(1, 1, "train", {"loss": 2.0}))
    recorder.emit(CheckpointDue())
    assert len(runs.metrics_after(job.database, 1)) == 1


def test_stale_attempt_records_nothing(job, recorder):
    with job.database.write() as db:
        db.execute("UPDATE job SET attempt = attempt + 1")
    recorder.emit(Metrics(1, 1, "train", {"loss": 2.0}))
    begun = RunBegun(0, 0, 0, 0.0)
    for write in (recorder.flush, *(lambda event=event: recorder.emit(event) for event in (saved(), ready(), begun))):
        with pytest.raises(JobLost):
            write()
    assert runs.metrics_after(job.database, 1) == []
    assert runs.list_checkpoints(job.database, 1) == []


def test_progress_and_log_go_to_the_job(job, recorder, caplog):
    recorder.emit(Progress(3, 9, "epoch 1 of 3", 12.5))
    with caplog.at_level("INFO"):
        recorder.emit(Log("Skipped: x.jpg", "warning"))
    assert caplog.records[-1].levelname == "WARNING"
    job.finish("done", {"state": "done"})
    assert jobs.get_job(job.database, job.job.id).progress == {
        "done": 3,
        "total": 9,
        "message": "epoch 1 of 3",
        "eta_s": 12.5,
    }


@pytest.fixture
def run_folder(job):
    folder = job.files.run(job.payload["run_id"])
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(parse_config({"epochs": 4}).model_dump_json())
    (folder / "dataset.json").write_text('{"images": [], "annotations": [], "categories": []}')
    return folder


@dataclass
class Result:
    """What the training loop returns."""

    state: str
    epochs: int
    best: dict


def use_loop(monkeypatch, state):
    """A training loop that emits what a short run emits, without torch."""

    def train(config, snapshot, run_dir, context, pixels_dir):
        context.emit(Metrics(1, 1, "train", {"loss": 2.0}))
        context.emit(saved())
        return Result(state, config.epochs, {"map50": 0.5})

    loop = types.ModuleType("app.pipeline.train.loop")
    loop.train = train
    monkeypatch.setitem(sys.modules, "app.pipeline.train.loop", loop)


def test_training_that_ends_gives_its_result(job, run_folder, monkeypatch):
    use_loop(monkeypatch, "done")
    assert handlers.train(job) == {"state": "done", "epochs": 4, "best": {"map50": 0.5}}
    assert [point.name for point in runs.metrics_after(job.database, 1)] == ["loss"]
    assert runs.get_run(job.database, 1).epoch == 4


def test_training_that_was_stopped_says_so_with_what_it_has(job, run_folder, monkeypatch):
    use_loop(monkeypatch, "stopped")
    with pytest.raises(Stopped) as caught:
        handlers.train(job)
    assert caught.value.result["best"] == {"map50": 0.5}
    assert [point.name for point in runs.metrics_after(job.database, 1)] == ["loss"]


def deaths(job):
    return jobs.get_job(job.database, job.job.id).num_deaths


def test_newer_state_lets_the_deaths_before_it_be_forgotten(job, recorder):
    def emit_after_two_deaths(event):
        with job.database.write() as db:
            db.execute("UPDATE job SET num_deaths = 2")
        recorder.emit(event)
        return deaths(job)

    last = saved("last.pt", step=10, is_last=True, score=None)
    assert emit_after_two_deaths(last) == 0
    assert emit_after_two_deaths(last) == 2  # nothing newer
    assert emit_after_two_deaths(saved("best.pt", step=20)) == 2  # nobody goes on from that
    assert emit_after_two_deaths(RunBegun(10, 1, 1, 5.0, (last,))) == 2
    assert emit_after_two_deaths(RunBegun(12, 1, 1, 5.0, (saved("last.pt", step=12, sha256="y", is_last=True),))) == 0


@pytest.mark.parametrize(("begun", "is_told"), [([0, 0, 0], False), ([3, 3, 1], True), (None, False)])
def test_labels_that_changed_since_the_run_was_started_are_told(job, run_folder, monkeypatch, caplog, begun, is_told):
    use_loop(monkeypatch, "done")
    if begun is not None:
        job.payload["labels_version"] = begun
    with caplog.at_level("INFO"):
        handlers.train(job)
    assert sum("it uses the dataset as it was" in text for text in caplog.messages) == is_told
