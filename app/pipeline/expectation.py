"""What a value must be, in words, read from the JSON schema of its model: the form and refusals say the same."""

import json
import reprlib
from typing import Any

from pydantic import BaseModel

_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "object": "a record with names and values",
    "array": "a list",
}
# What pydantic refuses for the value itself; anything else brings a text of its own.
_OF_THE_VALUE = ("_type", "_parsing", "_than", "_equal", "_of", "_from_float", "literal_error", "finite_number")
_TOLD = {"missing": "is missing", "extra_forbidden": "is not known here"}
_OF_THE_LENGTH = ("too_short", "too_long")


def explain_limits(schema: dict[str, Any]) -> str:
    """The range of a number: "from 64 to 2048, a multiple of 32"; "" without one."""
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    top = f"{_number(high)}" if high is not None else f"below {_number(below)}" if below is not None else ""
    if low is not None:
        words = f"from {_number(low)} to {top}" if top else f"of at least {_number(low)}"
    elif above is not None:
        words = f"above {_number(above)}" + (f", at most {top}" if high is not None else f" and {top}" if top else "")
    else:
        words = f"of at most {top}" if high is not None else top
    return f"{words}, a multiple of {schema['multipleOf']:g}" if "multipleOf" in schema else words


def explain_error(model: type[BaseModel], error: dict[str, Any]) -> str:
    """What must hold and what was found, for one of ``ValidationError.errors()``; naming the place is the caller's."""
    kind = error["type"]
    found = f"got {reprlib.repr(error['input'])}"
    if kind in _TOLD:
        return _TOLD[kind]
    schema = _schema_at(model, error["loc"])
    if kind in _OF_THE_LENGTH:
        return f"must have {_length(schema)}, got {len(error['input'])}"
    if kind.endswith(_OF_THE_VALUE):
        return f"must be {_expected(schema)}, {found}"
    if kind == "value_error":
        return error["msg"].removeprefix("Value error, ")  # of a validator of ours, which says what it found
    return f"{error['msg']}, {found}"


def _expected(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        *others, last = (repr(value) for value in schema["enum"])
        return f"{', '.join(others)} or {last}" if others else last
    words = f"{_KINDS.get(schema.get('type', ''), 'another value')} {explain_limits(schema)}"
    return words.strip()


def _length(schema: dict[str, Any]) -> str:
    low, high = schema.get("minItems"), schema.get("maxItems")
    if low == high:
        return f"{low} values"
    bounds = [f"at least {low}" if low is not None else "", f"at most {high}" if high is not None else ""]
    return f"{' and '.join(bound for bound in bounds if bound)} values"


def _schema_at(model: type[BaseModel], place: tuple[str | int, ...]) -> dict[str, Any]:
    """The part of the model's schema that a value at ``place`` must meet; {} where the schema says nothing of it."""
    whole = model.model_json_schema()
    schema = whole
    for part in place:
        if isinstance(part, int):
            items = schema.get("prefixItems", [])
            schema = items[part] if part < len(items) else schema.get("items", {})
        else:
            schema = schema.get("properties", {}).get(part, schema.get("additionalProperties") or {})
        if "$ref" in schema:
            schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _number(value: float) -> str:
    return json.dumps(int(value) if float(value).is_integer() else value)
