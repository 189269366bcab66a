"""How much memory work takes, and how much there is for it."""

import threading
from pathlib import Path
from types import TracebackType

import psutil
import torch

from app.pipeline.machine import Machine

SAMPLE_EVERY_S = 0.003
_CGROUP = Path("/sys/fs/cgroup")


class PeakMemory:
    """The most memory in use inside the block, in ``num_bytes``: torch's own count on a CUDA GPU, else this process's.

    The process's memory is looked at every few milliseconds, so that a peak shorter than that may be missed.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._process = psutil.Process()
        self._is_over = threading.Event()
        self._sampler = threading.Thread(target=self._watch, name="memory", daemon=True)
        self.num_bytes = 0

    @property
    def _is_cuda(self) -> bool:
        return self._machine.device.type == "cuda"

    def __enter__(self) -> "PeakMemory":
        if self._is_cuda:
            torch.cuda.reset_peak_memory_stats(self._machine.device)
        else:
            self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_cuda:
            self.num_bytes = torch.cuda.max_memory_allocated(self._machine.device)
            return
        self._is_over.set()
        self._sampler.join()

    def _watch(self) -> None:
        while True:
            self.num_bytes = max(self.num_bytes, self._process.memory_info().rss)
            if self._is_over.wait(SAMPLE_EVERY_S):
                return


def room_bytes(machine: Machine) -> int:
    """What this process may use in all: what it has, and what is free on the GPU or on the machine."""
    if machine.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(machine.device)
        return free + torch.cuda.memory_reserved(machine.device)
    return psutil.Process().memory_info().rss + min(psutil.virtual_memory().available, _room_in_container())


def _room_in_container() -> int:
    """What a memory limit of the container (cgroup v2) leaves; more than any machine has where there is none."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 1 << 62
    cache = int(statistics.get("inactive_file", 0))  # given up by the system when somebody needs it
    return 1 << 62 if limit == "max" else max(0, int(limit) - used + cache)
