"""Time and memory of what runs on a device: a GPU has done its work before a clock is read."""

import time
from collections.abc import Callable

import torch

from app.pipeline.machine import finish


def seconds(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Wall and processor seconds of ``work``, with all that it gives ``device`` to do."""
    began = read_clocks(device)
    work()
    return seconds_since(began, device)


def seconds_since(began: tuple[float, float], device: torch.device) -> tuple[float, float]:
    """Wall and processor seconds since :func:`read_clocks` gave ``began``."""
    wall, cpu = read_clocks(device)
    return wall - began[0], cpu - began[1]


def read_clocks(device: torch.device) -> tuple[float, float]:
    """Wall and processor seconds from some start on, when ``device`` has done all that it was given."""
    finish(device)
    return time.perf_counter(), time.process_time()


def tells_memory(device: torch.device) -> bool:
    """Whether torch counts what tensors take on a device, and knows its peak."""
    return device.type == "cuda"


def allocated_bytes(device: torch.device) -> int:
    """What tensors take on a GPU; 0 on a device that does not tell."""
    return torch.cuda.memory_allocated(device) if tells_memory(device) else 0


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most that tensors took on a GPU during ``work``; 0 on a device that does not tell."""
    if tells_memory(device):
        torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) if tells_memory(device) else 0


def describe_device(device: torch.device) -> str:
    """What computes, by name, and what drives it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"
