"""The routes of the Audit page and of the sweep: what they answer, and what they refuse."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api import failures
from app.api.routes import audit, sweep
from app.services import jobs
from tests.services.review_project import make_review_project


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    return make_review_project(tmp_path)


@pytest.fixture
def client(project):
    app = FastAPI()
    failures.install(app)
    for module in (audit, sweep):
        app.include_router(module.build_router(project.services))
    return TestClient(app, base_url=f"http://test/api/projects/{project.slug}")


def test_suspects_come_in_pages_and_are_ignored_and_taken_back(client, project):
    query = {"set": project.set_ids[2], "min_score": 0.1, "limit": 2}
    page = client.get("audit", params=query).json()
    assert len(page["suspects"]) == 2 and page["left"] == page["total"] - 2
    following = client.get("audit", params={**query, "after": page["next"]}).json()
    assert following["suspects"][0]["key"] not in {item["key"] for item in page["suspects"]}
    first = page["suspects"][0]
    opened = client.get(f"audit/suspects/{first['key']}", params=query).json()
    assert (opened["suspect"], opened["next"]) == (first, page["suspects"][1])

    body = {name: first[name] for name in ("image_id", "kind", "predicted_id", "labeled_id", "box", "score")}
    answer = client.post("audit/ignored", json=body)
    assert answer.status_code == 201
    (ignored,) = client.get("audit/ignored").json()["suspects"]
    assert ignored == answer.json()["ignored"]
    assert client.get("audit", params=query).json()["total"] == page["total"] - 1
    assert client.delete(f"audit/ignored/{ignored['id']}").status_code == 200
    assert client.get("audit", params=query).json()["total"] == page["total"]
    assert client.get("audit/figures", params=query).json()["changed"] == 0


def test_ignored_ones_come_in_pages_newest_first(client, project):
    body = {"image_id": 1, "kind": "missing_box", "predicted_id": 3, "box": [0, 0, 9, 9], "score": 0.5}
    ids = [client.post("audit/ignored", json=body).json()["ignored"]["id"] for _ in range(3)]
    first = client.get("audit/ignored", params={"limit": 2}).json()
    rest = client.get("audit/ignored", params={"limit": 2, "after": first["next"]}).json()
    assert [item["id"] for item in first["suspects"] + rest["suspects"]] == ids[::-1]
    assert (first["total"], first["left"], rest["left"], rest["next"]) == (3, 1, 0, None)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("audit", 400),
        ("audit?set=999", 404),
        ("audit?set=1&kind=ugly", 400),
        ("audit?set=1&min_score=2", 400),
        ("audit?set=1&after=5-x", 404),
        ("audit/suspects/none?set=1", 404),
        ("audit/figures?set=999", 404),
        ("runs/99/sweep", 404),
        ("runs/1/sweep?split=dream", 400),
    ],
)
def test_bad_requests_are_answered_with_a_reason(client, path, status):
    answer = client.get(path)
    assert (answer.status_code, bool(answer.json()["error"])) == (status, True)


def test_a_sweep_is_queued_once_and_told_with_what_is_judged(client, project):
    before = client.get(f"runs/{project.run_id}/sweep").json()
    assert (before["job"], len(before["rows"])) == (None, 3)
    queued = client.post(f"runs/{project.run_id}/sweep", json={"split": "valid"}).json()["job"]
    assert (queued["kind"], queued["payload"]) == ("sweep", {"run_id": project.run_id, "split": "valid"})
    assert client.post(f"runs/{project.run_id}/sweep", json={"split": "valid"}).json()["job"]["id"] == queued["id"]
    assert client.get(f"runs/{project.run_id}/sweep").json()["job"]["id"] == queued["id"]
    assert client.post(f"runs/{project.run_id}/sweep", json={"split": "dream"}).status_code == 400
