"""Loading the bytes of a JSON file as real exports hold them: byte order marks, several documents in a row."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from app.pipeline.data.findings import ExportRefused, Finding


def load_json(data: bytes, label: str) -> tuple[Any, list[Finding]]:
    """Parse JSON bytes, with or without a byte order mark; of several documents in a row the fullest is taken.

    Raises ExportRefused with line and column, or with the byte that is not UTF-8 (NaN, Infinity, 1e999 and endless
    nesting are refused too).
    """
    text = _without_mark(data, label)
    try:
        return orjson.loads(text), []
    except orjson.JSONDecodeError as error:
        documents = _documents_in_a_row(text, error)
        if isinstance(text, bytes) and (problem := utf8_problem(data)):
            raise ExportRefused(f"{label} is no UTF-8 text: {problem}.", "Save it as UTF-8.") from error
        if not documents:
            raise ExportRefused(
                f"{label} is no valid JSON: {error}.", "Download the export again, or mend the file at that place."
            ) from error
    fullest = max(documents, key=_num_annotations)
    message = f"the file holds {len(documents)} JSON documents; the one with most annotations was read"
    return fullest, [Finding("fixed", "several_documents", message, where=label)]


def utf8_problem(data: bytes) -> str:
    """Which byte keeps a text from being UTF-8, and where; '' when none does."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return f"UTF-8 is expected, found the byte 0x{data[error.start]:02x} at position {error.start} (line {line})"
    return ""


def _num_annotations(document: Any) -> int:
    rows = document.get("annotations") if isinstance(document, dict) else None
    return len(rows) if isinstance(rows, list) else -1


def _without_mark(data: bytes, label: str) -> str | bytes:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise ExportRefused(f"{label} is no readable text ({error}).", "Save it as UTF-8.") from error
    return data.removeprefix(b"\xef\xbb\xbf")


def _documents_in_a_row(text: str | bytes, error: orjson.JSONDecodeError) -> list[Any]:
    """All documents of a file that holds several; empty when what follows the first is no JSON."""
    documents = []
    rest = text if isinstance(text, str) else text.decode("utf-8", "replace")
    while "after document" in str(error) and 0 < error.pos < len(rest):
        documents.append(orjson.loads(rest[: error.pos]))
        rest = rest[error.pos :]
        try:
            return [*documents, orjson.loads(rest)]
        except orjson.JSONDecodeError as next_error:
            error = next_error
    return []


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the cycle collector: a large file then parses four times faster, and parsing makes no cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
