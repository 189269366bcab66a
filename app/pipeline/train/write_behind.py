"""Checkpoints are written while the training goes on: its thread only copies what they hold."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from app.pipeline.train.checkpoint import save_checkpoint


class WriteBehind:
    """Writes files in the order they come in, one at a time, in a thread of its own.

    Once one has failed those behind it are not written. The error is raised by the next call of ``write``, ``collect``
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

    def write(
        self,
        path: Path,
        contents: dict[str, Any],
        then: Callable[[str], None],
        before_placing: Callable[[str], None] | None = None,
        late: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """Have ``contents`` written, as they are now, by ``save_checkpoint``; ``then`` is called with the SHA-256.

        ``late`` gives what belongs into the file and is known only when all earlier ones are in place. All three
        functions are called in the thread. Waits for an earlier file of that name.
        """
        while any(path == earlier for earlier, _ in self._under_way):
            self._take_first()
        work = partial(self._write, path, _copy_of(contents), then, before_placing, late)
        self._under_way.append((path, self._thread.submit(work)))

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

    def _write(
        self,
        path: Path,
        contents: dict[str, Any],
        then: Callable[[str], None],
        before_placing: Callable[[str], None] | None,
        late: Callable[[], dict[str, Any]],
    ) -> None:
        if self._has_failed:
            return
        try:
            then(save_checkpoint(path, {**contents, **late()}, before_placing))
        except BaseException:
            self._has_failed = True
            raise


def _copy_of(value: Any) -> Any:
    """Plain values with copies of their tensors, on the CPU in the layout they have."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copy_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy_of(item) for item in value)
    return value
