"""A sweep from real (tiny, untrained) checkpoints: jobs are carried out in this process."""

import json
from contextlib import contextmanager

import pytest
import torch

from app.errors import NotFound, UserError
from app.jobs.context import Stopped
from app.pipeline.config import parse_config
from app.pipeline.data.snapshot import load_snapshot
from app.pipeline.models import build
from app.pipeline.train.checkpoint import categories_to_json, save_checkpoint
from app.pipeline.types import RunContext
from app.services import exporting, jobs, review, sweep_handler, sweeping
from app.store import runs
from tests.pipeline.train.tiny_dataset import TINY, construct_tiny
from tests.services.review_project import make_review_project


class Told(list):
    """Progress as jobs told it; those told ``stop_at`` are to stop."""

    stop_at = None


class InlineJob:
    """A job's context in this process."""

    def __init__(self, project, payload):
        self.workspace = project.services.workspace
        self.slug = project.slug
        self.files = project.services.files(project.slug)
        self.database = project.services.database(project.slug)
        self.payload = payload
        self.told = project.services.told

    def should_stop(self):
        return any(message == self.told.stop_at for *_, message, _ in self.told)

    def set_progress(self, *progress):
        self.told.append(progress)

    def run_context(self, emit):
        return RunContext(emit, self.should_stop)

    @contextmanager
    def write(self):
        with self.database.write() as db:
            yield db


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    monkeypatch.setattr(build, "construct", construct_tiny)
    project = make_review_project(tmp_path, num_valid=2, num_test=2)
    folder = project.services.files(project.slug).run(project.run_id)
    categories = load_snapshot(folder / "dataset.json").categories
    config = parse_config({**TINY, "max_detections": 10})
    for seed, name in enumerate(("epoch-4.pt", "epoch-3.pt", "epoch-2.pt", "last.pt")):
        torch.manual_seed(seed)
        contents = {
            "model": dict(build.build_model(config, len(categories)).state_dict()),
            "config_json": config.model_dump_json(),
            "categories_json": categories_to_json(categories),
            "metrics_json": "{}",
            "epoch": 4 - seed if seed < 3 else 5,
            "step": 10,
        }
        save_checkpoint(folder / name, contents)
    monkeypatch.setattr(jobs, "wait_for", lambda services, slug, job_id, on_change=None: carry_out(project, job_id))
    project.services.told = Told()
    return project


def carry_out(project, job_id):
    job = jobs.get(project.services, project.slug, job_id)
    assert job.kind == "sweep"
    try:
        result, state = sweep_handler.sweep(InlineJob(project, job.payload)), "done"
    except Stopped:
        result, state = {}, "cancelled"
    with project.services.database(project.slug).write() as db:
        db.execute("UPDATE job SET state = ?, result = json(?) WHERE id = ?", [state, json.dumps(result), job_id])
    return jobs.get(project.services, project.slug, job_id)


def test_everything_kept_and_two_soups_stand_in_one_table(project):
    swept = sweeping.sweep_run(project.services, project.slug, project.run_id, "test")
    names = {row["name"] for row in swept["rows"]}
    assert names == {"Epoch 4", "Epoch 3", "Epoch 2", "Epoch 5 (last)", "Soup (uniform)", "Soup (greedy)"}
    scores = [row["score"] for row in swept["rows"]]
    assert scores == sorted(scores, reverse=True)
    for row in swept["rows"]:
        assert [entry["name"] for entry in row["per_class"]] == ["Red cell", "White cell"]
        assert not row["is_chosen_here"]
    members = {row["soup"]: row["members"] for row in swept["rows"] if row["soup"]}
    assert members["uniform"] == ["epoch-4.pt", "epoch-3.pt", "epoch-2.pt", "last.pt"]
    assert members["greedy"][0] == "epoch-4.pt"
    assert "best on test" in swept["verdict"]

    done, total, message, _ = project.services.told[-1]
    assert (done, total, message) == (4 * 2 + 2 + 4 * 2 + 2, 20, "Predicting with the greedy soup")
    assert [told[0] for told in project.services.told] == sorted(told[0] for told in project.services.told)
    project.services.told.clear()
    again = sweeping.sweep_run(project.services, project.slug, project.run_id, "test")
    assert project.services.told == []  # nothing is made twice
    assert again == swept


