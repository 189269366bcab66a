"""A lab whose workers and jobs are gone when the test is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.jobs.process import end_tree
from tests.jobs.job_lab import ROOT, Lab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    lab = Lab(tmp_path / "projects")
    yield lab
    for worker in lab.workers:
        end_tree(worker.pid, by_force=True)
        worker.wait(10)
    started = lab.workspace.root / "started"
    if started.exists():
        end_tree(int(started.read_text()), by_force=True)
