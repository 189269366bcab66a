"""What an error that the system raised means, however it was wrapped on its way. Imports no torch."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

# torch on a GPU; torch on the CPU (two spellings); OpenCV.
_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "insufficient memory")
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)  # too many open files; no memory, no threads
_SHORT_ON_WINDOWS = (8, 1450, 1455, 1816)  # not enough memory, no resources, page file too small, not enough quota
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NEARLY_NOTHING = 2**20  # bytes


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the machine, or of its GPU, did not suffice."""
    return any(
        isinstance(one, MemoryError)
        or type(one).__name__ == "OutOfMemoryError"
        or any(words in str(one).lower() for words in _OUT_OF_MEMORY)
        for one in _with_causes(error)
    )


def is_disk_full(error: BaseException, folder: Path) -> bool:
    """Whether the disk of ``folder``, or what a user may put on it, is full.

    SQLite and torch tell so by other errors too ("disk I/O error"), so it also counts that nothing is free there.
    """
    return shutil.disk_usage(folder).free < _NEARLY_NOTHING or any(
        (isinstance(one, OSError) and one.errno in _DISK_FULL) or str(one) == "database or disk is full"
        for one in _with_causes(error)
    )


def is_short_of_resources(error: BaseException) -> bool:
    """Whether the system had no more files, threads or memory to give, so that less at a time may do."""
    return is_out_of_memory(error) or any(
        (isinstance(one, OSError) and (one.errno in _SHORT or getattr(one, "winerror", None) in _SHORT_ON_WINDOWS))
        or "can't start new thread" in str(one)
        for one in _with_causes(error)
    )


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it was raised from, or while they were handled; such chains can go in circles."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
