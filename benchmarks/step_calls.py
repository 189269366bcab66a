"""Operations and waits of a training step, counted on the CPU with the choices that a GPU gets."""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from app.pipeline.machine import Machine, choose_machine
from app.pipeline.models import heads, proposals
from app.pipeline.train.optim import Updater
from benchmarks.step_loops import as_loaded, build_both, config_of, random_batch, step_of

CALLS_PX = 64  # operations are as many at any size
WAITS = ("nonzero", "_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nms", "_unique2", "unique_dim")
READS = ("tolist", "cpu")  # of a whole tensor: on the CPU no operation


def measure_calls(arguments: argparse.Namespace) -> None:
    print(f"{arguments.model}, frozen batch norm, bf16; forward, backward and update", flush=True)
    print(f"{'':<14}{'batch':>6}{'kernels':>9}{'waits':>7}   which")
    machine = choose_machine("cpu", "bfloat16")
    ours, theirs = build_both(config_of(arguments.model, CALLS_PX), machine, "frozen")
    for num_images in (2, 8):
        batch = random_batch(CALLS_PX, num_images, machine.device)
        images = as_loaded(batch)
        with as_on_a_gpu():
            print_calls("ours", num_images, count_calls(step_of(ours, batch, images)))
        print_calls("torchvision", num_images, count_calls(step_of(theirs, batch, images)))


def print_calls(whose: str, num_images: int, counter: "CallCounter") -> None:
    named = ", ".join(f"{counter.waits.count(name)} {name}" for name in sorted(set(counter.waits)))
    print(f"{whose:<14}{num_images:>6}{counter.num_kernels:>9}{len(counter.waits):>7}   {named}", flush=True)


class CallCounter(TorchDispatchMode):
    """Counts operations that compute (views do not), and those whose result the host must know before it can go on."""

    def __init__(self) -> None:
        super().__init__()
        self.num_kernels = 0
        self.waits: list[str] = []
        self._reading = contextlib.ExitStack()

    def __enter__(self) -> "CallCounter":
        for name in READS:
            self._reading.enter_context(patch.object(Tensor, name, self._noting(name, getattr(Tensor, name))))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._reading.close()
        super().__exit__(*error)

    def _noting(self, name: str, read: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **named: Any) -> Any:
            self.waits.append(name)
            return read(*arguments, **named)

        return noted

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.num_kernels += not func.is_view
        name = func.overloadpacket.__name__
        if name in WAITS or (name in ("index", "index_put", "index_put_", "_index_put_impl_") and _has_mask(args[1])):
            self.waits.append(name)
        return func(*args, **(kwargs or {}))


def _has_mask(indices: Any) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Let a model on the CPU choose as it does on a GPU: waiting is not free, many small operations are not either."""
    with (
        patch.object(proposals, "suppress", proposals.suppress_together),
        patch.object(heads, "asking_is_free", lambda device: False),
        patch.object(Updater, "reads_late", True),
        patch.object(Machine, "waits_are_free", False),
    ):
        yield


def count_calls(step: Callable[[], object]) -> CallCounter:
    step()  # what is kept from step to step is there now
    with CallCounter() as counter:
        step()
    return counter
