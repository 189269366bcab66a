"""Every error of a route as ``{error, hint}`` with a fitting status; tracebacks go to the log, never to the user."""

import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.errors import Conflict, NotFound, UserError
from app.pipeline.expectation import explain_by_type

logger = logging.getLogger(__name__)

MAX_TOLD = 5  # fields of one request
MAX_NAME = 80


def install(app: FastAPI) -> None:
    """Register the handlers on the app."""
    app.add_exception_handler(UserError, _user_error)
    app.add_exception_handler(ValueError, _value_error)
    app.add_exception_handler(OverflowError, _overflow)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def answer(status: int, error: str, hint: str = "") -> JSONResponse:
    """The one form of an error."""
    return JSONResponse({"error": error, "hint": hint}, status_code=status)


async def _user_error(request: Request, error: Exception) -> JSONResponse:
    status = 404 if isinstance(error, NotFound) else 409 if isinstance(error, Conflict) else 400
    return answer(status, getattr(error, "message", str(error)), getattr(error, "hint", ""))


async def _value_error(request: Request, error: Exception) -> JSONResponse:
    """A refusal by the pipeline, whose ValueError classes speak to the user; a bare one may be a slip of ours."""
    if type(error) is ValueError or type(error).__module__.partition(".")[0] != "app":
        return await _unexpected(request, error)
    return answer(400, getattr(error, "message", str(error)), getattr(error, "hint", ""))


async def _overflow(request: Request, error: Exception) -> JSONResponse:
    """A number beyond what SQLite can hold: nothing is stored under it."""
    return answer(404, "There is nothing with so large a number.", "Open it again from its page.")


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    problems, body = (error.errors(), error.body) if isinstance(error, RequestValidationError) else ([], None)
    return answer(400, explain_problems(problems, body), "Check what is named and try again.")


def explain_problems(problems: Sequence[Mapping[str, Any]], body: Any = None) -> str:  # noqa: ANN401 (any JSON value)
    """A sentence for each field of a request that does not fit: its name, what it must be and what was given.

    A value that may be of several kinds has a problem with each of them; where one is about a part of the value, it is
    the one that was meant.
    """
    by_field: dict[tuple[str | int, ...], list[str]] = {}
    for problem in problems:
        by_field.setdefault(_place_of(problem, body), []).append(_explain(problem))
    inner = [place for place in by_field if not any(_is_inside(other, place) for other in by_field)]
    sentences = [f"{_name_of(place)} {_join(by_field[place])}." for place in inner[:MAX_TOLD]]
    return " ".join(sentences) or "The request is not valid."


def _explain(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "json_invalid":
        return f"must be JSON, and cannot be read from character {problem['loc'][-1]} on"
    if isinstance(problem["input"], bytes):
        return "must be JSON, and its header must say so (Content-Type: application/json)"
    return explain_by_type(problem)


def _place_of(problem: Mapping[str, Any], body: Any) -> tuple[str | int, ...]:  # noqa: ANN401 (any JSON value)
    """Where a problem is in its part of the request, without the names of kinds that pydantic puts in between."""
    part_of_request, *place = problem["loc"]
    if problem["type"] == "json_invalid":
        return ()
    if part_of_request != "body":
        return tuple(place)
    kept, value = [], body
    for part in place:
        if part in (value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()):
            kept.append(part)
            value = value[part]
    return (*kept, place[-1]) if problem["type"] == "missing" and place else tuple(kept)


def _is_inside(place: tuple[str | int, ...], other: tuple[str | int, ...]) -> bool:
    return len(place) > len(other) and place[: len(other)] == other


def _name_of(place: tuple[str | int, ...]) -> str:
    """A field as scripts write it: annotations[0].bbox[1]. What a stranger called it is shown as it is, but short."""
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    return name[:MAX_NAME].encode("utf-8", "backslashreplace").decode() or "The request"


def _join(texts: Sequence[str]) -> str:
    """What a value must be, of each kind that it may be, and once what was given."""
    given = f", got {texts[0].partition(', got ')[2]}"
    if len(set(texts)) == 1 or not all(text.startswith("must be ") and text.endswith(given) for text in texts):
        return texts[0]
    kinds = dict.fromkeys(text.removeprefix("must be ").removesuffix(given) for text in texts)
    return f"must be {' or '.join(kinds)}{given}"


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else ""
    response = answer(status, str(detail) or f"HTTP {status}")
    response.headers.update(getattr(error, "headers", None) or {})
    return response


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    reference = secrets.token_hex(4)
    logger.error("unexpected error %s in %s %s", reference, request.method, request.url.path, exc_info=error)
    return answer(
        500, f"Something unexpected happened (reference {reference}).", "The log of launch.py has the details under it."
    )
