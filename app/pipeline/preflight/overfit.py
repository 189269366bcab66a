"""Whether the run's own model can learn two of its images by heart: if not, it will learn nothing else.

A mistake in labels, losses or the learning rate shows here within seconds.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.pipeline.config import RunConfig
from app.pipeline.data.snapshot import Sample, Samples, Snapshot
from app.pipeline.preflight.verdict import Verdict, working_fix
from app.pipeline.train.loop import train
from app.pipeline.train.optim import NonFiniteLoss
from app.pipeline.types import Event, Metrics, Progress, RunContext

WANTED = 0.1  # of the first loss
MAX_STEPS = 150
MEAN_OF = 5  # steps: which anchors and regions are sampled makes a single loss jump
FEWEST_STEPS = 40  # before a loss that has not fallen means anything
FEW_OBJECTS = 3  # in an image
# Rates that learn from scratch within the steps, by optimizer.
USUAL_RATES = {"adamw": 1e-3, "sgd": 5e-3}


@dataclass
class Learning:
    """The loss of two images step by step, until it is a tenth of the first or ``until`` (monotonic seconds)."""

    until: float
    context: RunContext
    losses: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The mean of the last losses as a share of the first; 1 before there are enough."""
        if len(self.losses) < MEAN_OF:
            return 1.0
        return statistics.mean(self.losses[-MEAN_OF:]) / self.losses[0]

    def take(self, event: Event) -> None:
        if isinstance(event, Metrics) and event.split == "train":
            self.losses.append(event.values["loss"])
        elif isinstance(event, Progress):
            message = f"learning two images by heart, loss at {self.ratio:.0%}"
            self.context.emit(Progress(event.done, event.total, message))

    def is_over(self) -> bool:
        return self.ratio < WANTED or time.monotonic() > self.until or self.context.should_stop()


def check_overfit(config: RunConfig, snapshot: Snapshot, folder: Path, seconds: float, context: RunContext) -> Verdict:
    """Train on two labeled images of the train split, without augmentation, at the run's peak rate."""
    chosen = choose_two(snapshot.split("train"))
    if not chosen:
        return Verdict("overfit", "red", "There is no labeled image in the train split.")
    own = {"epochs": MAX_STEPS, "batch_size": len(chosen), "learning_rate": rate_of(config)}
    plain = config.model_copy(update={**_PLAIN, **own})
    began = time.monotonic()
    learning = Learning(began + seconds, context)
    two = replace(snapshot, samples=Samples.of(chosen))
    try:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            train(plain, two, Path(place), RunContext(learning.take, learning.is_over))
    except NonFiniteLoss as error:
        return Verdict("overfit", "red", f"Two images alone cannot be learned: {error}.", _another_rate(config, 0.1))
    return judge_learning(learning.losses, learning.ratio, time.monotonic() - began, config)


# The run without what would keep it from learning by heart, or what takes time and changes nothing here.
_PLAIN: dict[str, Any] = {
    "augmentation": (),
    "schedule": "constant",
    "warmup_share": 0.0,
    "phases": (),
    "progressive_sizes": (),
    "warmup_steps": 10,
    "accumulate_batches": 1,
    "sampling": "uniform",
    "patience": 0,
    "ema_decay": 0.0,
}


def rate_of(config: RunConfig) -> float:
    """The highest peak rate of the run."""
    return max((phase.learning_rate for phase in config.phases), default=config.learning_rate)


def choose_two(samples: Sequence[Sample]) -> list[Sample]:
    """Two labeled images with few objects, which are learned soon, of as many classes as there are in such images.

    Fewer where there are no two.
    """
    labeled = sorted((one for one in samples if (~one.is_crowd).any()), key=lambda one: len(one.boxes))
    chosen: list[Sample] = []
    classes: set[int] = set()
    for _ in range(min(2, len(labeled))):
        most = max(FEW_OBJECTS, len(labeled[0].boxes))
        few = (one for one in labeled if len(one.boxes) <= most)
        best = max(few, key=lambda one: len(classes.union(one.labels.tolist())))  # the first of equals has fewest boxes
        labeled = [one for one in labeled if one is not best]
        chosen.append(best)
        classes.update(best.labels.tolist())
    return chosen


def judge_learning(losses: Sequence[float], ratio: float, seconds: float, config: RunConfig) -> Verdict:
    """What the losses of ``seconds`` of learning two images mean."""
    if len(losses) < MEAN_OF:
        return Verdict("overfit", "amber", f"Only {len(losses)} steps were done in {seconds:.0f} s: too few to tell.")
    text = f"The loss of two images alone went from {losses[0]:.2f} to {losses[0] * ratio:.2f}, {ratio:.0%} of it, "
    text += f"in {len(losses)} steps ({seconds:.0f} s)"
    if ratio < WANTED:
        return Verdict("overfit", "green", f"{text}: it learns.")
    if ratio > 0.9 and len(losses) >= FEWEST_STEPS:
        return Verdict("overfit", "red", f"{text}: it hardly learns. {_ADVICE}", _mended_rate(config, ratio))
    if len(losses) < MAX_STEPS:
        return Verdict("overfit", "amber", f"{text}. It was learning, but time ran out before a tenth was reached.")
    level = "amber" if ratio < 3 * WANTED else "red"
    return Verdict("overfit", level, f"{text}; a tenth was wanted. {_ADVICE}", _mended_rate(config, ratio))


_ADVICE = "Look at the labels and the learning rate."


def _mended_rate(config: RunConfig, ratio: float) -> dict[str, Any]:
    """The usual rate where the run's is far below it; a tenth of a rate at which the loss rose."""
    usual = USUAL_RATES[config.optimizer]
    if config.learning_rate < usual / 10:
        return _rate_fix(config, usual)
    return _another_rate(config, 0.1) if ratio > 1 else {}


def _another_rate(config: RunConfig, factor: float) -> dict[str, Any]:
    return _rate_fix(config, float(f"{config.learning_rate * factor:.2g}"))


def _rate_fix(config: RunConfig, rate: float) -> dict[str, Any]:
    if config.phases or not math.isfinite(rate):
        return {}
    return working_fix(config, learning_rate=rate)
