"""The Data page's routes: pages of images, figures, classes, pictures with their caching."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image as PillowImage

from app.api import failures
from app.api.routes import data as routes
from app.services import importing, projects
from app.services.context import Services
from app.store.files import Workspace
from tests.services.export_maker import Export

BASE = "/api/projects/animals"


def quadrants(width: int = 64, height: int = 48) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (255, 0, 0)
    image[height // 2 :, width // 2 :] = (0, 0, 255)
    return image


def encoded(array: np.ndarray, image_format: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    PillowImage.fromarray(array).save(stream, image_format, **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    """A workspace of eight images: six plain ones, one quarantined (swapped size), one TIFF."""
    export = Export()
    export.add("train", "a.jpg", [(1, [1, 2, 30, 20]), (2, [0, 0, 10, 10])])
    export.add("train", "Bee.jpg", [(1, [5, 5, 3, 3])])
    export.add("train", "empty.jpg")
    export.add("train", "swapped.png", [(2, [2, 40, 20, 20])], stated=(48, 64), content=encoded(quadrants()))
    export.add("train", "scan.png", [(1, [5, 5, 20, 20])], content=encoded(quadrants(), "TIFF"))
    export.add("valid", "c.jpg", [(2, [10, 10, 20, 20])])
    export.add("test", "plain.png", [(1, [10, 10, 20, 20])], content=encoded(quadrants()))
    export.add("test", "wide.jpg", size=(400, 100))
    root = tmp_path_factory.mktemp("data")
    services = Services(Workspace(root / "projects"))
    importing.import_dataset(services, projects.create_project(services, "Animals"), export.folder(root / "export"))
    return root / "projects"


@pytest.fixture
def client(imported, tmp_path) -> TestClient:
    """A fresh copy of the workspace behind the routes."""
    shutil.copytree(imported, tmp_path / "projects")
    app = FastAPI()
    failures.install(app)
    app.include_router(routes.build_router(Services(Workspace(tmp_path / "projects"))))
    return TestClient(app, raise_server_exceptions=False)


def names(client, query: str = "") -> list[str]:
    return sorted(image["file_name"] for image in client.get(f"{BASE}/images?{query}").json()["images"])


def image_named(client, name: str) -> dict:
    (image,) = client.get(f"{BASE}/images", params={"name": name}).json()["images"]
    return image


def test_pages_follow_each_other_by_key(client):
    seen, after = [], 0
    for _ in range(4):
        page = client.get(f"{BASE}/images?limit=2&after={after}").json()
        assert page["total"] == 8
        seen += [image["id"] for image in page["images"]]
        after = page["next"]
    assert after is None
    assert len(set(seen)) == 8
    assert seen == sorted(seen)


def test_images_carry_their_boxes(client):
    image = image_named(client, "a.jpg")
    assert image["boxes"] == [[1, 2, 31, 22, 1], [0, 0, 10, 10, 2]]
    assert (image["width"], image["height"], image["split"], image["num_annotations"]) == (64, 48, "train", 2)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("split=valid", ["c.jpg"]),
        ("category=2", ["a.jpg", "c.jpg", "swapped.png"]),
        ("problem=true", ["swapped.png"]),
        ("problem=false&split=train", ["Bee.jpg", "a.jpg", "empty.jpg", "scan.png"]),
        ("name=bEE", ["Bee.jpg"]),
        ("name=%25", []),  # no wildcard
        ("max_boxes=0", ["empty.jpg", "wide.jpg"]),
        ("min_boxes=2&split=train", ["a.jpg"]),
        ("split=valid&category=1", []),
    ],
)
def test_filters_narrow_the_list(client, query, expected):
    assert names(client, query) == expected


@pytest.mark.parametrize("query", ["limit=0", "limit=100000", "split=all", "after=-1", "category=x"])
def test_odd_queries_are_refused(client, query):
    response = client.get(f"{BASE}/images?{query}")
    assert response.status_code == 400
    assert response.json()["error"]


def test_unknown_project_is_not_found(client):
    assert client.get("/api/projects/none/images").status_code == 404


def test_figures_leave_out_quarantined_images(client):
    stats = client.get(f"{BASE}/stats?image_size=64").json()
    assert (stats["num_images"], stats["num_quarantined"], stats["num_boxes"]) == (7, 1, 6)
    assert stats["image_size"] == 64
    assert sum(stats["box_size"]["counts"]) == 6


def test_classes_are_listed_added_and_renamed(client):
    listed = client.get(f"{BASE}/categories").json()["categories"]
    assert [(item["id"], item["name"], item["num_annotations"]) for item in listed] == [(1, "cat", 4), (2, "dog", 3)]
    name = "<img src=x onerror=alert(1)> ${7*7}"
    added = client.post(f"{BASE}/categories", json={"name": name})
    assert added.status_code == 201
    assert added.json()["category"]["name"] == name
    renamed = client.patch(f"{BASE}/categories/1", json={"name": "lynx"})
    assert renamed.json()["category"] == {
        "id": 1,
        "name": "lynx",
        "supercategory": "animals",
        "position": 0,
        "num_annotations": 4,
    }


@pytest.mark.parametrize(
    ("category_id", "name", "status"), [(1, "dog", 409), (1, "  ", 400), (99, "x", 404), (1, "x" * 300, 400)]
)
def test_class_names_that_cannot_be_are_refused(client, category_id, name, status):
    response = client.patch(f"{BASE}/categories/{category_id}", json={"name": name})
    assert response.status_code == status
    assert response.json()["error"]


def test_image_moves_to_another_split(client):
    image = image_named(client, "c.jpg")
    answer = client.patch(f"{BASE}/images/{image['id']}", json={"split": "test"}).json()
    assert answer["image"]["split"] == "test"
    assert names(client, "split=test") == ["c.jpg", "plain.png", "wide.jpg"]


@pytest.mark.parametrize("rotation", [90, 270])
def test_quarantined_image_is_released_by_choosing_a_rotation(client, rotation):
    image = image_named(client, "swapped.png")
    assert (image["width"], image["height"]) == (64, 48)
    changed = client.patch(f"{BASE}/images/{image['id']}", json={"rotation": rotation}).json()["image"]
    assert (changed["width"], changed["height"], changed["rotation"], changed["problem"]) == (48, 64, rotation, "")
    again = image_named(client, "swapped.png")
    assert again["boxes"] == image["boxes"]
    shown = np.array(PillowImage.open(io.BytesIO(client.get(f"/img/animals/{image['id']}").content)))
    expected = np.rot90(quadrants(), -rotation // 90)
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected)[4:-4:8, 4:-4:8].max() < 40


def test_rotation_in_which_boxes_lie_outside_is_refused(client):
    image = image_named(client, "swapped.png")
    response = client.patch(f"{BASE}/images/{image['id']}", json={"rotation": 180})
    assert response.status_code == 409
    assert "1 of its boxes lie outside" in response.json()["error"]


def test_image_that_is_not_quarantined_is_not_turned(client):
    image = image_named(client, "a.jpg")
    assert client.patch(f"{BASE}/images/{image['id']}", json={"rotation": 90}).status_code == 409


@pytest.mark.parametrize("body", [{"split": "all"}, {"rotation": 45}, {"width": 3}])
def test_odd_changes_are_refused(client, body):
    assert client.patch(f"{BASE}/images/1", json=body).status_code == 400


def test_plain_picture_is_sent_as_stored(client):
    image = image_named(client, "plain.png")
    response = client.get(f"/img/animals/{image['id']}")
    assert response.headers["content-type"] == "image/png"
    assert np.array_equal(np.array(PillowImage.open(io.BytesIO(response.content))), quadrants())


def test_picture_that_browsers_cannot_show_is_rendered(client):
    image = image_named(client, "scan.png")
    response = client.get(f"/img/animals/{image['id']}")
    assert response.headers["content-type"] == "image/jpeg"
    assert PillowImage.open(io.BytesIO(response.content)).size == (64, 48)


@pytest.mark.parametrize("route", ["img", "thumb"])
def test_pictures_are_cached_under_a_versioned_address(client, route):
    image = image_named(client, "plain.png")
    address = f"/{route}/animals/{image['id']}"
    version = f"{image['sha256'][:16]}-0"
    assert "immutable" in client.get(f"{address}?v={version}").headers["cache-control"]
    for other in ("", "0", version[:5], "0" * 16 + "-0"):
        assert "no-cache" in client.get(f"{address}?v={other}").headers["cache-control"]
    etag = client.get(address).headers["etag"]
    known = client.get(address, headers={"If-None-Match": f'"other", {etag}'})
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["etag"] == etag


@pytest.mark.parametrize(("asked", "sent"), [(100, 128), (256, 256), (4000, 400)])
def test_thumbnails_come_in_a_few_sizes(client, asked, sent):
    image = image_named(client, "wide.jpg")
    response = client.get(f"/thumb/animals/{image['id']}?size={asked}")
    assert max(PillowImage.open(io.BytesIO(response.content)).size) == sent


def test_gone_or_unknown_pictures_are_told(client, tmp_path):
    assert client.get("/img/animals/999").status_code == 404
    image = image_named(client, "a.jpg")
    for path in (tmp_path / "projects" / "animals" / "images").rglob(f"{image['sha256']}.*"):
        path.unlink()
    response = client.get(f"/thumb/animals/{image['id']}")
    assert response.status_code == 404
    assert "a.jpg is gone" in response.json()["error"]
