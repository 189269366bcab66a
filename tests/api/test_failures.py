"""Errors of a route: one form, a fitting status, nothing of the inside."""

import logging

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel

from app.api import failures
from app.errors import BadRequest, Conflict, ImportRefused, NotFound


class Body(BaseModel):
    name: str


class Misfit(ValueError):
    """Stands for a refusal by the pipeline, whose classes live under app."""

    __module__ = "app.pipeline.something"


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    failures.install(app)
    errors = {
        "missing": NotFound("There is no image 7.", "Go back to the data page."),
        "conflict": Conflict("Another tab was first.", "Choose one."),
        "bad": BadRequest("name must not be empty, found ''.", "Give it one."),
        "refused": ImportRefused("The zip is encrypted."),
        "pipeline": Misfit("lr must be above 0, found -1"),
        "slip": KeyError("secret/path/on/disk"),
        "large": OverflowError("Python int too large to convert to SQLite INTEGER"),
        "bare": ValueError("not enough values to unpack"),
    }

    @app.get("/{name}")
    def fail(name: str) -> None:
        raise errors[name]

    @app.post("/body")
    def body(body: Body) -> None:
        """Takes a body."""

    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("name", "status", "error", "hint"),
    [
        ("missing", 404, "There is no image 7.", "Go back to the data page."),
        ("conflict", 409, "Another tab was first.", "Choose one."),
        ("bad", 400, "name must not be empty, found ''.", "Give it one."),
        ("refused", 400, "The zip is encrypted.", ""),
        ("pipeline", 400, "lr must be above 0, found -1", ""),
        ("large", 404, "There is nothing with so large a number.", "Open it again from its page."),
    ],
)
def test_refusal_reaches_the_user_with_its_hint(client, name, status, error, hint):
    response = client.get(f"/{name}")
    assert (response.status_code, response.json()) == (status, {"error": error, "hint": hint})


@pytest.mark.parametrize("name", ["slip", "bare"])
def test_slip_of_ours_is_logged_and_not_shown(client, name, caplog):
    with caplog.at_level(logging.ERROR):
        response = client.get(f"/{name}")
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "unpack" not in response.text
    reference = response.json()["error"].partition("reference ")[2].rstrip(").")
    assert len(reference) == 8
    assert any(reference in record.getMessage() and record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("body", "part"),
    [('{"name": 3}', "name"), ("{}", "name"), ("[1]", ""), ("{", "")],
    ids=["wrong type", "missing", "no object", "no JSON"],
)
def test_unfit_body_is_a_bad_request_that_names_the_field(client, body, part):
    response = client.post("/body", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert part in response.json()["error"]
    assert response.json()["hint"]


def test_unknown_route_and_method_have_the_same_form(client):
    assert set(client.get("/no/such/route").json()) == {"error", "hint"}
    response = client.delete("/body")
    assert response.status_code == 405
    assert set(response.json()) == {"error", "hint"}
