"""Resized pixels kept in a folder between runs: one file an image, within a budget, the longest unused going first.

A file is complete or not there: it is written aside and moved into place, and its words add up to its first word, so
that what a power cut left of it is seen and made again. Read, not mapped: a disk that fails gives an error, while a
mapped page that cannot be read ends the process. Imports no torch.
"""

import contextlib
import logging
import os
import secrets
import shutil
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

MAX_BYTES = 32_000_000_000
MAX_SHARE_OF_DISK = 0.25  # of what is free, the folder's own files included
STALE_AFTER_S = 3600.0  # a file that was being written when its process died

_SUFFIX = ".px"
_MARK = 0x31_58_50_45_47_41_52_4F  # a file's second word; height and width follow it
_HEADER_WORDS = 4


class PixelFiles:
    """uint8 [H, W, 3] images by key, in files under ``folder``; safe to use from several threads and processes.

    ``budget_bytes`` bounds the folder's size. What this process has used is never dropped for something new: in
    shuffled epochs every image is as likely to be asked for next as any other. Nothing here ever fails a run: what
    cannot be read is missing, and after an error of the disk no more is written.
    """

    def __init__(self, folder: Path, budget_bytes: int | None = None) -> None:
        self._folder = folder
        self._budget = budget_bytes
        self._began = time.time()
        self._lock = threading.Lock()
        self._is_writing = True
        self._room: int | None = None  # bytes that may still be written; unknown until the first is
        self._unused: deque[tuple[float, int, str]] = deque()  # time of last use, bytes, path; the oldest first

    def get(self, key: str) -> np.ndarray | None:
        """The image of ``key``, not to be written to; None where there is none, or none that is whole."""
        path = self._path(key)
        try:
            with path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                words = np.empty(status.st_size // 8, np.uint64)
                num_read = file.readinto(memoryview(words).cast("B"))
            image = _unpack(words) if num_read == status.st_size else None
            if image is None:
                path.unlink(missing_ok=True)
            elif status.st_mtime < self._began:
                os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("kept pixels cannot be read, the image is read instead: %s", error)
            return None
        return image

    def put(self, key: str, image: np.ndarray) -> None:
        """Keep ``image`` for ``key``, where there is room."""
        path, words = self._path(key), _pack(image)
        if not self._take_room(words.nbytes):
            return
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(words.data)
            temporary.replace(path)
        except OSError as error:
            with self._lock:
                self._is_writing = False
            logger.warning("no more pixels are kept in %s: %s", self._folder, error)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"

    def _take_room(self, num_bytes: int) -> bool:
        with self._lock:
            if not self._is_writing:
                return False
            if self._room is None:
                self._room = self._survey()
            while self._room < num_bytes and self._unused:
                self._room += self._drop(*self._unused.popleft())
            if self._room < num_bytes:
                return False
            self._room -= num_bytes
            return True

    def _survey(self) -> int:
        """Look at what lies in the folder; returns how many bytes of the budget are left."""
        total = 0
        for root, _, names in os.walk(self._folder):
            for name in names:
                path = os.path.join(root, name)  # noqa: PTH118 (a Path for each of 100,000 files takes seconds)
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(path)  # noqa: PTH116
                    if name.endswith(_SUFFIX):
                        total += status.st_size
                        self._unused.append((status.st_mtime, status.st_size, path))
                    elif status.st_mtime < self._began - STALE_AFTER_S:
                        Path(path).unlink(missing_ok=True)
        self._unused = deque(sorted(entry for entry in self._unused if entry[0] < self._began))
        return (_default_budget(self._folder, total) if self._budget is None else self._budget) - total

    def _drop(self, used_at: float, num_bytes: int, name: str) -> int:
        """Delete a file unless somebody has used it since; returns the bytes that this frees."""
        path = Path(name)
        try:
            if path.stat().st_mtime != used_at:
                return 0
            path.unlink()
        except OSError:
            return 0
        with contextlib.suppress(OSError):  # not empty, most of the time
            path.parent.rmdir()
            path.parent.parent.rmdir()
        return num_bytes


def _default_budget(folder: Path, num_bytes: int) -> int:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return min(MAX_BYTES, int(MAX_SHARE_OF_DISK * (shutil.disk_usage(existing).free + num_bytes)))


def _pack(image: np.ndarray) -> np.ndarray:
    """uint64 words: the sum of all others, the mark, height, width, then the pixels, filled up with zeros."""
    height, width, _ = image.shape
    words = np.zeros(_HEADER_WORDS + -(-image.size // 8), np.uint64)
    words[1:_HEADER_WORDS] = _MARK, height, width
    words[_HEADER_WORDS:].view(np.uint8)[: image.size] = image.reshape(-1)
    words[0] = words[1:].sum()
    return words


def _unpack(words: np.ndarray) -> np.ndarray | None:
    """The image packed in ``words``; None when they are not as they were written."""
    if len(words) < _HEADER_WORDS or words[1] != _MARK:
        return None
    height, width = int(words[2]), int(words[3])
    size = height * width * 3
    if len(words) != _HEADER_WORDS + -(-size // 8) or words[1:].sum() != words[0]:
        return None
    return words[_HEADER_WORDS:].view(np.uint8)[:size].reshape(height, width, 3)
