"""What tests of whole runs set up alike."""

import pytest

from app.pipeline.models import build
from app.pipeline.train import run
from tests.pipeline.train.tiny_dataset import construct_tiny_with_all_that_changes


@pytest.fixture
def tiny_model(monkeypatch):
    monkeypatch.setattr(build, "construct", construct_tiny_with_all_that_changes)


@pytest.fixture
def saves_after_every_step(monkeypatch):
    monkeypatch.setattr(run, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(run, "MAX_SAVE_SHARE", float("inf"))
