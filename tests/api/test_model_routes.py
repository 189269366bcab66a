"""Models over HTTP: the table of the picker, cards, measuring."""

import shutil

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api import failures
from app.api.routes import models as model_routes
from app.services import jobs, models
from app.services.context import Services
from app.store.files import Workspace
from tests.services.imported_project import import_small_project


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    services = Services(Workspace(shutil.copytree(import_small_project(tmp_path / "made"), tmp_path / "projects")))
    app = FastAPI()
    failures.install(app)
    app.include_router(model_routes.build_router(services))
    return TestClient(app, base_url=f"http://test/api/projects/{services.workspace.slugs()[0]}/")


def test_table_is_by_rising_size_and_follows_the_channels(client):
    color, gray = client.get("models").json(), client.get("models", params={"channels": 1}).json()
    counts = [model["parameters"] for model in color["models"]]
    assert counts == sorted(counts)
    assert sum(counts) > sum(model["parameters"] for model in gray["models"])
    assert client.get("models", params={"channels": 2}).status_code == 400


def test_measurement_is_a_job_that_needs_a_known_model(client):
    answer = client.post("models/measure", json={"models": ["fasterrcnn_resnet18_fpn"], "config": {"image_size": 96}})
    assert (answer.json()["job"]["kind"], answer.json()["job"]["state"]) == ("measure", "queued")
    assert client.post("models/measure", json={"models": ["no"]}).status_code == 400


def test_cards_come_from_the_helper_and_from_runs(client, monkeypatch):
    monkeypatch.setattr(models, "describe_card", lambda services, slug, values: {"model": values["model"]})
    assert client.post("models/card", json={"config": {"model": "x"}}).json() == {"model": "x"}
    assert client.get("runs/3/model").status_code == 404
