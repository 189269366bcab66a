"""Images a second of the training step: ours beside the reference's, and ours in small batches beside a large one."""

import argparse
import statistics
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch

from app.pipeline.machine import choose_machine
from app.pipeline.models.forward import Batch
from benchmarks.clock import allocated_bytes, describe_device, peak_bytes, seconds, tells_memory
from benchmarks.step_loops import (
    NUM_CLASSES,
    Loop,
    OurLoop,
    as_loaded,
    config_of,
    loops_on,
    random_batch,
    step_of,
)

NUM_WARM_UPS = 2  # steps that plan kernels

Key = tuple[str, str]  # "ours" or "theirs", and the arithmetic: "bf16", "bf16 cl", "fp32" ...


class Taken(NamedTuple):
    """What the steps of a loop took: (wall, CPU) seconds of each round, and the peak on a GPU, its weights included."""

    rounds: list[tuple[float, float]]
    peak_bytes: int


# --- ours and the reference's ---


def measure_speed(arguments: argparse.Namespace) -> None:
    device = choose_machine(arguments.device).device
    setting = f"{describe_device(device)}, SGD, batch {arguments.batch}, {arguments.rounds} rounds"
    print(f"{setting}; medians of a step; cl: channels-last")
    columns = f"{'ours':>6}{'theirs':>9}{'s ours':>9}{'theirs':>9}{'images/s':>10}{'theirs':>8}"
    ratios = f"{'wall ratio (range)':<24}{'CPU ratio (range)':<24}"
    memory = "peak MB ours, theirs, ratio" if tells_memory(device) else ""
    print(f"{'model, norm, size':<40}{columns}  {ratios}{memory}".rstrip(), flush=True)
    for size in arguments.sizes:
        for norm in arguments.norms:
            taken = interleave(arguments.model, size, norm, arguments.batch, arguments.rounds, device)
            for ours, theirs in pairs_of(taken):
                print_pair(f"{arguments.model}, {norm}, {size}", ours, theirs, taken, arguments.batch)


def interleave(
    model: str, size: int, norm: str, num_images: int, rounds: int, device: torch.device
) -> dict[Key, Taken]:
    """All loops of the device, from the same weights, take turns on each batch."""
    loops: dict[Key, Loop] = {}
    taken: dict[Key, Taken] = {}
    weights = None
    for key, build in loops_on(device, config_of(model, size), norm):
        before = allocated_bytes(device)
        loop = loops[key] = build()
        weights = weights or {name: value.cpu().clone() for name, value in loop.model.state_dict().items()}
        loop.model.load_state_dict(weights)
        for number in range(NUM_WARM_UPS):
            batch = random_batch(size, num_images, device, number)
            peak = peak_bytes(step_of(loop, batch, as_loaded(batch)), device)
        taken[key] = Taken([], max(0, peak - before))
    for number in range(rounds):
        batch = random_batch(size, num_images, device, NUM_WARM_UPS + number)
        images = as_loaded(batch)
        for key in list(loops) if number % 2 else reversed(list(loops)):
            taken[key].rounds.append(seconds(step_of(loops[key], batch, images), device))
    for (whose, arithmetic), loop in loops.items():
        if isinstance(loop, OurLoop):
            tell_repeated(loop, f"{whose} in {arithmetic}")
    return taken


def pairs_of(taken: dict[Key, Taken]) -> list[tuple[str, str]]:
    """What is compared, ours first: mixed precision with all that the reference has, float32 with itself."""
    mixed = [arithmetic for whose, arithmetic in taken if whose == "ours" and arithmetic != "fp32"]
    pairs = [(ours, theirs) for ours in mixed for theirs in ("fp32", ours, f"{ours} cl")]
    return [*pairs, ("fp32", "fp32")]


def print_pair(case: str, ours: str, theirs: str, taken: dict[Key, Taken], num_images: int) -> None:
    both = taken["ours", ours], taken["theirs", theirs]
    walls = [statistics.median(wall for wall, _ in side.rounds) for side in both]
    cells = [ratio_of(*([times[kind] for times in side.rounds] for side in both)) for kind in (0, 1)]
    figures = f"{walls[0]:9.4f}{walls[1]:9.4f}{num_images / walls[0]:10.1f}{num_images / walls[1]:8.1f}"
    row = f"{case:<40}{ours:>6}{theirs:>9}{figures}  {cells[0]:<24}{cells[1]:<24}"
    peaks = [side.peak_bytes / 1e6 for side in both]
    memory = f"{peaks[0]:.0f}, {peaks[1]:.0f}, {peaks[0] / peaks[1]:.2f}" if peaks[1] else ""
    print(f"{row}{memory}".rstrip(), flush=True)


def ratio_of(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """How many times ours fits into theirs: the median of the rounds, and their range."""
    ratios = [other / own for own, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def tell_repeated(loop: OurLoop, name: str) -> None:
    """Say where the time of some steps has a second forward pass in it."""
    if loop.num_repeated:
        print(f"{name}: {loop.num_repeated} forward passes were done twice, as NMS was not settled")


# --- ours in small and large batches ---


def measure_batches(arguments: argparse.Namespace) -> None:
    """The same images in each round, once as one large batch and once in small ones."""
    machine = choose_machine(arguments.device, arguments.precision)
    device, size, (small, large) = machine.device, arguments.size, sorted(arguments.batches)
    setting = f"{arguments.model}, {size} px, {str(machine.dtype).removeprefix('torch.')}, {arguments.rounds} rounds"
    print(f"{describe_device(device)}, SGD, {setting} of {large} images; images a second, medians")
    print(f"{'norm':<8}{f'batch {small}':>10}{f'batch {large}':>10}   share of the large batch's (range)", flush=True)
    for norm in arguments.norms:
        loop = OurLoop(config_of(arguments.model, size), NUM_CLASSES, machine, norm)
        rounds: dict[int, list[float]] = {small: [], large: []}
        for number in range(NUM_WARM_UPS + arguments.rounds):
            batch = random_batch(size, large, device, number)
            for num_images in (small, large) if number % 2 else (large, small):
                wall, _ = seconds(partial(take_steps, loop, batch.split(num_images)), device)
                if number >= NUM_WARM_UPS:
                    rounds[num_images].append(wall)
        rates = [large / statistics.median(rounds[num_images]) for num_images in (small, large)]
        print(f"{norm:<8}{rates[0]:10.1f}{rates[1]:10.1f}   {ratio_of(rounds[small], rounds[large])}", flush=True)
        tell_repeated(loop, norm)


def take_steps(loop: OurLoop, batches: Sequence[Batch]) -> None:
    for batch in batches:
        loop.step(batch)
