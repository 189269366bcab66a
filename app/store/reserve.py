"""Room kept on the disk for the moment when it is full: given back then, so that it can be recorded what happened.

Even an UPDATE or a DELETE needs room for its journal.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from app.pipeline.faults import is_disk_full

logger = logging.getLogger(__name__)

RESERVE_BYTES = 4_000_000


def lay_in(path: Path) -> None:
    """See to it that the reserve is there; on a disk that has no room for it there is none."""
    if path.is_file() and path.stat().st_size == RESERVE_BYTES:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(RESERVE_BYTES))  # not zeros: some file systems keep those without room
    except OSError as error:
        logger.warning("no room for a reserve of %d bytes: %s", RESERVE_BYTES, error)
        path.unlink(missing_ok=True)


def with_reserve(path: Path, write: Callable[[], None]) -> None:
    """Call ``write``; when it finds the disk full, once more without the reserve."""
    try:
        write()
    except Exception as error:
        if not path.exists() or not is_disk_full(error, path.parent):
            raise
        logger.debug("the disk is full: giving up the reserve to write down what happened")
        path.unlink()
        write()
