"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is loaded: its threads would spin beside those of the others
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real Roboflow exports; tests that want it are skipped where it is not there."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ANCHORAGE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set ANCHORAGE_TEST_DATA)")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first; those with a browser last: their event loop stays on the main thread to the end."""
    items.sort(key=lambda item: "e2e" in item.path.parts)
