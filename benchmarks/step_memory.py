"""What a forward pass in mixed precision keeps for the backward pass: counted, and on a GPU measured too."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from app.pipeline.machine import choose_machine
from benchmarks.clock import allocated_bytes, describe_device, peak_bytes, tells_memory
from benchmarks.step_loops import SHORT_NAMES, as_loaded, build_both, config_of, half_precisions, random_batch


def measure_memory(arguments: argparse.Namespace) -> None:
    device = choose_machine(arguments.device).device
    is_measured = tells_memory(device)
    print(f"{describe_device(device)}, {arguments.model}, batch {arguments.batch}: MB ours, torchvision, ratio")
    columns = f"{'size, norm':<24}{'counted':<20}"
    print(f"{columns}{'kept by the forward pass':<28}peak of forward and backward" if is_measured else columns.rstrip())
    for precision in half_precisions(device):
        for size in arguments.sizes:
            for norm in arguments.norms:
                loops = build_both(config_of(arguments.model, size), choose_machine(device.type, precision), norm)
                batch = random_batch(size, arguments.batch, device)
                losses = [partial(loops[0].loss, batch), partial(loops[1].loss, as_loaded(batch), batch.targets)]
                models = [loop.model for loop in loops]
                counted = [kept_bytes(model, loss) for model, loss in zip(models, losses, strict=True)]
                row = f"{f'{size} px, {norm}, {SHORT_NAMES[precision]}':<24}{ratio_of(counted):<20}"
                if is_measured:
                    both = [measured_bytes(*one, device) for one in zip(models, losses, strict=True)]
                    kept, peaks = zip(*both, strict=True)
                    row += f"{ratio_of(kept):<28}{ratio_of(peaks)}"
                print(row.rstrip(), flush=True)


def ratio_of(sizes: "list[int] | tuple[int, ...]") -> str:
    ours, theirs = sizes
    return f"{ours / 1e6:.0f}, {theirs / 1e6:.0f}, {ours / theirs:.2f}"


def kept_bytes(model: nn.Module, forward: Callable[[], object]) -> int:
    """Bytes of all storages that the graph of ``forward`` keeps, without the weights themselves."""
    own = {value.untyped_storage().data_ptr() for value in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Any] = {}  # the storages stay, so that no two get the same address

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        answer = forward()
    total = sum(storage.nbytes() for address, storage in kept.items() if address not in own)
    del answer
    return total


def measured_bytes(model: nn.Module, forward: Callable[[], Tensor], device: torch.device) -> tuple[int, int]:
    """Bytes on a GPU above what lay there before: after ``forward``, and at the peak of it and the backward pass.

    The peak has the gradients in it as far as they are there by then.
    """
    forward().backward()  # work spaces and anchors stay from here on
    model.zero_grad()
    before, after = allocated_bytes(device), []

    def go_both_ways() -> None:
        loss = forward()
        after.append(allocated_bytes(device))
        loss.backward()

    peak = peak_bytes(go_both_ways, device)
    model.zero_grad()
    return after[0] - before, peak - before
