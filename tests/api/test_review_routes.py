import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api import failures
from app.api.routes import review as review_routes
from app.services import jobs, review
from tests.services.review_project import make_review_project


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    return make_review_project(tmp_path)


@pytest.fixture
def client(project):
    app = FastAPI()
    failures.install(app)
    app.include_router(review_routes.build_router(project.services))
    return TestClient(app, base_url=f"http://test/api/projects/{project.slug}")


def test_sets_are_listed_by_run_and_split(client, project):
    assert len(client.get("prediction-sets", params={"run": project.run_id}).json()["sets"]) == 3
    assert client.get("prediction-sets", params={"run": 99}).json() == {"sets": []}
    assert client.get("prediction-sets", params={"split": "test"}).json() == {"sets": []}
    assert client.get("review").json()["runs"][0]["name"] == "First run"


def test_asking_for_predictions_gives_the_set_or_a_job(client, project):
    body = {"checkpoint_id": project.checkpoint_ids[0], "split": "valid"}
    assert client.post("prediction-sets", json=body).json()["set"]["id"] == project.set_ids[0]
    queued = client.post("prediction-sets", json={**body, "split": "test"}).json()["job"]
    assert (queued["kind"], queued["state"]) == ("predict", "queued")


def test_evaluation_has_the_twelve_figures_and_curves(client, project):
    answer = client.get(f"prediction-sets/{project.set_ids[0]}/evaluation").json()
    assert len(answer["coco"]) == 12
    assert len(answer["curves"]["precision"]["1"]) == 101
    assert [row["category_id"] for row in answer["per_class"]] == [3, 13]


def test_images_carry_boxes_bit_for_bit(client, project):
    answer = client.get(f"prediction-sets/{project.set_ids[0]}/images", params={"limit": 500}).json()
    stored = review.images(project.services, project.slug, project.set_ids[0], limit=500)["images"]
    for given, expected in zip(answer["images"], stored, strict=True):
        for name in ("boxes", "scores"):
            back = np.array(given["predictions"][name], np.float32)
            np.testing.assert_array_equal(back, expected["predictions"][name])
        np.testing.assert_array_equal(np.array(given["truth"]["boxes"]), expected["truth"]["boxes"])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("prediction-sets/999/evaluation", 404),
        ("prediction-sets/999/images", 404),
        ("prediction-sets/1/images?limit=100000", 400),
        ("prediction-sets/1/images?sort=beauty", 400),
    ],
)
def test_bad_requests_are_answered_with_a_reason(client, path, status):
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_results_are_a_download_in_coco_format(client, project):
    answer = client.get(f"prediction-sets/{project.set_ids[0]}/results")
    assert "attachment" in answer.headers["content-disposition"]
    assert set(answer.json()[0]) == {"image_id", "category_id", "bbox", "score"}
