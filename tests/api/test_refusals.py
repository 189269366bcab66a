"""Malformed requests to every route are refused in plain words, whatever pydantic says about them.

What each route takes is read from the description that FastAPI makes of it; each value in turn is replaced by ones that
do not fit. No route does anything: there are no services behind them.
"""

import json
import re
from dataclasses import dataclass

import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient

from app.api import app as web_app
from app.api import failures
from app.errors import NotFound

ODD = ("x", 1.5, -(10**6), float("nan"), None, "\ud800", "x" * 2000, ["x"], {"x": 1}, "9" * 5000)
TEXTS = ("x", "1.5", "nan", "-1000000", "9" * 5000)
PYDANTIC = re.compile(
    "Input should|Field required|should have at|should be|Extra inputs|Unable to parse|valid dictionary|JSON decode"
    r"|Expecting|_type|_parsing|body\b"
)


@dataclass(frozen=True)
class Route:
    """A route, with what it takes that no route before it took."""

    method: str
    path: str
    parameters: list
    query: dict
    body: dict | None
    is_body_new: bool


class Nothing:
    """Services that have none of what is asked for."""

    def __getattr__(self, name):
        raise NotFound("There is nothing.")


@pytest.fixture(scope="module")
def types():
    """Types of pydantic's errors that came up, with what was answered."""
    return {}


@pytest.fixture(scope="module")
def app(types):
    app = FastAPI()
    failures.install(app)

    async def note(request, error):
        response = await failures._validation_error(request, error)
        for problem in error.errors():
            types.setdefault(problem["type"], []).append(json.loads(response.body)["error"])
        return response

    app.add_exception_handler(RequestValidationError, note)
    for module in web_app.ROUTES:
        app.include_router(module.build_router(Nothing()))
    return app


def routes_of(app):
    """What each route takes, references resolved, and what of it no route before took."""
    whole = app.openapi()

    def resolve(part):
        if isinstance(part, dict) and "$ref" in part:
            return resolve(whole["components"]["schemas"][part["$ref"].rpartition("/")[2]])
        if isinstance(part, dict):
            return {name: resolve(value) for name, value in part.items()}
        return [resolve(value) for value in part] if isinstance(part, list) else part

    known = set()

    def is_new(part):
        text = json.dumps(part, sort_keys=True)
        return text not in known and not known.add(text)

    for path, methods in whole["paths"].items():
        for method, about in methods.items():
            body = about.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            parameters = about.get("parameters", [])
            needed = [one for one in parameters if one["in"] == "query" and one["required"]]
            yield Route(
                method=method,
                path=path,
                parameters=[one for one in parameters if is_new(one)],
                query={one["name"]: fitting(one["schema"]) for one in needed},
                body=resolve(body),
                is_body_new=is_new(body),
            )


def fitting(schema):
    """A value that a schema takes."""
    if "anyOf" in schema:
        return fitting(schema["anyOf"][0])
    if "enum" in schema or "const" in schema:
        return schema.get("enum", [schema.get("const")])[0]
    kind = schema.get("type")
    if kind == "object":
        known = schema.get("properties", {})
        return {name: fitting(known[name]) for name in known}
    if kind == "array":
        return [fitting(part) for part in schema.get("prefixItems", [schema.get("items", {})])]
    return {"integer": schema.get("minimum", 1), "number": 1, "boolean": True, "string": "x"}.get(kind)


def places_in(schema, place=()):
    """Where a body of a schema has values."""
    yield place
    for branch in schema.get("anyOf", []):
        yield from list(places_in(branch, place))[1:]
    for name, part in schema.get("properties", {}).items():
        yield from places_in(part, (*place, name))
    for number, part in enumerate(schema.get("prefixItems", [])):
        yield from places_in(part, (*place, number))
    if schema.get("type") == "array" and "items" in schema:
        yield from places_in(schema["items"], (*place, 0))


def with_value(body, place, value):
    """A copy of a body with another value at a place; None where the body is of another kind there."""
    if not place:
        return value
    first, *rest = place
    if isinstance(body, dict):
        return {**body, first: with_value(body.get(first, {}), rest, value)}
    if isinstance(body, list) and isinstance(first, int):
        return [with_value(body[first] if first < len(body) else {}, rest, value), *body[1:]]
    return {first: with_value({}, rest, value)} if isinstance(first, str) else [with_value({}, rest, value)]


