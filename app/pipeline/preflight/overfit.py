"""Whether the run's own model can learn two of its images by heart: if not, it will learn nothing else.

A mistake in labels, losses or the learning rate shows here within seconds.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.pipeline.config import RunConfig
from app.pipeline.data.snapshot import Sample, Samples, Snapshot
from app.pipeline.preflight.verdict import Fix, Verdict, trouble, working_fix
from app.pipeline.presets import suggest_for_model
from app.pipeline.train.loop import train
from app.pipeline.train.optim import NonFiniteLoss
from app.pipeline.types import Event, Metrics, Progress, RunContext

WANTED = 0.1  # of the first loss
MAX_STEPS = 150
MEAN_OF = 5  # steps: which anchors and regions are sampled makes a single loss jump
RISEN = 1.5  # times the lowest loss: more than what a single batch makes it jump
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
            message = f"learning two images by heart, loss at {100 * self.ratio:.0f} %"
            self.context.emit(Progress(event.done, event.total, message))

    def is_over(self) -> bool:
        return self.ratio < WANTED or time.monotonic() > self.until or self.context.should_stop()


def check_overfit(config: RunConfig, snapshot: Snapshot, folder: Path, seconds: float, context: RunContext) -> Verdict:
    """Train on two labeled images of the train split, without augmentation, at the run's peak rate."""
    chosen = choose_two(snapshot.split("train"))
    if not chosen:
        return Verdict("overfit", "red", "There is no labeled image in the train split.", action="open_data")
    own = {"epochs": MAX_STEPS, "batch_size": len(chosen), "learning_rate": rate_of(config)}
    plain = config.model_copy(update={**_PLAIN, **own})
    began = time.monotonic()
    learning = Learning(began + seconds, context)
    two = replace(snapshot, samples=Samples.of(chosen))
    try:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            train(plain, two, Path(place), RunContext(learning.take, learning.is_over))
    except NonFiniteLoss as error:
        text = f"Two images alone cannot be learned: {error}."
        return trouble("overfit", "red", text, slower_rate(config), "open_data")
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
    "processes": 1,
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
        text = f"Only {len(losses)} steps were done in {seconds:.0f} s: too few to tell."
        return Verdict("overfit", "amber", text, action="check_again")
    text = f"The loss of two images alone went from {losses[0]:.2f} to {losses[0] * ratio:.2f}, "
    text += f"{100 * ratio:.1f} % of it, in {len(losses)} steps ({seconds:.0f} s)"
    if ratio < WANTED:
        return Verdict("overfit", "green", f"{text}: it learns.")
    fix = _mended_rate(config, losses)
    if ratio > 0.9 and len(losses) >= FEWEST_STEPS:
        return trouble("overfit", "red", f"{text}: it hardly learns. {_ADVICE}", fix, "open_data")
    if len(losses) < MAX_STEPS:
        text += ". It was learning, but time ran out before a tenth was reached."
        return Verdict("overfit", "amber", text, action="check_again")
    level = "amber" if ratio < 3 * WANTED else "red"
    return trouble("overfit", level, f"{text}; a tenth was wanted. {_ADVICE}", fix, "open_data")


_ADVICE = "Look at the labels and the learning rate."


def _mended_rate(config: RunConfig, losses: Sequence[float]) -> Fix:
    """A lower rate where the loss ended above the first, or well above the lowest that it had reached; else a higher.

    At a tiny rate a loss goes up and down by chance.
    """
    means = [statistics.mean(losses[at : at + MEAN_OF]) for at in range(len(losses) - MEAN_OF + 1)]
    is_tiny = rate_of(config) < _usual_rate(config) / 10
    has_risen = means[-1] > min(RISEN * min(means), losses[0])
    return slower_rate(config) if has_risen and not is_tiny else faster_rate(config)


def slower_rate(config: RunConfig) -> Fix:
    """A rate for a loss that runs away: the usual one where the run's is far above it, else three tenths of it."""
    return _times_rate(config, min(0.3, _usual_rate(config) / rate_of(config)))


def faster_rate(config: RunConfig) -> Fix:
    """A rate for a loss that hardly falls: the usual one where the run's is far below it, else three times it."""
    return _times_rate(config, max(3.0, _usual_rate(config) / rate_of(config)))


def _usual_rate(config: RunConfig) -> float:
    usual = USUAL_RATES[config.optimizer]
    return suggest_for_model(config.model).get("learning_rate", usual) if config.optimizer == "adamw" else usual


def _times_rate(config: RunConfig, factor: float) -> Fix:
    """The rates of the run times ``factor``, to two digits; the floor that they end at follows where it must."""

    def times(rate: float) -> float:
        return float(f"{rate * factor:.2g}")

    phases = tuple({**phase.model_dump(), "learning_rate": times(phase.learning_rate)} for phase in config.phases)
    own = {"phases": phases} if phases else {"learning_rate": times(config.learning_rate)}
    lowest = min((phase["learning_rate"] for phase in phases), default=times(config.learning_rate))
    return working_fix(config, **own, final_learning_rate=min(config.final_learning_rate, lowest))
