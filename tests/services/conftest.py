"""A workspace and a small export."""

import pytest

from app.services.context import Services
from app.store.files import Workspace
from tests.services.export_maker import Export


@pytest.fixture
def services(tmp_path):
    return Services(Workspace(tmp_path / "projects"))


@pytest.fixture
def export():
    """Two images in train, one in valid, one in test; five boxes."""
    return (
        Export()
        .add("train", "a.jpg", [(1, [1, 2, 30.5, 20.25]), (2, [0, 0, 10, 10])], extra={"name": "a.png"})
        .add("train", "b.jpg", [(1, [5.125, 5, 3, 3])])
        .add("valid", "c.jpg", [(2, [10, 10, 20, 20])])
        .add("test", "d.jpg", [(1, [10, 10, 20, 20])])
    )
