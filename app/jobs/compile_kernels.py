"""Compile what fusing and comparing need, and leave it on disk for the jobs: a process of its own when the app starts.

Not the warm helper: that one loads torch, which takes seconds and half a GB, and starts only when a preview wants it.
A file beside what numba kept says of each part that it was compiled, so that nobody asks function by function.
"""

import hashlib
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from app.jobs.locks import FileLock

FUSING, TUNING, COMPARING = "fusing", "tuning", "comparing"
PARTS = {  # in the order in which they are wanted
    FUSING: "app.pipeline.fusion.kernels",
    TUNING: "app.pipeline.fusion.judging_kernel",
    COMPARING: "app.pipeline.evaluate.bootstrap",
}
NICENESS = 10  # the first page comes first
LOOK_S = 0.1


def is_compiled(parts: Sequence[str]) -> bool:
    """Whether these parts are on disk, for this machine and these versions; or never can be. Loads numba."""
    folder = _folder()
    return folder is None or all(_is_marked(folder, part, import_module(PARTS[part])) for part in parts)


def compile_all() -> None:
    """Compile what is not on disk; waits while another process does. Seconds the first time on a machine."""
    folder = _folder()
    if folder is None:
        return
    lock = FileLock(folder / "anchorage-compiling.lock")
    while not lock.acquire():
        time.sleep(LOOK_S)
    with lock:
        for part, name in PARTS.items():
            module = import_module(name)
            if not _is_marked(folder, part, module):
                module.warm_up()
                _mark(folder, part).write_text(_key(module))


def _is_marked(folder: Path, part: str, module: ModuleType) -> bool:
    mark = _mark(folder, part)
    return mark.is_file() and mark.read_text() == _key(module)


def _mark(folder: Path, part: str) -> Path:
    return folder / f"anchorage-{part}.compiled"


def _folder() -> Path | None:
    """Where numba keeps what it compiled; None where it can keep nothing."""
    from app.pipeline.fusion import kernels

    path = kernels.fuse_rows.stats.cache_path
    if path is None:
        return None
    Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def _key(module: ModuleType) -> str:
    """By what numba would compile anew."""
    import numba

    source = Path(module.__file__).stat()
    parts = (numba.__version__, sys.version, platform.node(), source.st_mtime_ns, source.st_size)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def main() -> None:
    """What the process does."""
    if "--nice" in sys.argv and hasattr(os, "nice"):
        os.nice(NICENESS)
    compile_all()


if __name__ == "__main__":
    main()
