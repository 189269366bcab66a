"""The routes of the Augment page, on an app of their own."""

from base64 import b64decode

import cv2
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api import failures
from app.api.routes import augment
from app.services import projects
from app.services.context import Services
from app.store.files import Workspace
from tests.services.augment_project import put_image

FLIP = {"name": "HorizontalFlip", "probability": 1.0, "strength": {}, "is_enabled": True}


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    return Services(Workspace(tmp_path_factory.mktemp("projects")))


@pytest.fixture(scope="module")
def client(services):
    app = FastAPI()
    failures.install(app)
    app.include_router(augment.build_router(services))
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def slug(services):
    return projects.create_project(services, "routes")


@pytest.fixture(scope="module")
def image_id(services, slug):
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[:, :40] = 255
    return put_image(services, slug, cv2.imencode(".png", pixels)[1].tobytes())


def test_catalogue_lists_sliders_and_presets(client):
    answer = client.get("/api/augment/catalogue").json()
    by_name = {entry["name"]: entry for entry in answer["steps"]}
    assert by_name["Rotate"]["kind"] == "geometry"
    assert by_name["Rotate"]["sliders"] == [
        {"name": "limit", "label": "Largest angle (degrees)", "min": 0, "max": 180, "step": 1, "default": 20}
    ]
    names = [preset["name"] for preset in answer["presets"]]
    assert names == ["none", "flips", "gastroscopy", "gastroscopy_mixing", "backbones"]
    assert answer["helper"] in ("off", "warming", "ready")


def test_chain_is_saved_and_read_back(client, slug):
    path = f"/api/projects/{slug}/augmentation"
    suggested = client.get(path).json()["steps"]
    assert [step["name"] for step in suggested] == ["HorizontalFlip"]
    assert client.put(path, json={"steps": [FLIP]}).json() == {"steps": [FLIP]}
    assert client.get(path).json() == {"steps": [FLIP]}
    client.put(path, json={"steps": []})
    assert client.get(path).json() == {"steps": []}  # none on purpose is kept too


def test_preview_is_pictures_with_boxes(client, slug, image_id):
    body = {"steps": [FLIP], "image_id": image_id, "count": 2, "size": 160}
    answer = client.post(f"/api/projects/{slug}/augmentation/preview", json=body).json()
    first = answer["variants"][0]
    head, _, data = first["image"].partition(",")
    pixels = cv2.imdecode(np.frombuffer(b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert head == "data:image/jpeg;base64"
    assert pixels.shape == (120, 160, 3)
    assert pixels[:, 100:].min() > 200  # the white half is on the right now
    assert (first["boxes"], first["labels"], first["lost"]) == ([[120.0, 20.0, 160.0, 60.0]], [11], 0)
    assert len(answer["variants"]) == 2


def test_curve_is_saved_and_drawn_over_the_epochs_of_a_run(client, slug):
    path = f"/api/projects/{slug}/augmentation/curve"
    before = client.get(path).json()
    assert (before["curve"], before["off_epochs"], set(before["shares"])) == ("constant", 0, {1})
    assert len(before["shares"]) == before["epochs"]
    after = client.put(path, json={"curve": "linear", "off_epochs": 2}).json()
    assert after["shares"][-3:][1:] == [0, 0]
    assert after == client.get(path).json()
    assert client.put(path, json={"curve": "square"}).status_code == 400


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"steps": [{"name": "Nope"}]}, 400, "step 1: there is no augmentation 'Nope'"),
        ({"count": 17}, 400, "count"),  # more variants than anybody looks at
        ({"size": 100_000}, 400, "size"),  # would fill the memory
        ({"seed": -1}, 400, "seed"),
        ({"seeds": 1}, 400, "seeds"),  # misspelt
        ({"image_id": 12345}, 404, "no image 12345"),
    ],
)
def test_wrong_request_is_an_error_that_says_what(client, slug, image_id, changes, status, said):
    body = {"steps": [FLIP], "image_id": image_id} | changes
    answer = client.post(f"/api/projects/{slug}/augmentation/preview", json=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_unknown_project_is_not_found(client):
    assert client.get("/api/projects/nobody/augmentation").status_code == 404
