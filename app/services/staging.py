"""Images of a source, read, checked and laid in a staging folder under their content's hash, by processes of their own.

Decoding a file that somebody made to be hurtful belongs in a process that may die: the image that ended one is left
out with a line, the others go on.
"""

import hashlib
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for_handles
from pathlib import Path

from app.errors import Cancelled, ImportRefused
from app.pipeline.data.findings import ExportRefused
from app.pipeline.data.image import BadImage, probe_image
from app.pipeline.data.source import Source, open_source
from app.store.files import sync_file

CHUNK = 16  # images a process takes at once: enough to hide the hand-over, few enough to stop quickly
IMAGES_PER_PROCESS = 200  # below this another process costs more time to start than it saves
MAX_PROCESSES = 4


@dataclass(frozen=True, slots=True)
class StagedImage:
    """A checked image. ``problem`` says why it cannot be used; then only ``name`` holds.

    ``width`` and ``height`` are those of the upright picture. ``refusal`` ends the whole import: the source is damaged.
    """

    name: str
    sha256: str = ""
    extension: str = ""
    width: int = 0
    height: int = 0
    needs_rendering: bool = False
    is_deep: bool = False
    problem: str = ""
    refusal: str = ""

    @property
    def file_name(self) -> str:
        return f"{self.sha256}.{self.extension}"


def stage_images(
    source: Source,
    names: Sequence[str],
    folder: Path,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> dict[str, StagedImage]:
    """Check the members ``names`` and write the good ones to ``folder``; returns the outcome by member name.

    ``on_progress(done, total)`` counts images. Raises ImportRefused when the source is damaged, Cancelled on request.
    """
    outcome: dict[str, StagedImage] = {}
    distinct = list(dict.fromkeys(names))
    pending = deque(distinct[start : start + CHUNK] for start in range(0, len(distinct), CHUNK))
    suspects: deque[list[str]] = deque()  # chunks that were at work when a process died: one by one, they tell
    while pending or suspects:
        is_alone = not pending
        work = suspects if is_alone else pending
        num_processes = 1 if is_alone else _num_processes(len(distinct))
        try:
            for results in _run(source.path, work, folder, num_processes, should_stop):
                for image in results:
                    if image.refusal:
                        raise ImportRefused(image.refusal, "Nothing was imported.")
                    outcome[image.name] = image
                on_progress(len(outcome), len(distinct))
        except BrokenProcessPool:
            unfinished = [name for name in distinct if name not in outcome and not _waits(name, pending)]
            if is_alone:
                culprit = unfinished[0]
                outcome[culprit] = StagedImage(culprit, problem="decoding it ended the process that tried")
                unfinished = unfinished[1:]
            suspects = deque([name] for name in unfinished)
    return outcome


def _waits(name: str, pending: deque[list[str]]) -> bool:
    return any(name in chunk for chunk in pending)


def _run(
    path: Path, work: deque[list[str]], folder: Path, num_processes: int, should_stop: Callable[[], bool]
) -> Iterator[list[StagedImage]]:
    """Results of the chunks of ``work`` as they come; a chunk is taken off when it is handed to a process."""
    with _pool(path, folder, num_processes) as pool:
        running: set[Future] = set()
        while work or running:
            while work and len(running) < num_processes + (num_processes > 1):
                running.add(pool.submit(_stage_chunk, work.popleft()))
            done, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            if should_stop():
                raise Cancelled("The import was stopped; nothing was imported.")
            for future in done:
                yield future.result()


@contextmanager
def _pool(path: Path, folder: Path, num_processes: int) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(
        num_processes, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(path, folder)
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _num_processes(num_images: int) -> int:
    return max(1, min(MAX_PROCESSES, os.cpu_count() or 1, num_images // IMAGES_PER_PROCESS))


def sync_all(folder: Path) -> None:
    """Bring every file of a folder to the disk: one call for all where the system has one."""
    if hasattr(os, "sync"):
        os.sync()
        return
    for path in folder.iterdir():
        sync_file(path)


class _Worker:
    """What a process of the pool keeps between chunks."""

    source: Source
    folder: Path


def _begin(path: Path, folder: Path) -> None:
    threading.Thread(target=_leave_with_parent, name="parent watch", daemon=True).start()
    _Worker.source = open_source(path)
    _Worker.folder = folder


def _leave_with_parent() -> None:
    """The queue's pipe stays open in this very process, so that a killed parent would not be noticed otherwise."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_handles([parent.sentinel])
        os._exit(1)


def _stage_chunk(names: Sequence[str]) -> list[StagedImage]:
    return [_stage(name) for name in names]


def _stage(name: str) -> StagedImage:
    try:
        content = _Worker.source.read(name)
        info = probe_image(content)
    except ExportRefused as error:
        return StagedImage(name, refusal=error.message)
    except BadImage as error:
        return StagedImage(name, problem=str(error))
    except MemoryError:
        return StagedImage(name, problem="it needs more memory than this machine has")
    content = content if info.replacement is None else info.replacement
    digest = hashlib.sha256(content).hexdigest()
    image = StagedImage(name, digest, info.extension, info.width, info.height, info.needs_rendering, info.is_deep)
    _write(_Worker.folder / image.file_name, content)
    return image


def _write(path: Path, content: bytes) -> None:
    """Two images of the same bytes are one file; another process may be writing it now."""
    if not path.exists():
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(content)
        temporary.replace(path)
