"""The Projects page's routes: projects, plans and imports, uploads, reports."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api import failures
from app.api.routes import projects as routes
from app.services import importing, projects, uploads
from app.services import jobs as job_service
from app.services.context import Services
from app.store.files import Workspace
from tests.services.export_maker import CATEGORIES, Export


@pytest.fixture
def services(tmp_path, monkeypatch):
    monkeypatch.setattr(job_service, "ensure_worker", lambda services: None)  # jobs stay in the queue
    return Services(Workspace(tmp_path / "projects"))


def client_at(services, address):
    app = FastAPI()
    failures.install(app)
    app.include_router(routes.build_router(services))
    return TestClient(app, client=(address, 5000))


@pytest.fixture
def client(services):
    return client_at(services, "127.0.0.1")


@pytest.fixture
def export():
    return Export().add("train", "a.jpg", [(1, [1, 2, 30, 20])]).add("valid", "b.jpg", [(2, [0, 0, 9, 9])])


def test_life_of_a_project(client):
    assert client.get("/api/projects").json()["projects"] == []
    made = client.post("/api/projects", json={"name": "Cats"})
    assert made.status_code == 201 and made.json()["project"]["slug"] == "cats"
    assert client.patch("/api/projects/cats", json={"name": "<b>Cats"}).json()["project"]["name"] == "<b>Cats"
    assert client.post("/api/projects/cats/open").json()["project"]["slug"] == "cats"
    assert client.post("/api/projects/cats/duplicate", json={}).json()["project"]["name"] == "<b>Cats copy"
    assert ".trash" in client.delete("/api/projects/cats").json()["trash"]
    assert [project["slug"] for project in client.get("/api/projects").json()["projects"]] == ["b-cats-copy"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/projects", {"name": " "}, 400),
        ("POST", "/api/projects", {}, 400),
        ("POST", "/api/projects", {"name": "x", "more": 1}, 400),
        ("GET", "/api/projects/none", None, 404),
        ("PATCH", "/api/projects/none", {"name": "x"}, 404),
        ("DELETE", "/api/projects/none", None, 404),
        ("DELETE", "/api/projects/..", None, 404),  # the client itself takes the dots away: no such route
        ("DELETE", "/api/projects/%2E%2E", None, 400),
        ("POST", "/api/projects/none/restore", None, 404),
        ("GET", "/api/projects/none/report", None, 404),
        ("POST", "/api/projects/none/import", {"path": "/tmp"}, 404),
        ("DELETE", "/api/uploads/%2E%2E", None, 404),
        ("DELETE", "/api/uploads/00000000000000000000000000000000", None, 404),
    ],
)
def test_bad_requests_are_answered_with_the_reason(client, services, method, path, body, status):
    answer = client.request(method, path, json=body)
    assert answer.status_code in (status, 405) and answer.json()["error"]
    assert services.workspace.root.is_dir()


def test_plan_then_import_job(client, services, export, tmp_path):
    path = str(export.folder(tmp_path / "e"))
    plan = client.post("/api/import-plan", json={"path": f' "{path}" '}).json()["plan"]
    assert (plan["images"], plan["splits"]) == (2, {"train": 1, "valid": 1})
    assert services.workspace.slugs() == []  # a plan writes nothing
    client.post("/api/projects", json={"name": "Cats"})
    mapping = {"cat": "Katze"}
    job = client.post("/api/projects/cats/import", json={"path": path, "mapping": mapping}).json()["job"]
    assert (job["kind"], job["state"]) == ("import", "queued")
    assert job["payload"] == {"path": path, "options": {"mapping": mapping, "merge": False, "allow_bare": False}}
    importing.import_dataset(services, "cats", job["payload"]["path"], **job["payload"]["options"])
    (report,) = client.get("/api/projects/cats/report").json()["reports"]
    assert report["per_split"]["train"]["classes"] == {"Katze": 1, "dog": 0}
    plan = client.post("/api/import-plan", json={"path": path, "project": "cats"}).json()["plan"]
    assert [one["is_new"] for one in plan["classes"]] == [True, False] and plan["project_images"] == 2


def test_classes_of_one_name_are_told_apart_from_other_refusals(client, tmp_path):
    export = Export([*CATEGORIES, {"id": 3, "name": "cat"}]).add("train", "a.jpg", [(3, [1, 1, 5, 5])])
    path = str(export.folder(tmp_path / "e"))
    answer = client.post("/api/import-plan", json={"path": path})
    assert (answer.status_code, answer.json()["code"]) == (409, "same_name")
    assert client.post("/api/import-plan", json={"path": path, "merge": True}).status_code == 200
    answer = client.post("/api/import-plan", json={"path": str(tmp_path / "nowhere")})
    assert answer.status_code == 400 and "code" not in answer.json()


def test_paths_are_taken_only_on_this_machine(services, export, tmp_path):
    path = str(export.folder(tmp_path / "e"))
    projects.create_project(services, "Cats")
    far = client_at(services, "192.168.1.7")
    assert far.get("/api/projects").json()["is_local"] is False
    for route in ("/api/import-plan", "/api/projects/cats/import"):
        answer = far.post(route, json={"path": path})
        assert answer.status_code == 400 and "only on the machine" in answer.json()["error"]
    near = client_at(services, "::1")
    assert near.get("/api/projects").json()["is_local"] is True
    assert near.post("/api/import-plan", json={"path": path}).status_code == 200


@pytest.mark.parametrize("body", [{}, {"path": "/tmp", "upload_id": "0" * 32}, {"path": "  "}])
def test_a_dataset_comes_from_one_place(client, body):
    answer = client.post("/api/import-plan", json=body)
    assert answer.status_code == 400 and "either" in answer.json()["error"]


def test_upload_is_planned_and_imported_and_then_gone(client, services, export, tmp_path):
    content = export.zip(tmp_path / "e.zip").read_bytes()
    answer = client.post("/api/uploads", params={"name": "../../My export.zip"}, content=content)
    assert answer.status_code == 201
    upload = answer.json()
    assert (upload["name"], upload["size_bytes"]) == ("My export.zip", len(content))
    path = uploads.upload_path(services, upload["upload_id"])
    assert services.workspace.hidden("uploads") in path.parents
    plan = client.post("/api/import-plan", json={"upload_id": upload["upload_id"]}).json()["plan"]
    assert (plan["source"], plan["images"]) == ("My export.zip", 2)
    uploads.release(services, path)
    assert client.post("/api/import-plan", json={"upload_id": upload["upload_id"]}).status_code == 404


def test_only_uploads_are_released(services, tmp_path):
    mine = tmp_path / "a" / "b.zip"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    uploads.release(services, mine)
    assert mine.exists()


def test_upload_that_is_too_large_leaves_nothing(client, services, monkeypatch):
    for module in (routes, uploads):
        monkeypatch.setattr(module, "MAX_TOTAL_BYTES", 1000)
    assert client.post("/api/uploads", content=b"x" * 2000).status_code == 400
    undeclared = (b"x" * 100 for _ in range(20))  # a stream has no content-length
    assert client.post("/api/uploads", content=undeclared).status_code == 400
    assert list(services.workspace.hidden_folder("uploads").iterdir()) == []


def test_old_uploads_are_swept_by_the_next(client, services, monkeypatch):
    first = client.post("/api/uploads", content=b"one").json()["upload_id"]
    monkeypatch.setattr(uploads, "KEPT_S", -1.0)
    second = client.post("/api/uploads", content=b"two").json()["upload_id"]
    assert [folder.name for folder in services.workspace.hidden_folder("uploads").iterdir()] == [second]
    assert client.delete(f"/api/uploads/{first}").status_code == 404
    assert client.delete(f"/api/uploads/{second}").status_code == 200


def test_damaged_project_is_listed_and_restored(client, services):
    client.post("/api/projects", json={"name": "Cats"})
    services.database("cats").backup()
    services.files("cats").database.write_bytes(b"rubbish" * 1000)
    for suffix in ("-wal", "-shm"):
        services.files("cats").database.with_name(f"project.db{suffix}").unlink(missing_ok=True)
    services.forget("cats")
    (listed,) = client.get("/api/projects").json()["projects"]
    assert "damaged" in listed["problem"] and listed["has_backup"]
    assert client.post("/api/projects/cats/restore").json()["project"]["problem"] == ""


def test_demo_leads_to_a_page(client, monkeypatch):
    monkeypatch.setattr(routes.demo, "start_demo", lambda services: "/train?project=demo&run=1")
    assert client.post("/api/demo").json() == {"page": "/train?project=demo&run=1"}
