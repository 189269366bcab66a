"""How long a run will take, and how much disk: measured on its first steps, validation images and a checkpoint."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, count, islice
from pathlib import Path
from typing import Any

from app.pipeline.config import RunConfig
from app.pipeline.data.resize import STRIDE
from app.pipeline.data.snapshot import Snapshot
from app.pipeline.preflight.batch_fit import SLOW_BATCH_S
from app.pipeline.preflight.overfit import USUAL_RATES
from app.pipeline.preflight.verdict import LEVELS, Fix, Level, Verdict, smaller_models, trouble, working_fix
from app.pipeline.train.checkpoint import NUM_BEST
from app.pipeline.train.estimate import RunSeconds, estimate_run
from app.pipeline.train.files import LAST_NAME
from app.pipeline.train.loop import stop, train_step
from app.pipeline.train.run import Run
from app.pipeline.types import RunContext

MAX_STEPS, MAX_STEPS_S = 12, 8.0  # of training; two are done at least
MAX_PREDICTED, MAX_PREDICTED_S = 16, 4.0
LONG_RUN_S = 12 * 3600.0
BYTES_OF_A_WEIGHT = 4


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of a batch with its images, of predicting an image, and of saving; bytes of what is saved."""

    batch_s: float
    predict_s: float
    save_s: float
    last_bytes: int
    best_bytes: int


def rehearse(run: Run, snapshot: Snapshot, folder: Path, context: RunContext, image_s: float) -> Measured:
    """Train as the run would, from its loader, for a few seconds; predict a few images; save once to its ``folder``.

    ``image_s``: seconds an image of a step, as known so far; where a batch is slow that is all that is gone by.
    """
    batch_s = image_s * run.config.batch_size
    if batch_s <= SLOW_BATCH_S:
        batch_s = _seconds_of_a_batch(run, context)
    predict_s = _seconds_of_an_image(run, snapshot, context)
    began = time.perf_counter()
    stop(run, 1)
    save_s = time.perf_counter() - began
    best_bytes = sum(value.numel() * value.element_size() for value in run.learner.kept_model.state_dict().values())
    return Measured(batch_s, predict_s, save_s, (folder / LAST_NAME).stat().st_size, best_bytes)


def _seconds_of_a_batch(run: Run, context: RunContext) -> float:
    """The mean over the batches after the first, which waits for the loader's start."""
    with run.loader as loader:
        batches = (batch for epoch in count(1) for batch in loader.epoch(epoch))
        train_step(run, [next(batches)], 1)
        began, num_done = time.perf_counter(), 0
        for batch in islice(batches, MAX_STEPS):
            train_step(run, [batch], 1)
            num_done += 1
            if time.perf_counter() - began > MAX_STEPS_S or context.should_stop():
                break
        return (time.perf_counter() - began) / num_done


def _seconds_of_an_image(run: Run, snapshot: Snapshot, context: RunContext) -> float:
    """The mean over a few validation images; 0 without any."""
    samples = snapshot.split("valid")[:MAX_PREDICTED]
    began, num_done = time.perf_counter(), 0
    limit = began + MAX_PREDICTED_S
    stop = RunContext(should_stop=lambda: context.should_stop() or time.perf_counter() > limit)
    for _ in run.detector.predict_samples(samples, stop):
        num_done += 1
    return (time.perf_counter() - began) / num_done if num_done else 0.0


def judge_time(
    measured: Measured,
    config: RunConfig,
    num_batches: int,
    num_valid: int,
    is_shared: bool = False,
    num_gpus: int = 1,
) -> Verdict:
    """The length of a run with ``num_batches`` an epoch, which ``num_gpus`` share.

    ``is_shared``: another training ran beside the measurement, which then tells others nothing.
    """

    def estimate(**values: object) -> RunSeconds:
        epoch_s, validation_s = num_batches * measured.batch_s, num_valid * measured.predict_s
        changed = config.model_copy(update=values)
        return estimate_run(changed, epoch_s, validation_s, measured.save_s, num_gpus)

    found = estimate()
    text = f"About {duration(found.total)}: {config.epochs * num_batches:,} batches of {measured.batch_s:.2g} s"
    text += f" on {num_gpus} GPUs" if num_gpus > 1 else ""
    text += f", {duration(found.judge)} of validation" if found.judge else ""
    text += f", {duration(found.save)} of saving."
    text += " Another training was under way meanwhile: alone it goes faster." if is_shared else ""
    own = {} if is_shared else {"batch_s": measured.batch_s, "predict_s": measured.predict_s}
    facts = {"seconds": found.total, **own}
    if found.total <= LONG_RUN_S:
        return Verdict("time", "green", text, facts=facts)
    fix = _shorter_run(config, estimate)
    return replace(trouble("time", "amber", text, fix, "check_again"), facts=facts)


