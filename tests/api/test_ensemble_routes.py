import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api import failures
from app.api.routes import ensembles as ensemble_routes
from app.services import ensemble_lab, jobs
from app.store import jobs as job_store
from app.store import predictions
from tests.services.review_project import make_review_project


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    return make_review_project(tmp_path, num_valid=12)


@pytest.fixture
def client(project):
    app = FastAPI()
    failures.install(app)
    app.include_router(ensemble_routes.build_router(project.services))
    return TestClient(app, base_url=f"http://test/api/projects/{project.slug}")


def do_lab(project, job_id):
    """What the job's process does."""
    database = project.services.database(project.slug)
    job = job_store.claim(database, job_id)
    found = ensemble_lab.carry_out(project.services, project.slug, job.payload, predict=lambda *asked: 1 / 0)
    job_store.finish(database, job_id, job.attempt, "done", found)


def test_ensemble_is_queued_and_errors_are_told(client, project):
    job = client.post("ensembles", json={"run_id": project.run_id}).json()["job"]
    assert job["payload"]["checkpoint_ids"] == project.checkpoint_ids[:3]
    refused = client.post("ensembles", json={"run_id": project.run_id, "options": {"method": "magic"}})
    assert refused.status_code == 400
    assert "method" in refused.json()["error"]
    assert client.get("ensembles").json() == {"ensembles": []}


def test_noise_of_an_ensemble_is_asked_for_and_stopped(client, project):
    database = project.services.database(project.slug)
    with database.write() as db:
        common = {"run_id": project.run_id, "split": "valid", "snapshot_sha256": "a" * 64}
        options = {"method": "wbf", "iou_threshold": 0.5}
        number = predictions.store_predictions(
            db, **common, detections={}, name="Nothing found", members=project.set_ids[:2], options=options
        )
    table = client.get(f"ensembles/{number}").json()
    assert (table["noise"], table["outcome"]) == (None, None)
    assert client.delete(f"ensembles/{number}/noise").status_code == 204  # nothing goes on: harmless
    for _ in range(60):
        answer = client.get(f"ensembles/{number}/noise")
        if answer.status_code == 200:
            break
        assert (answer.status_code, answer.json()["state"]) == (202, "working")
    measured = answer.json()["table"]
    assert measured == client.get(f"ensembles/{number}").json()
    assert (measured["outcome"], measured["is_gain"]) == ("worse", False)
    assert measured["verdict"].startswith("Worse: 0.000 as an ensemble")
    assert client.get(f"ensembles/{project.set_ids[0]}/noise").status_code == 400


def test_lab_is_queued_read_and_a_row_of_it_kept_as_an_ensemble(client, project):
    body = {"checkpoint_ids": project.checkpoint_ids[:2], "set_ids": [project.set_ids[2]], "views": ["off"]}
    job = client.post("ensemble-labs", json=body).json()["job"]
    assert client.get("ensemble-labs").json() == {"labs": []}
    assert client.get(f"ensemble-labs/{job['id']}").status_code == 404
    do_lab(project, job["id"])
    (listed,) = client.get("ensemble-labs").json()["labs"]
    lab = client.get(f"ensemble-labs/{job['id']}").json()["lab"]
    assert (listed["id"], listed["verdict"]) == (lab["id"], lab["verdict"])
    assert [row["method"] for row in lab["methods"]] == ["wbf", "nms", "soft_nms", "nmw"]
    kept = client.post(f"ensemble-labs/{job['id']}/ensembles", json={"row": 1}).json()["job"]
    assert (kept["kind"], kept["payload"]["options"]) == ("ensemble", lab["methods"][1]["options"])
    assert kept["payload"]["set_ids"] == project.set_ids
    assert client.post(f"ensemble-labs/{job['id']}/ensembles", json={"row": 4}).status_code == 400


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("ensembles/999", None, 404),
        ("ensembles/1", None, 400),
        ("ensemble-labs/999", None, 404),
        ("ensemble-labs", {"checkpoint_ids": [1]}, 400),
        ("ensemble-labs", {"checkpoint_ids": [1, 999]}, 404),
        ("ensemble-labs/1/ensembles", {"row": 0}, 404),
    ],
)
def test_bad_requests_are_answered_with_a_reason(client, path, body, status):
    answer = client.get(path) if body is None else client.post(path, json=body)
    assert answer.status_code == status
    assert answer.json()["error"]
