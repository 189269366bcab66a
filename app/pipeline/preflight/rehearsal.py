"""How long a run will take, and how much disk: measured on its first steps, validation images and a checkpoint."""

import shutil
import time
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from app.pipeline.config import RunConfig
from app.pipeline.data.snapshot import Snapshot
from app.pipeline.preflight.batch_fit import SLOW_BATCH_S
from app.pipeline.preflight.verdict import Level, Verdict
from app.pipeline.train.checkpoint import NUM_BEST
from app.pipeline.train.estimate import estimate_run
from app.pipeline.train.files import LAST_NAME
from app.pipeline.train.loop import Run
from app.pipeline.types import RunContext

MAX_STEPS, MAX_STEPS_S = 12, 8.0  # of training; two are done at least
MAX_PREDICTED, MAX_PREDICTED_S = 16, 4.0
LONG_RUN_S = 12 * 3600.0


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
    run.stop(1)
    save_s = time.perf_counter() - began
    best_bytes = sum(value.numel() * value.element_size() for value in run.kept_model.state_dict().values())
    return Measured(batch_s, predict_s, save_s, (folder / LAST_NAME).stat().st_size, best_bytes)


def _seconds_of_a_batch(run: Run, context: RunContext) -> float:
    """The mean over the batches after the first, which waits for the loader's start."""
    with run.loader as loader:
        batches = (batch for epoch in count(1) for batch in loader.epoch(epoch))
        run.train_step([next(batches)], 1)
        began, num_done = time.perf_counter(), 0
        for batch in islice(batches, MAX_STEPS):
            run.train_step([batch], 1)
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


def judge_time(measured: Measured, config: RunConfig, num_batches: int, num_valid: int, is_shared: bool) -> Verdict:
    """The length of a run with ``num_batches`` an epoch; ``is_shared``: another training ran beside the measurement."""
    found = estimate_run(config, num_batches * measured.batch_s, num_valid * measured.predict_s, measured.save_s)
    text = f"About {duration(found.total)}: {config.epochs * num_batches:,} batches of {measured.batch_s:.2g} s"
    text += f", {duration(found.judge)} of validation" if found.judge else ""
    text += f", {duration(found.save)} of saving."
    text += " Another training was under way meanwhile: alone it goes faster." if is_shared else ""
    level: Level = "amber" if found.total > LONG_RUN_S else "green"
    facts = {"seconds": found.total, "batch_s": measured.batch_s, "predict_s": measured.predict_s}
    return Verdict("time", level, text, facts=facts)


def judge_disk(measured: Measured, folder: Path) -> Verdict:
    """Whether what a run keeps fits on the disk of ``folder``, with the checkpoint that is being written."""
    kept = NUM_BEST * measured.best_bytes + 2 * measured.last_bytes  # the last and the one before
    needed, free = kept + measured.last_bytes, shutil.disk_usage(folder).free
    text = f"Checkpoints take {kept / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    if free < max(needed, 3 * measured.last_bytes):
        return Verdict("disk", "red", f"{text}: make room first.")
    return Verdict("disk", "amber" if free < 2 * needed else "green", f"{text}.")


def duration(seconds: float) -> str:
    """Seconds in words, as precise as an estimate is: "40 s", "25 min", "3.5 h", "2.1 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
