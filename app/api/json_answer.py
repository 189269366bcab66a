"""Answers with many numbers."""

from typing import Any

import orjson
from fastapi import Response


def json_answer(value: Any, headers: dict[str, str] | None = None) -> Response:  # noqa: ANN401 (any JSON value)
    """JSON straight from arrays: a page of predictions has many numbers."""
    content = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json", headers=headers)