def name_of(place):
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def requests_of(route):
    """(name of the field, its value, address, request) of each value that a route is not made for."""
    rest = {"params": route.query} | ({} if route.body is None else {"json": fitting(route.body)})
    for one in route.parameters:
        for text in TEXTS:
            address = route.path.replace(f"{{{one['name']}}}", text) if one["in"] == "path" else route.path
            given = {"params": {**route.query, one["name"]: text}} if one["in"] == "query" else {}
            yield one["name"], text, re.sub(r"\{\w+\}", "1", address), rest | given
    if route.body is None or not route.is_body_new:
        return
    whole, plain = fitting(route.body), re.sub(r"\{\w+\}", "1", route.path)
    bodies = [
        (name_of(place), value, with_value(whole, place, value)) for place in places_in(route.body) for value in ODD
    ]
    for name in route.body.get("properties", {}):
        bodies.append((name, "nothing", {key: value for key, value in whole.items() if key != name}))
    bodies.append(("ß", 1, {**whole, "ß\ud800" * 99: 1}))
    for name, value, body in bodies:
        yield name, value, plain, {"content": json.dumps(body), "headers": JSON}


JSON = {"Content-Type": "application/json"}


def test_each_route_refuses_odd_values_in_words_of_ours(app, types):
    client = TestClient(app, raise_server_exceptions=False)
    num_refused = 0
    for route in routes_of(app):
        for name, value, address, given in requests_of(route):
            answer = client.request(route.method, address, **given)
            told = f"{route.method} {address} {name}={value!r:.40}: {answer.text}"
            assert answer.status_code < 500, told
            if "Check what is named and try again." not in answer.text:
                continue  # the types fit: a service refused it, or nothing is there
            error = answer.json()["error"]
            num_refused += 1
            assert not PYDANTIC.search(error), told
            assert "another value" not in error, told
            assert error.endswith(".") and len(error) < 700, told
            assert re.split(r"[.[]", name)[0] in error, told
    assert num_refused > 300
    assert set(types) >= {
        "int_parsing", "int_type", "int_from_float", "int_parsing_size", "float_parsing", "float_type", "finite_number",
        "bool_parsing", "bool_type", "string_type", "string_unicode", "string_too_long", "list_type", "tuple_type",
        "dict_type", "model_attributes_type", "literal_error", "missing", "extra_forbidden", "greater_than_equal",
        "less_than_equal",
    }  # fmt: skip


PROJECT = "/api/projects/p"
BOXES = ("put", f"{PROJECT}/images/1/annotations")


def boxes(**box):
    return {"json": {"revision": 1, "annotations": [{"category_id": 1, "bbox": [1, 2, 3, 4], **box}]}}


@pytest.mark.parametrize(
    ("verb", "address", "given", "error"),
    [
        ("get", f"{PROJECT}/runs/one", {}, "run_id must be a whole number, got 'one'."),
        ("get", f"{PROJECT}/stats?image_size=9", {}, "image_size must be a number of at least 32, got '9'."),
        ("get", f"{PROJECT}/audit?set=1&min_score=2", {}, "min_score must be a number of at most 1, got '2'."),
        ("get", f"{PROJECT}/audit", {}, "set is missing."),
        (
            *("get", f"{PROJECT}/compare?sides=x&split=dev", {}),
            "split must be 'train', 'valid', 'test' or nothing, got 'dev'.",
        ),
        (
            *("post", "/api/projects", {"json": {"name": None, "nme": 1}}),
            "name must be a text, got nothing. nme is not known here.",
        ),
        (
            *("post", "/api/projects", {"content": "[1,", "headers": JSON}),
            "The request must be JSON, and cannot be read from character 3 on.",
        ),
        (
            *("post", "/api/projects", {"content": b"a=1"}),
            "The request must be JSON, and its header must say so (Content-Type: application/json).",
        ),
        ("post", "/api/projects", {}, "The request is missing."),
        ("post", "/api/projects", {"json": [1]}, "The request must be a record with names and values, got [1]."),
        (
            *("post", f"{PROJECT}/categories", {"json": {"name": "x" * 1001}}),
            "name must have at most 1000 characters, got 1001.",
        ),
        (
            *("post", f"{PROJECT}/ensembles", {"json": {"top": 1.5, "checkpoint_ids": [1] * 21}}),
            "checkpoint_ids must have at most 20 values, got 21. top must be a whole number, got 1.5.",
        ),
        (
            *(*BOXES, boxes(bbox=[1, "a", 3])),
            "annotations[0].bbox[1] must be a number, got 'a'. annotations[0].bbox[3] is missing.",
        ),
        (
            *(*BOXES, boxes(origin={"segmentation": {"counts": 3, "size": [1, 2]}})),
            "annotations[0].origin.segmentation.counts must be a text or a list, got 3.",
        ),
    ],
    ids=lambda value: value.partition("?")[0] if isinstance(value, str) and value.startswith("/") else "",
)
def test_a_refusal_names_the_field_what_is_wanted_and_what_was_given(app, verb, address, given, error):
    answer = TestClient(app, raise_server_exceptions=False).request(verb, address, **given)
    assert (answer.status_code, answer.json()["error"]) == (400, error)
