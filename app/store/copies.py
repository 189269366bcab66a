"""A copy of a project's database under another path."""

import shutil
import time
from pathlib import Path

from app.store.database import ProjectDatabase


def copy_database(source: ProjectDatabase, target: Path) -> ProjectDatabase:
    """Copy the database, consistent even while others write; jobs that are not over are interrupted in the copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source.backup(), target)
    copy = ProjectDatabase(target)
    copy.open_checked()
    with copy.write() as db:
        db.execute(
            "UPDATE job SET state = 'interrupted', ended_at = ?, pid = NULL,"
            " error = 'The project was duplicated while this job was unfinished.'"
            " WHERE state IN ('queued', 'running', 'stopping', 'paused')",
            [time.time()],
        )
    return copy