def test_a_stopped_sweep_keeps_what_it_has_and_goes_on_from_there(project):
    at = (project.services, project.slug, project.run_id)
    untouched = sweeping.describe_sweep(*at, "test")
    assert (untouched["rows"], untouched["verdict"], untouched["job"]) == ([], "", None)
    assert untouched["missing"][0] == "Predicting with Epoch 4" and len(untouched["missing"]) == 4 + 2 + 2
    project.services.told.stop_at = "Mixing the uniform soup"
    with pytest.raises(UserError, match="sweep ended as cancelled"):
        sweeping.sweep_run(*at, "test")
    halfway = sweeping.describe_sweep(*at, "test")
    assert len(halfway["rows"]) == 4 and halfway["missing"][0] == "Mixing the uniform soup"
    project.services.told.stop_at = None
    project.services.told.clear()
    assert sweeping.sweep_run(*at, "test")["missing"] == []
    assert project.services.told[0][2] == "Mixing the uniform soup"


def test_a_sweep_is_asked_for_once(project):
    at = (project.services, project.slug, project.run_id)
    job = sweeping.request_sweep(*at, "valid")
    assert sweeping.request_sweep(*at, "valid").id == job.id != sweeping.request_sweep(*at, "test").id
    assert sweeping.describe_sweep(*at, "valid")["job"]["kind"] == "sweep"


def test_a_soup_is_a_checkpoint_never_the_best_by_itself_and_made_anew_for_other_weights(project):
    sweeping.sweep_run(project.services, project.slug, project.run_id)
    database = project.services.database(project.slug)
    kept = runs.list_checkpoints(database, project.run_id)
    assert sorted(item.soup for item in kept) == ["", "", "", "", "greedy", "uniform"]
    assert review.best_checkpoint(project.services, project.slug, project.run_id).file_name == "epoch-4.pt"
    soup = next(item for item in kept if item.soup == "uniform")
    assert exporting.request_weights(project.services, project.slug, soup.id, "pth").payload["checkpoint_id"] == soup.id

    folder = project.services.files(project.slug).run(project.run_id)
    before = {path.name for path in folder.glob("soup-*")}
    with database.write() as db:
        runs.remove_checkpoints(db, project.run_id, ["epoch-2.pt"])  # as when a better one takes its place
    swept = sweeping.sweep_run(project.services, project.slug, project.run_id)
    after = {path.name for path in folder.glob("soup-*")}
    assert len(before) == len(after) == 4 and not before & after
    assert len(swept["rows"]) == 5
    greedy = next(row for row in swept["rows"] if row["soup"] == "greedy")
    assert greedy["is_chosen_here"]


def test_one_checkpoint_alone_is_judged_without_soups(project):
    with project.services.database(project.slug).write() as db:
        runs.remove_checkpoints(db, project.run_id, ["epoch-2.pt", "epoch-3.pt", "last.pt"])
    swept = sweeping.sweep_run(project.services, project.slug, project.run_id)
    assert [row["name"] for row in swept["rows"]] == ["Epoch 4"]


def test_failures_are_told(project, monkeypatch):
    def fail(services, slug, job_id, on_change=None):
        with services.database(slug).write() as db:
            db.execute("UPDATE job SET state = 'failed', error = 'no room' WHERE id = ?", [job_id])
        return jobs.get(services, slug, job_id)

    monkeypatch.setattr(jobs, "wait_for", fail)
    with pytest.raises(UserError, match="The sweep ended as failed: no room"):
        sweeping.sweep_run(project.services, project.slug, project.run_id)
    with pytest.raises(NotFound):
        sweeping.sweep_run(project.services, project.slug, 99)
