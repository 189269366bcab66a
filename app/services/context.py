"""What every use case starts from: the workspace and its opened projects."""

import threading

from app.store.database import ProjectDatabase
from app.store.files import ProjectFiles, Workspace


class Services:
    """A workspace with its projects; safe to share between threads (a connection is opened per call)."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._checked: set[str] = set()
        self._lock = threading.Lock()

    def files(self, slug: str) -> ProjectFiles:
        """Paths of an existing project; raises NotFound."""
        return self.workspace.project(slug)

    def database(self, slug: str) -> ProjectDatabase:
        """The project's database, checked and brought up to date the first time; raises NotFound."""
        database = ProjectDatabase(self.files(slug).database)
        with self._lock:
            if slug not in self._checked:
                database.open_checked()
                self._checked.add(slug)
        return database

    def forget(self, slug: str) -> None:
        """Check the project again at its next use: its files were moved, replaced or deleted."""
        with self._lock:
            self._checked.discard(slug)
