"""What a value must be, in words: the form, the command line and the routes say the same.

It is read from the JSON schema of the value's model, or, where none is at hand, from the type of pydantic's error.
"""

import json
import reprlib
from collections.abc import Mapping
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
# The part of a schema that the type of an error tells of.
_SCHEMA_BY_TYPE = {
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), {"type": "integer"}),
    **dict.fromkeys(("float_type", "float_parsing"), {"type": "number"}),
    **dict.fromkeys(("bool_type", "bool_parsing"), {"type": "boolean"}),
    **dict.fromkeys(("list_type", "tuple_type"), {"type": "array"}),
    **dict.fromkeys(("dict_type", "model_attributes_type"), {"type": "object"}),
    "string_type": {"type": "string"},
}
_LIMIT_BY_TYPE = {
    "greater_than": ("gt", "exclusiveMinimum"),
    "greater_than_equal": ("ge", "minimum"),
    "less_than": ("lt", "exclusiveMaximum"),
    "less_than_equal": ("le", "maximum"),
}
_WANTED_BY_TYPE = {"finite_number": "a finite number", "string_unicode": "a text of whole characters"}
_LENGTH_BY_TYPE = {"too_short": "minItems", "too_long": "maxItems"}


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


def explain_by_type(error: Mapping[str, Any]) -> str:
    """As :func:`explain_error` for an error whose model is not at hand, which then tells less of what is allowed."""
    kind, given, found = error["type"], error.get("ctx", {}), error["input"]
    if kind in _TOLD:
        return _TOLD[kind]
    if kind in _LENGTH_BY_TYPE:
        bound = given["min_length" if kind == "too_short" else "max_length"]
        return f"must have {_length({_LENGTH_BY_TYPE[kind]: bound})}, got {given['actual_length']}"
    if kind == "string_too_long":
        return f"must have at most {given['max_length']} characters, got {len(found)}"
    if kind in _SCHEMA_BY_TYPE:
        wanted = _expected(_SCHEMA_BY_TYPE[kind])
    elif kind in _LIMIT_BY_TYPE:
        name, key = _LIMIT_BY_TYPE[kind]
        wanted = _expected({"type": "number", key: given[name]})
    elif kind in _WANTED_BY_TYPE:
        wanted = _WANTED_BY_TYPE[kind]
    elif kind == "literal_error":
        wanted = given["expected"].replace("''", "nothing")
    elif kind == "value_error":
        return error["msg"].removeprefix("Value error, ")  # of a validator of ours, which says what it found
    else:
        wanted = "another value"
    return f"must be {wanted}, got {'nothing' if found is None else reprlib.repr(found)}"


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