def _shorter_run(config: RunConfig, estimate: Callable[..., RunSeconds]) -> Fix:
    """What fits LONG_RUN_S: fewer validations, else fewer epochs, else images so small that one epoch does."""
    if estimate(evaluate_every=0).total <= LONG_RUN_S:
        return working_fix(config, evaluate_every=0)
    fits = [epochs for epochs in range(1, config.epochs) if estimate(epochs=epochs).total <= LONG_RUN_S]
    if fits:
        shorter = {"epochs": fits[-1], "phases": _shorter_phases(config, fits[-1])}
        return working_fix(config, **shorter) or working_fix(config, **shorter, progressive_sizes=())
    share = (LONG_RUN_S / estimate(epochs=1, progressive_sizes=()).total) ** 0.5
    size = max(64, int(config.image_size * share) // STRIDE * STRIDE)
    smaller = {"image_size": size, "progressive_sizes": (), "phases": ()}
    resize = "longest" if config.resize == "as_is" else config.resize
    return working_fix(config, epochs=1, resize=resize, **smaller)


def _shorter_phases(config: RunConfig, epochs: int) -> tuple[dict[str, Any], ...]:
    """The phases in their proportions within ``epochs``; what has no whole epoch any more is left out."""
    ends = list(accumulate((phase.epochs for phase in config.phases), initial=0))
    lengths = [round(end * epochs / config.epochs) for end in ends]
    return tuple(
        {**phase.model_dump(), "epochs": after - before}
        for phase, before, after in zip(config.phases, lengths, lengths[1:], strict=False)
        if after > before
    )


def judge_disk(measured: Measured, config: RunConfig, folder: Path) -> Verdict:
    """Whether what a run keeps fits on the disk of ``folder``, with the checkpoint that is being written."""
    free = shutil.disk_usage(folder).free
    level = _disk_level(measured, free)
    text = f"Checkpoints take {_kept_bytes(measured) / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    if level == "green":
        return Verdict("disk", level, f"{text}.")
    text += ": make room first." if level == "red" else "."
    for wanted in LEVELS[: LEVELS.index(level)]:
        for fix, lighter in _lighter_runs(measured, config):
            if _disk_level(lighter, free) == wanted:
                found = f"With {_words_for(fix)} they would take {_kept_bytes(lighter) / 1e9:.1f} GB"
                return Verdict("disk", level, f"{text} {found}.", fix)
    return Verdict("disk", level, text, action="check_again")


def _kept_bytes(measured: Measured) -> int:
    return NUM_BEST * measured.best_bytes + 2 * measured.last_bytes  # the last and the one before


def _disk_level(measured: Measured, free: int) -> Level:
    needed = _kept_bytes(measured) + measured.last_bytes
    if free < max(needed, 3 * measured.last_bytes):
        return "red"
    return "amber" if free < 2 * needed else "green"


def _lighter_runs(measured: Measured, config: RunConfig) -> Iterator[tuple[Fix, Measured]]:
    """Fixes with what would then be kept: SGD has one number for each weight where AdamW has two; smaller models."""
    if config.optimizer == "adamw":
        sgd = working_fix(config, optimizer="sgd", learning_rate=USUAL_RATES["sgd"])
        lighter = replace(measured, last_bytes=max(measured.best_bytes, measured.last_bytes - measured.best_bytes))
        if sgd:
            yield sgd, lighter
    parameters = measured.best_bytes / BYTES_OF_A_WEIGHT
    for fix, num_parameters in smaller_models(config, parameters):
        share = num_parameters / parameters
        kept = {"last_bytes": int(share * measured.last_bytes), "best_bytes": int(share * measured.best_bytes)}
        yield fix, replace(measured, **kept)


def _words_for(fix: Fix) -> str:
    return "a smaller model" if "model" in fix else "SGD"


def duration(seconds: float) -> str:
    """Seconds in words, as precise as an estimate is: "40 s", "25 min", "3.5 h", "2.1 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
