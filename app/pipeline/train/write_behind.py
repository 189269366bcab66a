"""Checkpoints are brought to the disk while the training goes on: its thread only writes them to memory."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from app.pipeline.train.checkpoint import WrittenFile


class WriteBehind:
    """Places files in the order they come in, one at a time, in a thread of its own.

    Once one has failed those behind it are not placed. The error is raised by the next call of ``write``, ``collect``
    or ``finish``, which are for one thread. As a context manager it waits for what is under way.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._under_way: deque[tuple[Path, Future[None]]] = deque()
        self._has_failed = False

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def write(self, path: Path, contents: dict[str, Any]) -> WrittenFile:
        """Write a file to be placed, after an earlier one of that name is in place; ``contents`` may change then."""
        while any(path == earlier for earlier, _ in self._under_way):
            self._take_first()
        return WrittenFile.write(path, contents)

    def place(
        self, written: WrittenFile, then: Callable[[str], None], before: Callable[[str], None] | None = None
    ) -> None:
        """Have a file placed, ``before`` as in WrittenFile.place; ``then`` is called with its SHA-256 in the thread."""
        self._under_way.append((written.path, self._thread.submit(self._place, written, then, before)))

    def collect(self) -> None:
        """Raise what has failed by now."""
        while self._under_way and self._under_way[0][1].done():
            self._take_first()

    def finish(self) -> None:
        """Wait until all is in place."""
        while self._under_way:
            self._take_first()

    def _take_first(self) -> None:
        self._under_way.popleft()[1].result()

    def _place(self, written: WrittenFile, then: Callable[[str], None], before: Callable[[str], None] | None) -> None:
        if self._has_failed:
            return written.discard()
        try:
            then(written.place(before))
        except BaseException:
            self._has_failed = True
            raise
        return None
