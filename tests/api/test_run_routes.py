"""Runs and jobs over HTTP."""

import shutil

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api import failures
from app.api.routes import runs as run_routes
from app.services import jobs, preflight, training
from app.services.context import Services
from app.store import jobs as job_store
from app.store import runs, settings
from app.store.files import Workspace
from tests.services.imported_project import import_small_project


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    return import_small_project(tmp_path_factory.mktemp("imported"))


@pytest.fixture
def services(imported, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    return Services(Workspace(shutil.copytree(imported, tmp_path / "projects")))


@pytest.fixture
def slug(services):
    return services.workspace.slugs()[0]


@pytest.fixture
def client(services, slug):
    app = FastAPI()
    failures.install(app)
    app.include_router(run_routes.build_router(services))
    return TestClient(app, base_url=f"http://test/api/projects/{slug}/")


def start(client, **body):
    answer = client.post("runs", json={"config": {"epochs": 2}, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["run"]


def add_points(services, slug, run_id, points):
    with services.database(slug).write() as db:
        runs.append_metrics(db, [(run_id, *point) for point in points])


def test_started_run_is_listed_and_described(client):
    run = start(client, name="First <i>")
    assert (run["name"], run["state"], run["epochs"]) == ("First <i>", "queued", 2)
    assert [item["id"] for item in client.get("runs").json()["runs"]] == [run["id"]]
    assert client.get(f"runs/{run['id']}").json()["checkpoints"] == []


def test_wrong_options_come_back_by_field(client):
    answer = client.post("runs", json={"config": {"epochs": 0, "learning_rat": 1}})
    assert answer.status_code == 400
    assert set(answer.json()["fields"]) == {"epochs", "learning_rat"}
    assert "learning_rat" in answer.json()["error"]
    assert client.post("config/check", json={"config": {"epochs": 0}}).json()["problems"].keys() == {"epochs"}


def test_only_newer_points_are_sent_in_columns(client, services, slug):
    run_id = start(client)["id"]
    add_points(services, slug, run_id, [(1, 1, "train", "loss", 2.5, 0.5), (2, 1, "train", "loss", 2.0, 1.0)])
    first = client.get(f"runs/{run_id}/metrics").json()
    assert first["series"] == {
        "train/loss": {"step": [1, 2], "epoch": [1, 1], "elapsed_s": [0.5, 1.0], "value": [2.5, 2.0]}
    }
    assert not first["has_more"]
    add_points(services, slug, run_id, [(2, 1, "valid", "map50", 0.5, 1.5)])
    newer = client.get(f"runs/{run_id}/metrics", params={"after": first["last"]}).json()
    assert list(newer["series"]) == ["valid/map50"]
    assert client.get(f"runs/{run_id}/metrics", params={"after": newer["last"]}).json()["series"] == {}
    assert list(client.get(f"runs/{run_id}/metrics", params={"names": "map50"}).json()["series"]) == ["valid/map50"]


def test_long_histories_come_in_parts(client, services, slug, monkeypatch):
    monkeypatch.setattr(run_routes, "METRICS_PER_ANSWER", 2)
    run_id = start(client)["id"]
    add_points(services, slug, run_id, [(step, 1, "train", "loss", 1.0, 1.0) for step in (1, 2, 3)])
    first = client.get(f"runs/{run_id}/metrics").json()
    rest = client.get(f"runs/{run_id}/metrics", params={"after": first["last"]}).json()
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert first["series"]["train/loss"]["step"] + rest["series"]["train/loss"]["step"] == [1, 2, 3]


def test_log_is_its_last_64_kilobytes_from_a_whole_line(client, services, slug):
    run = start(client)
    assert client.get(f"runs/{run['id']}/log").json() == {"text": ""}
    path = services.files(slug).job_log(run["job_id"])
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"line {number}\n" for number in range(20_000)))
    text = client.get(f"runs/{run['id']}/log").json()["text"]
    assert len(text) <= 64 * 1024
    assert text.startswith("line ")
    assert text.endswith("line 19999\n")


def test_run_is_stopped_renamed_and_deleted(client):
    run_id = start(client)["id"]
    assert client.delete(f"runs/{run_id}").status_code == 409
    assert client.post(f"runs/{run_id}/stop").json()["run"]["state"] == "cancelled"
    assert client.post(f"runs/{run_id}/stop").status_code == 400
    assert client.patch(f"runs/{run_id}", json={"name": "Other"}).json()["run"]["name"] == "Other"
    assert client.delete(f"runs/{run_id}").status_code == 200
    assert client.get(f"runs/{run_id}").status_code == 404


def test_hung_job_is_told_until_it_moves_again(client, services, slug):
    run = start(client)
    database = services.database(slug)
    job_store.claim(database, run["job_id"])
    assert client.get(f"runs/{run['id']}").json()["run"]["hung"] == ""
    job_store.set_hung(database, run["job_id"], 1, "No sign of life.")
    assert client.get(f"runs/{run['id']}").json()["run"]["hung"] == "No sign of life."
    assert client.get("jobs").json()["jobs"][0]["hung"] == "No sign of life."
    described = training.describe_result(services, slug, run["id"])
    assert (described["hung"], described["warning"]) == (True, "No sign of life.")
    job_store.heartbeat(database, run["job_id"], 1, 5)
    assert client.get(f"runs/{run['id']}").json()["run"]["hung"] == ""


def test_jobs_are_listed_and_cancelled(client, services, slug):
    job = jobs.enqueue(services, slug, "import", {"path": "x"})
    assert [item["id"] for item in client.get("jobs").json()["jobs"]] == [job.id]
    assert client.get(f"jobs/{job.id}").json()["job"]["is_finished"] is False
    assert client.post(f"jobs/{job.id}/cancel").json()["job"]["state"] == "cancelled"
    assert client.get("jobs/99").status_code == 404


def test_form_is_described_without_torch_in_the_way(client):
    form = client.get("config").json()
    assert [group["title"] for group in form["groups"]][:2] == ["Model", "Images"]
    assert {preset["name"] for preset in form["presets"]} >= {"suggested", "quick"}


def test_unknown_project_is_404(client):
    assert client.get("http://test/api/projects/nowhere/runs").status_code == 404


def test_anchor_recall_is_told_and_wrong_options_are_an_answer_too(client):
    answer = client.post("/config/anchors", json={"config": {"image_size": 64}}).json()
    assert answer["stock"]["recall"]["all"].keys() == {"num_boxes", "at_50", "at_70"}
    assert answer["other"]["kind"] == "kmeans"
    assert "image_size" in client.post("/config/anchors", json={"config": {"image_size": 33}}).json()["problem"]


def test_run_is_paused_resumed_cancelled_and_retried(client):
    run_id = start(client)["id"]
    assert client.post(f"runs/{run_id}/resume").status_code == 400
    for action, state in [("pause", "paused"), ("resume", "queued"), ("stop", "cancelled"), ("retry", "queued")]:
        assert client.post(f"runs/{run_id}/{action}").json()["run"]["state"] == state
    assert client.post(f"runs/{run_id}/retry").status_code == 400


def test_waiting_runs_are_moved(client):
    ids = [start(client)["id"] for _ in range(4)]

    def order():
        return [run["id"] for run in sorted(client.get("runs").json()["runs"], key=lambda run: run["rank"])]

    client.post(f"runs/{ids[3]}/move", json={"to": "up"})
    assert order() == [ids[0], ids[1], ids[3], ids[2]]
    client.post(f"runs/{ids[1]}/move", json={"to": "up"})
    assert order() == [ids[1], ids[0], ids[3], ids[2]]
    client.post(f"runs/{ids[2]}/move", json={"to": "front"})
    assert order() == [ids[2], ids[1], ids[0], ids[3]]
    assert client.post(f"runs/{ids[2]}/move", json={"to": "down"}).status_code == 400


def test_numbers_tell_the_attempt_that_added_them(client, services, slug):
    run_id = start(client)["id"]
    add_points(services, slug, run_id, [(step, 1, "train", "loss", 1.0, 1.0) for step in (1, 2)])
    assert client.get(f"runs/{run_id}/metrics").json()["attempt"] == 0
    with services.database(slug).write() as db:
        runs.cut_back(db, run_id, step=1, judged_step=0, epoch=0)
    answer = client.get(f"runs/{run_id}/metrics").json()
    assert (answer["attempt"], answer["series"]["train/loss"]["step"]) == (1, [1])


def test_run_of_an_earlier_version_can_not_go_on_and_says_what_to_do(client, services, slug):
    run_id = start(client)["id"]
    client.post(f"runs/{run_id}/stop")
    (services.files(slug).run(run_id) / "last.pt").write_bytes(b"old")
    answer = client.post(f"runs/{run_id}/retry")
    assert answer.status_code == 400
    assert "earlier version" in answer.json()["error"]
    assert f"run:{run_id}" in answer.json()["hint"]


def test_checks_before_a_run_are_queued_and_their_report_is_told(client, services, slug):
    assert client.get("preflight").json() == {"report": None, "job": None}
    job = client.post("preflight", json={"config": {"epochs": 2}}).json()["job"]
    assert (job["kind"], job["state"]) == ("preflight", "queued")
    with services.database(slug).write() as db:
        settings.put(db, preflight.REPORT, preflight.new_report(job["id"], {"epochs": 2}, 7))
    answer = client.get("preflight").json()
    assert (answer["report"]["verdicts"], answer["job"]["id"]) == ([], job["id"])
    refused = client.post("preflight", json={"config": {"epochs": 0}})
    assert (refused.status_code, set(refused.json()["fields"])) == (400, {"epochs"})
