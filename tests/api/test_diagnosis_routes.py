import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api import failures
from app.api.routes import diagnosis as diagnosis_routes
from app.services import diagnosing, jobs, proposals
from tests.services.review_project import make_review_project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "ensure_worker", lambda services: None)
        yield make_review_project(tmp_path_factory.mktemp("review"))


@pytest.fixture(scope="module")
def client(project):
    app = FastAPI()
    failures.install(app)
    app.include_router(diagnosis_routes.build_router(project.services))
    return TestClient(app, base_url=f"http://test/api/projects/{project.slug}")


def test_diagnosis_is_what_the_service_says_and_its_errors_come_in_pages(client, project):
    path = f"prediction-sets/{project.set_ids[2]}"
    answer = client.get(f"{path}/diagnosis").json()
    assert answer == diagnosing.diagnose(project.services, project.slug, project.set_ids[2])
    (missed,) = [row for row in answer["error_budget"]["kinds"] if row["kind"] == "missed"]
    first = client.get(f"{path}/errors", params={"kind": "missed", "limit": 2}).json()
    second = client.get(f"{path}/errors", params={"kind": "missed", "limit": 2, "after": first["next"]}).json()
    assert (first["total"], len(first["errors"])) == (missed["count"], 2)
    assert first["errors"] != second["errors"]


def test_confusions_follow_the_sliders_and_a_cell_lists_its_pairs(client, project):
    path = f"prediction-sets/{project.set_ids[2]}"
    at = {"score": 0.3, "iou": 0.7}
    answer = client.get(f"{path}/confusion", params=at).json()
    assert (answer["score_threshold"], answer["iou_threshold"]) == (0.3, 0.7)
    assert answer["counts"] != client.get(f"{path}/confusion", params={"score": 0.9, "iou": 0.7}).json()["counts"]
    for predicted, count in enumerate(answer["counts"][1]):
        cell = client.get(f"{path}/confused", params={**at, "truth": 1, "predicted": predicted}).json()
        assert cell["total"] == len(cell["pairs"]) == count
        assert all(pair["truth_label"] == 1 for pair in cell["pairs"])


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("prediction-sets/999/diagnosis", 404, "no prediction set 999"),
        ("prediction-sets/1/diagnosis?score=2", 400, "score"),
        ("prediction-sets/1/errors?kind=beauty", 400, "beauty"),
        ("prediction-sets/1/errors?kind=missed&limit=501", 400, "limit"),
        ("prediction-sets/1/confusion?iou=-1", 400, "iou"),
        ("prediction-sets/999/confused?truth=1&predicted=1", 404, "999"),
        ("prediction-sets/1/confused?truth=1&predicted=9", 400, "0 (background) to 2"),
        ("runs/1/checkpoints/999/proposals?image=1", 404, "no checkpoint 999"),
        ("runs/1/checkpoints/1/proposals?image=1&top=0", 400, "top"),
        ("runs/1/checkpoints/1/proposals?image=1", 404, "weights of Epoch 4 are gone"),
    ],
)
def test_what_cannot_be_answered_says_why(client, path, status, said):
    answer = client.get(path)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_proposals_ask_for_the_image_and_as_many_as_wanted(client, monkeypatch):
    monkeypatch.setattr(proposals, "propose", lambda services, slug, *given: {"given": given})
    assert client.get("runs/1/checkpoints/2/proposals?image=3&top=100").json() == {"given": [1, 2, 3, 100]}
