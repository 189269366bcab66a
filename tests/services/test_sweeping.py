"""A sweep from real (tiny, untrained) checkpoints: jobs are carried out in this process."""

import json
import re
import threading
from contextlib import contextmanager

import pytest
import torch

from app.errors import NotFound, UserError
from app.jobs.context import Stopped
from app.pipeline.config import parse_config
from app.pipeline.data.snapshot import load_snapshot
from app.pipeline.evaluate import bootstrap
from app.pipeline.evaluate.difference import Difference
from app.pipeline.models import build
from app.pipeline.predict import Detector
from app.pipeline.train.checkpoint import categories_to_json, save_checkpoint
from app.pipeline.types import Progress, RunContext
from app.services import exporting, jobs, review, sweep_handler, sweeping
from app.services.sweeping import Step
from app.store import predictions, runs
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
    sets = predictions.list_sets(project.services.database(project.slug), split="test")
    assert len(sets) == 6 and all(record.ms_per_image > 0 for record in sets)
    assert "has the best score on test" in swept["verdict"] and swept["is_measured"]
    best, *others = swept["rows"]
    assert best["noise"] is None
    for row in others:
        assert row["noise"]["difference"] == pytest.approx(row["score"] - best["score"])
        assert row["noise"]["outcome"] in ("noise", "worse")

    # the first member of the greedy soup is stored on valid, so three are tried at most
    done, total, message, _ = project.services.told[-1]
    assert (done, total, message) == (4 * 2 + 2 + 3 * 2 + 2, 18, "Predicting with the greedy soup")
    assert [told[0] for told in project.services.told] == sorted(told[0] for told in project.services.told)
    project.services.told.clear()
    again = sweeping.sweep_run(project.services, project.slug, project.run_id, "test")
    assert project.services.told == []  # nothing is made twice
    assert again == swept


def test_what_is_left_goes_by_the_pace_behind_the_first_images(project, monkeypatch):
    """Before them the model is loaded, which may take longer than all the images."""
    now = [100.0]
    monkeypatch.setattr(sweep_handler.time, "monotonic", lambda: now[0])
    whole = sweep_handler._Whole(InlineJob(project, {}), 20)
    step = Step("Predicting", "epoch-4.pt", 10)
    context = whole.context_of(step)
    for seconds, done in ((30.0, 1), (0.5, 2), (0.5, 3)):
        now[0] += seconds
        context.emit(Progress(done, 10))
    assert [told[3] for told in project.services.told] == [None, None, 9.0, 8.5]


@pytest.fixture
def predicted(monkeypatch):
    """How many images each time that a model really predicted."""
    made = []
    predict = Detector.predict_samples

    def noting(self, samples, *given, **named):
        made.append(len(samples))
        return predict(self, samples, *given, **named)

    monkeypatch.setattr(Detector, "predict_samples", noting)
    return made


def sets_of(project, split):
    """Detections of each stored set of a split, by the name of its checkpoint's file."""
    database = project.services.database(project.slug)
    files = {item.id: item.file_name for item in runs.list_checkpoints(database, project.run_id)}
    return {
        files[item.checkpoint_id]: [
            one.boxes.tolist() for one in predictions.read_detections(database, item.id).values()
        ]
        for item in predictions.list_sets(database, split=split)
    }


@pytest.mark.parametrize(
    ("scores", "num_members", "twin", "num_predicted"),
    [
        ([0.1, 0.2, 0.3, 0.4], 4, "soup-uniform", 4),  # Epoch 5, the uniform soup, two of three trials: the last is it
        ([0.4, 0.3, 0.2, 0.1], 1, "epoch-4", 5),  # Epoch 5, the uniform soup, three trials
    ],
    ids=["all are mixed", "none is added"],
)
def test_no_weights_are_predicted_with_twice(project, predicted, monkeypatch, scores, num_members, twin, num_predicted):
    """Of valid the first three checkpoints are stored; the greedy soup is one that was predicted before."""
    given = iter(scores)
    monkeypatch.setattr(sweep_handler, "selection_score", lambda metric, figures: next(given))
    swept = sweeping.sweep_run(project.services, project.slug, project.run_id, "valid")
    assert len(predicted) == num_predicted
    greedy = next(row for row in swept["rows"] if row["soup"] == "greedy")
    assert len(greedy["members"]) == num_members
    stored = sets_of(project, "valid")
    assert stored[greedy["file_name"]] == next(boxes for name, boxes in stored.items() if name.startswith(twin))
    predicted.clear()
    sweeping.sweep_run(project.services, project.slug, project.run_id, "test")
    assert len(predicted) == 4 + 1


