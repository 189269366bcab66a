"""One word for one kind of error: what Python writes and what the screen shows are the same."""

import re

from app.pipeline.evaluate.error_budget import KINDS, TOTALS
from app.pipeline.evaluate.error_words import KIND_TITLES, SUSPECT_TITLES, TOTAL_TITLES
from app.pipeline.evaluate.label_audit import KINDS as SUSPECT_KINDS
from tests.ui.conftest import WIDGETS

ENTRY = re.compile(r'\{ key: "(\w+)", name: "([^"]+)"')
SUSPECT = re.compile(r'(\w+): \{ title: "([^"]+)", plural: "([^"]+)"')


def source(name):
    return (WIDGETS / name).read_text(encoding="utf-8")


def test_kinds_of_errors_are_called_alike():
    assert list(KIND_TITLES) == list(KINDS)
    assert ENTRY.findall(source("error_kinds.js")) == list(KIND_TITLES.items())


def test_all_errors_together_are_called_alike():
    assert list(TOTAL_TITLES) == list(TOTALS)
    assert ENTRY.findall(source("review_errors.js")) == list(TOTAL_TITLES.items())


def test_suspects_are_called_alike():
    assert list(SUSPECT_TITLES) == list(SUSPECT_KINDS)
    shown = {kind: (one, several) for kind, one, several in SUSPECT.findall(source("suspects.js"))}
    assert shown == SUSPECT_TITLES
