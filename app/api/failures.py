"""Every error of a route as ``{error, hint}`` with a fitting status; tracebacks go to the log, never to the user."""

import logging
import secrets

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.errors import Conflict, NotFound, UserError

logger = logging.getLogger(__name__)


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
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    lines = [f"{'.'.join(str(part) for part in p['loc'][1:]) or 'the request'}: {p['msg']}" for p in problems[:5]]
    return answer(400, "; ".join(lines) or "The request is not valid.", "Check the named fields and try again.")


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
