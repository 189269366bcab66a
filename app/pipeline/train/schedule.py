"""The learning rate over a run. Imports no torch, so that the curve can be drawn before the start."""

import math

from app.pipeline.config import RunConfig


def learning_rate_at(step: int, num_steps: int, config: RunConfig) -> float:
    """The learning rate of a step, counted from 0, of ``num_steps``: linear warmup, then a cosine down to the floor.

    Cosine annealing as in SGDR (Loshchilov and Hutter, https://arxiv.org/abs/1608.03983, equation 5), without restarts.
    """
    warmup = min(config.warmup_steps, num_steps // 5)
    if step < warmup:
        return config.learning_rate * (config.warmup_factor + (1 - config.warmup_factor) * step / warmup)
    share = (step - warmup) / max(1, num_steps - 1 - warmup)
    floor = config.final_learning_rate
    return floor + (config.learning_rate - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
