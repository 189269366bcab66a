"""The editor's routes: what they answer, and what they refuse."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api import failures
from app.api.routes import annotations as routes
from app.records import Annotation, NewImage
from app.services import projects
from app.services.context import Services
from app.store import annotations, categories, images
from app.store.files import Workspace

BASE = "/api/projects/cells/images"


@pytest.fixture
def client(tmp_path) -> TestClient:
    """A project of two images; the first has a box with an outline."""
    services = Services(Workspace(tmp_path))
    slug = projects.create_project(services, "Cells")
    with services.database(slug).write() as db:
        categories.insert(db, "red", category_id=0)
        for number in (1, 2):
            image = NewImage(f"{number}.png", f"{number:064x}", "png", 100, 80, "train", str(number), number)
            images.insert(db, image)
        polygon = [[1.5, 2.5, 9.0, 2.5, 9.0, 8.0]]
        annotations.insert_many(db, [Annotation(0, 1, 0, (1.5, 2.5, 9, 8), False, polygon, 77)])
    app = FastAPI()
    failures.install(app)
    app.include_router(routes.build_router(services))
    return TestClient(app, raise_server_exceptions=False)


def test_an_image_opens_with_boxes_and_neighbors(client):
    answer = client.get(f"{BASE}/1?split=train").json()
    assert answer["image"]["file_name"] == "1.png"
    assert (answer["previous"], answer["next"], answer["position"], answer["total"]) == (None, 2, 1, 2)
    (box,) = answer["annotations"]
    assert (box["category_id"], box["bbox"], box["is_crowd"]) == (0, [1.5, 2.5, 9.0, 8.0], False)
    assert box["origin"]["coco_id"] == 77
    assert client.get(f"{BASE}/at/2").json()["image"]["id"] == 2


def test_a_save_answers_with_revision_and_ids(client):
    body = {"revision": 0, "annotations": [{"id": None, "category_id": 0, "bbox": [1, 2, 3.25, 4]}]}
    response = client.put(f"{BASE}/2/annotations", json=body)
    assert response.status_code == 200
    assert response.json()["revision"] == 1
    assert response.json()["annotations"][0]["bbox"] == [1, 2, 3.25, 4]


def test_what_get_gave_can_be_put_back(client):
    opened = client.get(f"{BASE}/1").json()
    rows = [{key: box[key] for key in ("id", "category_id", "bbox", "origin")} for box in opened["annotations"]]
    empty = client.put(f"{BASE}/1/annotations", json={"revision": 0, "annotations": []}).json()
    client.put(f"{BASE}/1/annotations", json={"revision": empty["revision"], "annotations": rows})
    again = client.get(f"{BASE}/1").json()["annotations"][0]
    assert again["origin"] == opened["annotations"][0]["origin"]


def test_a_stale_save_gets_409_with_the_present_boxes(client):
    response = client.put(f"{BASE}/1/annotations", json={"revision": 5, "annotations": []})
    assert response.status_code == 409
    assert response.json()["error"] and response.json()["hint"]
    assert response.json()["current"]["revision"] == 0
    assert response.json()["current"]["annotations"][0]["bbox"] == [1.5, 2.5, 9.0, 8.0]


@pytest.mark.parametrize(
    "body",
    [
        "not json",
        "{}",
        '{"revision": 0, "annotations": [{"category_id": 0, "bbox": [1, 2, 3]}]}',
        '{"revision": 0, "annotations": [{"category_id": 0, "bbox": [1, 2, 3, NaN]}]}',
        '{"revision": 0, "annotations": [{"category_id": 0, "bbox": [1, 2, 3, 1e999]}]}',
        '{"revision": 0, "annotations": [{"category_id": 9, "bbox": [1, 2, 3, 4]}]}',
        '{"revision": 0, "annotations": [{"category_id": 0, "bbox": [1, 2, 1, 4]}]}',
        '{"revision": 0, "annotations": [], "surprise": 1}',
    ],
)
def test_a_bad_body_gets_400_in_words(client, body):
    response = client.put(f"{BASE}/1/annotations", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]
    assert client.get(f"{BASE}/1").json()["image"]["revision"] == 0


@pytest.mark.parametrize("path", [f"{BASE}/99", f"{BASE}/at/3", "/api/projects/none/images/1"])
def test_what_does_not_exist_gets_404(client, path):
    response = client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]
