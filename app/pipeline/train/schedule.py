"""The learning rate over a run. Imports no torch, so that the curve can be drawn before the start.

Every schedule is that of the torch scheduler of its name, over the steps that are left after the linear warmup; their
floor is ``final_learning_rate``. With phases each has a schedule of its own, with its own warmup and peak.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from app.pipeline.config import Phase, RunConfig

RISE_SHARE = 0.3  # of OneCycle, as in torch and in the paper's experiments
START_DIVISOR = 25  # OneCycle starts at the peak divided by this
MAX_WARMUP_DIVISOR = 5  # a warmup given in steps takes at most a fifth of a stage


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a run with its own schedule: its first step, its length in steps, its peak rate, what it trains."""

    first: int
    num_steps: int
    peak: float
    part: str = "all"


def steps_per_epoch(num_batches: int, config: RunConfig) -> int:
    """Optimizer steps of an epoch of ``num_batches``: the last may have fewer batches than the others."""
    return -(-num_batches // config.accumulate_batches)


def stages_of(num_steps: int, config: RunConfig) -> list[Stage]:
    """The phases of a run of ``num_steps`` optimizer steps, in order; a run without phases is one stage."""
    if not config.phases:
        return [Stage(0, num_steps, config.learning_rate)]
    edges = [0]
    for phase in config.phases:
        edges.append(edges[-1] + phase.epochs)
    steps = [edge * num_steps // config.epochs for edge in edges]
    return [
        Stage(first, last - first, phase.learning_rate, phase.train)
        for (first, last), phase in zip(pairwise(steps), config.phases, strict=True)
    ]


def phase_of_epoch(epoch: int, config: RunConfig) -> tuple[int, Phase | None]:
    """The index of the phase that an epoch (counted from 1) belongs to, and the phase; (0, None) without phases."""
    last = 0
    for index, phase in enumerate(config.phases):
        last += phase.epochs
        if epoch <= last:
            return index, phase
    return max(0, len(config.phases) - 1), config.phases[-1] if config.phases else None


def learning_rate_at(step: int, num_steps: int, config: RunConfig) -> float:
    """The learning rate of an optimizer step, counted from 0, of ``num_steps``."""
    stages = stages_of(num_steps, config)
    stage = next((stage for stage in reversed(stages) if step >= stage.first and stage.num_steps), stages[0])
    return _rate_in_stage(step - stage.first, stage.num_steps, stage.peak, config)


def warmup_of(num_steps: int, config: RunConfig) -> int:
    """Warmup steps of a stage of ``num_steps``."""
    if config.warmup_share:
        return round(config.warmup_share * num_steps)
    return min(config.warmup_steps, num_steps // MAX_WARMUP_DIVISOR)


def _rate_in_stage(step: int, num_steps: int, peak: float, config: RunConfig) -> float:
    schedule = _SCHEDULES[config.schedule]
    warmup = warmup_of(num_steps, config)
    rest = num_steps - warmup
    if step < warmup:
        top = schedule(0, rest, peak, config)  # the peak; of OneCycle the low rate that it rises from
        return top * (config.warmup_factor + (1 - config.warmup_factor) * step / warmup)
    if config.schedule == "multistep":  # its milestones are shares of the run, the warmup included
        return _multistep(step, num_steps, peak, config)
    return schedule(step - warmup, rest, peak, config)


def _share(step: int, num_steps: int) -> float:
    """How far a step is, 0 at the first of ``num_steps`` and 1 at the last."""
    return min(1.0, step / max(1, num_steps - 1))


def _cosine(step: int, num_steps: int, peak: float, config: RunConfig) -> float:
    """SGDR (Loshchilov and Hutter, https://arxiv.org/abs/1608.03983, equation 5), without restarts."""
    return _between(peak, config.final_learning_rate, _share(step, num_steps))


def _onecycle(step: int, num_steps: int, peak: float, config: RunConfig) -> float:
    """Super-convergence (Smith and Topin, https://arxiv.org/abs/1708.07120) with cosine flanks; momentum stays."""
    start = max(peak / START_DIVISOR, config.final_learning_rate)
    summit = max(0.0, RISE_SHARE * num_steps - 1)  # the step of the peak; between two steps for most lengths
    if step < summit:
        return _between(start, peak, step / summit)
    fallen = (step - summit) / max(1e-9, num_steps - 1 - summit)
    return _between(peak, config.final_learning_rate, min(1.0, fallen))


def _multistep(step: int, num_steps: int, peak: float, config: RunConfig) -> float:
    passed = sum(step >= round(share * num_steps) for share in config.milestones)
    return peak * config.decay_factor**passed


def _polynomial(step: int, num_steps: int, peak: float, config: RunConfig) -> float:
    floor = config.final_learning_rate
    return floor + (peak - floor) * (1 - _share(step, num_steps)) ** config.polynomial_power


def _constant(step: int, num_steps: int, peak: float, config: RunConfig) -> float:
    return peak


def _between(start: float, end: float, share: float) -> float:
    """Half a cosine from ``start`` to ``end``."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


_SCHEDULES: dict[str, Callable[[int, int, float, RunConfig], float]] = {
    "cosine": _cosine,
    "onecycle": _onecycle,
    "multistep": _multistep,
    "polynomial": _polynomial,
    "constant": _constant,
}
