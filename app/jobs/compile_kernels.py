"""Compile what fusing and comparing need, and leave it on disk for the jobs: a process of its own when the app starts.

Not the warm helper: that one loads torch, which takes seconds and half a GB, and starts only when a preview wants it.
A file beside what numba kept says what was compiled, so that who comes later need not ask every function.
"""

import hashlib
import os
import platform
import sys
import time
from pathlib import Path

from app.jobs.locks import FileLock

NICENESS = 10  # the first page comes first
LOOK_S = 0.1
MARK = "anchorage-compiled"


def is_compiled() -> bool:
    """Whether all is on disk, of these sources, for this machine and these versions; or never can be. Loads numba."""
    folder = _folder()
    return folder is None or _is_marked(folder)


def compile_all() -> None:
    """Compile unless it was done; waits while another process does. Seconds the first time on a machine."""
    from app.pipeline.evaluate import bootstrap
    from app.pipeline.fusion import judging_kernel, kernels

    folder = _folder()
    if folder is None:
        return
    lock = FileLock(folder / f"{MARK}.lock")
    while not lock.acquire():
        time.sleep(LOOK_S)
    with lock:
        if _is_marked(folder):
            return
        kernels.warm_up()
        judging_kernel.warm_up()
        bootstrap.warm_up()
        (folder / MARK).write_text(_key())


def _is_marked(folder: Path) -> bool:
    return (folder / MARK).is_file() and (folder / MARK).read_text() == _key()


def _folder() -> Path | None:
    """Where numba keeps what it compiled; None where it can keep nothing."""
    from app.pipeline.fusion import kernels

    path = kernels.fuse_rows.stats.cache_path
    if path is None:
        return None
    Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def _key() -> str:
    """By what numba would compile anew."""
    import numba

    from app.pipeline.evaluate import bootstrap
    from app.pipeline.fusion import judging_kernel, kernels

    stamps = [Path(module.__file__).stat() for module in (kernels, judging_kernel, bootstrap)]
    parts = [numba.__version__, sys.version, platform.node(), *((item.st_mtime_ns, item.st_size) for item in stamps)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def main() -> None:
    """What the process does."""
    if "--nice" in sys.argv and hasattr(os, "nice"):
        os.nice(NICENESS)
    compile_all()


if __name__ == "__main__":
    main()
