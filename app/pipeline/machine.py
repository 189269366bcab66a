"""What to compute on, and in which arithmetic."""

import contextlib
import ctypes
import platform
from dataclasses import dataclass

import psutil
import torch

from app.pipeline.timeline import HostMark, Mark


class MachineError(ValueError):
    """A device or precision was asked for that this machine does not have."""


class CudaMark:
    """An event in the current stream of a GPU."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True)
        self._event.record()

    def is_reached(self) -> bool:
        return self._event.query()

    def seconds_until(self, later: "CudaMark") -> float:
        return self._event.elapsed_time(later._event) / 1000


@dataclass(frozen=True)
class Machine:
    """A device and the arithmetic of the forward pass; ``dtype`` float32 means no mixed precision."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> contextlib.AbstractContextManager:
        """The mixed-precision context of a forward pass."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @property
    def needs_scaler(self) -> bool:
        """float16 gradients underflow without loss scaling."""
        return self.dtype == torch.float16

    @property
    def waits_are_free(self) -> bool:
        """Whether the host knows every number at once; any other device must first do all that it was given."""
        return self.device.type == "cpu"

    def memory_mb(self) -> float:
        """Memory in use, in MB: the peak on a GPU, else that of this process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e6
        return psutil.Process().memory_info().rss / 1e6

    def mark(self) -> Mark:
        """This moment, as the device sees it: on a GPU when the work queued so far is done, without waiting for it."""
        return CudaMark() if self.device.type == "cuda" else HostMark()

    def describe(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return f"{name}, {str(self.dtype).removeprefix('torch.')}"


def choose_machine(device: str = "auto", precision: str = "auto") -> Machine:
    """The device and precision of a configuration; raises MachineError when this machine does not have them."""
    chosen = _choose_device(device)
    return Machine(chosen, _choose_dtype(chosen, precision))


def finish(device: torch.device) -> None:
    """Wait until ``device`` has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def keep_freed_memory() -> None:
    """Let this process keep the memory that a step frees for the next one: on a CPU, and for good.

    Linux's C library gives blocks of a megabyte and more back to the system and asks for them anew; clearing their
    pages took a fifth of a step. Other systems and libraries stay as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, -1)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise MachineError(
            "device is 'cuda', but this build of torch finds no CUDA GPU: choose 'auto' or 'cpu', "
            "or run `python launch.py --doctor`"
        )
    if name == "mps" and not torch.backends.mps.is_available():
        raise MachineError("device is 'mps', but there is no Apple GPU here: choose 'auto' or 'cpu'")
    return torch.device(name)


def _choose_dtype(device: torch.device, precision: str) -> torch.dtype:
    if precision == "auto":
        precision = _fast_precision(device)
    if precision == "float16" and device.type != "cuda":
        raise MachineError(f"precision 'float16' needs a CUDA GPU, the device is {device.type}: choose 'auto'")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def _fast_precision(device: torch.device) -> str:
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if device.type == "cpu" and has_fast_bfloat16() else "float32"


def has_fast_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; emulated, it costs three times as much as float32."""
    # torch.cpu.get_capabilities came with torch 2.10; before it only the probes with an underscore exist.
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        known = capabilities()
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe)() for probe in probes if hasattr(torch.cpu, probe))
