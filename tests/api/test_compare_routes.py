"""Comparing over HTTP: status codes, errors in words, the report as a download, notes that two tabs write."""

import orjson
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api import failures
from app.api.routes import compare as compare_routes
from app.services import jobs
from tests.services.review_project import make_review_project
from tests.services.test_comparing import add_ensemble, add_run


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    return make_review_project(tmp_path)


@pytest.fixture
def client(project, monkeypatch):
    monkeypatch.setattr(compare_routes, "WAIT_S", 20)
    app = FastAPI()
    failures.install(app)
    app.include_router(compare_routes.build_router(project.services))
    return TestClient(app, base_url=f"http://test/api/projects/{project.slug}")


@pytest.fixture
def second(project):
    return add_run(project, {"epochs": 3}, project.set_ids[2], [0.1, 0.6], name="<b>Second</b>")


def test_sides_and_figures(client, project, second):
    sides = client.get("compare", params={"sides": f"run-1,run-{second}", "split": "valid"}).json()
    assert [side["side"] for side in sides["sides"]] == ["run-1", f"run-{second}"]
    answer = client.get("compare/figures", params={"first": "run-1", "second": f"run-{second}"})
    assert (answer.status_code, answer.json()["state"]) == (200, "ready")
    assert set(answer.json()["figures"]["differences"]) == {"map", "map50", "map75", "f1", "map50_f1"}
    ensemble = client.get("compare/figures", params={"first": "run-1", "second": f"set-{add_ensemble(project)}"}).json()
    assert ensemble["figures"]["differences"]["map"]["difference"] == 0
    assert "Within the noise" in ensemble["figures"]["verdict"]
    images = client.get("compare/images", params={"first": "run-1", "second": f"run-{second}", "limit": 2}).json()
    assert (len(images["images"]), images["total"], images["next"]) == (2, 6, 2)


def test_a_job_at_work_answers_202_and_can_be_stopped(client, second, monkeypatch):
    monkeypatch.setattr(compare_routes, "WAIT_S", 0)
    query = {"first": "run-1", "second": f"run-{second}"}
    answer = client.get("compare/figures", params=query)
    assert (answer.status_code, answer.json()["state"]) == (202, "working")
    assert set(answer.json()["progress"]) == {"done", "total", "message", "eta_s"}
    assert client.delete("compare/figures", params=query).status_code == 204
    assert client.delete("compare/figures", params=query).status_code == 204


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("compare?sides=", 400, "1 to 6 sides"),
        ("compare?sides=run-1,dog-2", 400, "'dog-2' names nothing"),
        ("compare?sides=run-9", 404, "no run 9"),
        ("compare?sides=checkpoint-99", 404, "no checkpoint 99"),
        ("compare?sides=set-99", 404, "no prediction set 99"),
        ("compare?sides=set-1&split=test", 400, "of valid images"),
        ("compare?sides=run-1&split=moon", 400, "split"),
        ("compare/figures?first=run-1", 400, "second"),
        ("compare/figures?first=run-1&second=run-1", 400, "with itself"),
        ("compare/figures?first=run-1&second=checkpoint-3&split=test", 409, "no predictions on test yet"),
        ("compare/images?first=run-1&second=run-1", 400, "with itself"),
        ("compare/images?first=run-1&second=set-2&limit=0", 400, "limit"),
        ("compare/report?first=run-1&second=set-2&format=pdf", 400, "html or md; got 'pdf'"),
        ("compare/report?first=run-1&second=checkpoint-3&split=test", 409, "no predictions on test yet"),
        ("runs/9/notes", 404, "no run 9"),
    ],
)
def test_refusals_say_why(client, path, status, error):
    answer = client.get(path)
    assert (answer.status_code, set(answer.json())) == (status, {"error", "hint"})
    assert error in answer.json()["error"]


def test_runs_without_weights_or_of_other_classes_are_refused(client, project, second):
    database = project.services.database(project.slug)
    path = project.services.files(project.slug).run(second) / "dataset.json"
    document = orjson.loads(path.read_bytes())
    query = {"first": "run-1", "second": f"run-{second}"}
    for change, error in (("categories", "different classes"), ("images", "share no image")):
        changed = orjson.loads(orjson.dumps(document))
        for number, entry in enumerate(changed[change]):
            entry["name"] = f"Other {number}"
            if change == "images":
                entry["id"] += 1000
        if change == "images":
            changed["annotations"] = []
        path.write_bytes(orjson.dumps(changed))
        answer = client.get("compare/figures", params=query)
        assert (answer.status_code, error in answer.json()["error"]) == (400, True)
    with database.write() as db:
        db.execute("DELETE FROM checkpoint WHERE run_id = ?", [second])
    answer = client.get("compare", params={"sides": f"run-{second}"})
    assert answer.status_code == 404 and "no weights yet" in answer.json()["error"]


@pytest.mark.parametrize(("name", "start"), [("html", "<!doctype html>"), ("md", "# First run")])
def test_the_report_is_a_download(client, second, name, start):
    answer = client.get("compare/report", params={"first": "run-1", "second": f"run-{second}", "format": name})
    assert answer.headers["content-disposition"] == (
        f'attachment; filename="blood-cells-run-1-and-run-{second}-valid.{name}"'
    )
    assert answer.text.startswith(start) and "<b>" not in answer.text
    assert "White cell" in answer.text and "C: " not in answer.text
    query = {"first": "run-1", "second": f"run-{second}", "format": name}
    all_sides = client.get("compare/report", params={**query, "sides": f"run-1,checkpoint-3,run-{second}"})
    assert "B: First run, Epoch 2 (in options, curves and notes)" in all_sides.text and "C less A" in all_sides.text
    assert client.get("compare/report", params={**query, "sides": "run-1"}).status_code == 400


def test_notes_are_saved_and_a_stale_save_gets_both_versions(client):
    saved = client.put("runs/1/notes", json={"changes": {"setup": "Larger images."}, "known": {"setup": ""}})
    assert (saved.status_code, saved.json()["notes"]["setup"]) == (200, "Larger images.")
    stale = client.put("runs/1/notes", json={"changes": {"setup": "Mine."}, "known": {"setup": ""}})
    assert stale.status_code == 409
    assert stale.json()["current"]["setup"] == "Larger images." and stale.json()["error"]
    assert client.get("runs/1/notes").json()["notes"]["setup"] == "Larger images."
    for body, status in (({"changes": {"poem": "x"}}, 400), ({"changes": {"setup": "x" * 10_001}}, 400), ({}, 400)):
        assert client.put("runs/1/notes", json=body).status_code == status
    assert client.put("runs/9/notes", json={"changes": {}}).status_code == 404
