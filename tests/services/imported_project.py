"""A workspace with one small imported project."""

from pathlib import Path

from app.services import importing
from app.services.context import Services
from app.store.files import Workspace
from tests.services.export_maker import Export


def import_small_project(folder: Path) -> Path:
    """Two images in train, one in valid, one in test, five boxes; returns the workspace's folder."""
    export = (
        Export()
        .add("train", "a.jpg", [(1, [1, 2, 30.5, 20.25]), (2, [0, 0, 10, 10])])
        .add("train", "b.jpg", [(1, [5.125, 5, 3, 3])])
        .add("valid", "c.jpg", [(2, [10, 10, 20, 20])])
        .add("test", "d.jpg", [(1, [10, 10, 20, 20])])
    )
    workspace = folder / "projects"
    importing.import_as_new_project(Services(Workspace(workspace)), "Cells", export.folder(folder / "export"))
    return workspace