@pytest.mark.parametrize(("low", "words"), [(-0.01, "Gain"), (0.0, "Within the noise")], ids=["gain", "noise"])
def test_a_soup_that_wins_is_a_gain_beyond_chance_only_and_names_the_metric_once(low, words):
    rows = [
        {
            "name": "Soup (uniform)",
            "soup": "uniform",
            "members": ["a", "b"],
            "score": 0.6,
            "is_chosen_here": False,
            "map": 0.5,
            "map50": 0.6,
        }
        | {"map75": 0.4, "f1": 0.6},
        {"name": "Epoch 4", "soup": "", "members": [], "score": 0.5, "map": 0.5, "map50": 0.5, "map75": 0.4, "f1": 0.5},
    ]
    rows[1]["noise"] = Difference(0.6, 0.5, 0.7, 0.5, 0.4, 0.6, -0.1, -0.12, low, 0.0, 0.05).to_json()
    verdict = sweeping._verdict(rows, "map50_f1", "test")
    assert verdict.startswith(
        f"Soup (uniform) has the best score on test. {words}: 0.600 with the uniform soup, 0.500 with Epoch 4"
    )
    assert verdict.count("0.5 mAP50 + 0.5 F1") == 1
    assert sweeping._verdict(rows[1:], "map50_f1", "test") == "Epoch 4 is best on test: 0.500 by 0.5 mAP50 + 0.5 F1."


def test_a_stopped_sweep_keeps_what_it_has_and_goes_on_from_there(project):
    at = (project.services, project.slug, project.run_id)
    untouched = sweeping.describe_sweep(*at, "test")
    assert (untouched["rows"], untouched["verdict"], untouched["job"]) == ([], "", None)
    assert untouched["missing"][0] == "Predicting with Epoch 4" and len(untouched["missing"]) == 4 + 2 + 2
    project.services.told.stop_at = "Mixing the uniform soup"
    with pytest.raises(UserError, match=r"^The sweep was stopped\."):
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
    swept = sweeping.sweep_run(project.services, project.slug, project.run_id)
    database = project.services.database(project.slug)
    kept = runs.list_checkpoints(database, project.run_id)
    assert sorted(item.soup for item in kept) == ["", "", "", "", "greedy", "uniform"]
    assert review.best_checkpoint(project.services, project.slug, project.run_id).file_name == "epoch-4.pt"
    judged = {row["checkpoint_id"]: row for row in swept["rows"]}
    for soup in (item for item in kept if item.soup):  # member lists tell what the sweep found
        assert (soup.map50, soup.f1) == (judged[soup.id]["map50"], judged[soup.id]["f1"])
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


def test_the_noise_of_a_sweep_is_measured_when_asked_for_told_and_stopped(project, monkeypatch):
    """Of valid all is stored: the table is there at once, without the noise."""
    at = (project.services, project.slug, project.run_id, "valid")
    with project.services.database(project.slug).write() as db:
        runs.remove_checkpoints(db, project.run_id, ["last.pt"])
    for step in sweeping.missing_steps(*at):
        assert step.recipe or step.title.startswith("Predicting with the")
    monkeypatch.setattr(sweeping, "missing_steps", lambda *given: [])
    table = sweeping.describe_sweep(*at)
    assert (len(table["rows"]), table["is_measured"], [row["noise"] for row in table["rows"]]) == (3, False, [None] * 3)
    assert not re.search("Gain|noise", table["verdict"])  # nothing is claimed before it is known

    compare_sets, may_go_on = bootstrap.compare_sets, threading.Event()

    def slowly(*given, on_progress, **named):
        on_progress(250, 1000)
        may_go_on.wait(20)
        return compare_sets(*given, on_progress=on_progress, **named)

    monkeypatch.setattr(bootstrap, "compare_sets", slowly)
    answer = sweeping.find_noise(*at, wait_s=0.3)
    while answer["progress"]["done"] != 250:
        answer = sweeping.find_noise(*at, wait_s=0.1)
    assert (answer["state"], answer["progress"]["total"]) == ("working", 2000)
    sweeping.stop_noise(*at)
    may_go_on.set()
    assert not sweeping.describe_sweep(*at)["is_measured"]
    answer = sweeping.find_noise(*at, wait_s=20)
    assert (answer["state"], answer["table"]["is_measured"]) == ("ready", True)
    best, *others = answer["table"]["rows"]
    for row in others:
        assert row["noise"]["difference"] == pytest.approx(row["score"] - best["score"])
    assert answer["table"] == sweeping.describe_sweep(*at)  # kept


def test_the_noise_of_several_rows_is_one_progress():
    own = {"done": 250, "total": 1000, "message": "Measuring the noise", "eta_s": 3.0}
    assert sweeping._of_all(own, 5000, 4) == own | {"done": 1250, "total": 5000, "eta_s": 15.0}
    assert sweeping._of_all(own | {"done": 0, "total": 0, "eta_s": None}, 1000, 1)["eta_s"] is None
