"""All checks of a run before it is started, one verdict after the other, in less than a minute.

The quick ones come first. What a check cannot do (weights that are not there, a full disk) is its verdict.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from app.pipeline.anchors import boxes_of, resolve_shapes
from app.pipeline.config import RunConfig
from app.pipeline.data.snapshot import Snapshot
from app.pipeline.machine import MachineError
from app.pipeline.models.weights_fit import WeightsError
from app.pipeline.preflight.batch_fit import BatchFit, BatchTrial, judge_fit
from app.pipeline.preflight.dataset_checks import check_anchors, check_crowding, check_sizes
from app.pipeline.preflight.overfit import check_overfit, rate_of
from app.pipeline.preflight.rehearsal import judge_disk, judge_time, rehearse
from app.pipeline.preflight.verdict import Fix, Verdict, trouble, working_fix
from app.pipeline.train.checkpoint import CheckpointError
from app.pipeline.train.loader import DatasetError
from app.pipeline.train.loop import begin_epoch
from app.pipeline.train.run import Run
from app.pipeline.types import Event, Log, Progress, RunContext

logger = logging.getLogger(__name__)

BUDGET_S = 50.0  # of all checks
OVERFIT_S = (8.0, 30.0)  # at least, at most
TITLES = {
    "sizes": "Size of the objects",
    "anchors": "Anchors",
    "crowding": "Crowded images",
    "memory": "Memory",
    "time": "Time",
    "disk": "Disk",
    "overfit": "Learning two images",
    "start": "Start",
}
NUM_CHECKS = len(TITLES) - 1  # "start" has a verdict only when a run cannot be started


def preflight(
    config: RunConfig,
    snapshot: Snapshot,
    folder: Path,
    context: RunContext | None = None,
    is_shared: Callable[[], bool] = lambda: False,
) -> Iterator[Verdict]:
    """Yield a verdict for each check; ``folder`` is on the disk of the runs, and nothing stays in it.

    ``is_shared``: whether another training is under way beside this. Ends early when asked to stop.
    """
    context, began = context or RunContext(), time.monotonic()
    train = snapshot.split("train")
    steps: list[tuple[str, Callable[[], Verdict]]] = [
        ("sizes", lambda: check_sizes(train, config)),
        ("anchors", lambda: check_anchors(train, config)),
        ("crowding", lambda: check_crowding(snapshot, config)),
    ]
    for done, (name, check) in enumerate(steps):
        context.emit(Progress(done, NUM_CHECKS, TITLES[name]))
        yield _verdict_of(name, config, check)
    if context.should_stop():
        return
    config = resolve_shapes(config, boxes_of(train, config))
    with tempfile.TemporaryDirectory(dir=folder) as place:
        yield from _try_out(config, snapshot, Path(place), context, is_shared)
    if context.should_stop():
        return
    left_s = BUDGET_S - (time.monotonic() - began)
    seconds = min(OVERFIT_S[1], max(OVERFIT_S[0], left_s))
    last = RunContext(lambda event: context.emit(_in_last_check(event)), context.should_stop)
    verdict = _verdict_of("overfit", config, lambda: check_overfit(config, snapshot, folder, seconds, last))
    if not context.should_stop():
        yield verdict


def _in_last_check(event: Event) -> Event:
    """Progress within the last check as progress of all."""
    if not isinstance(event, Progress):
        return event
    return Progress(NUM_CHECKS - 1 + event.done / max(1, event.total), NUM_CHECKS, event.message)


def _try_out(
    config: RunConfig, snapshot: Snapshot, folder: Path, context: RunContext, is_shared: Callable[[], bool]
) -> Iterator[Verdict]:
    """Start the run, step with it and save it: memory, time and disk."""
    # All parts, at the last size, in this one process.
    whole = {"phases": (), "progressive_sizes": (), "learning_rate": rate_of(config), "processes": 1}
    quiet = RunContext(lambda event: context.emit(event) if isinstance(event, Log) else None, context.should_stop)
    context.emit(Progress(3, NUM_CHECKS, "starting the run"))
    try:
        run = Run.start(config.model_copy(update=whole), snapshot, folder, quiet)
    except (ValueError, RuntimeError, OSError) as error:
        yield _failed("start", config, error)
        return
    is_on_gpu, num_gpus = run.machine.device.type == "cuda", torch.cuda.device_count()
    if is_on_gpu and config.processes > max(1, num_gpus):
        text = f"{config.processes} processes need as many GPUs, and there are {num_gpus} here."
        yield trouble("start", "red", text, working_fix(config, processes=0), "check_again")
    begin_epoch(run, 1)
    context.emit(Progress(3, NUM_CHECKS, TITLES["memory"]))
    fits: list[BatchFit] = []

    def check_memory() -> Verdict:
        num_sharing = 1 if is_on_gpu else max(1, config.processes)
        fits.append(BatchTrial(run, snapshot, num_sharing).fit())
        return judge_fit(fits[0], config, num_sharing)

    memory = _verdict_of("memory", config, check_memory)
    yield memory
    if memory.level == "red" or context.should_stop():
        return
    context.emit(Progress(4, NUM_CHECKS, TITLES["time"]))
    was_shared = is_shared()
    try:
        measured = rehearse(run, snapshot, folder, context, fits[0].image_s)
    except (ValueError, RuntimeError, OSError) as error:
        yield _failed("time", config, error)
        return
    if context.should_stop():
        return
    yield judge_time(
        measured,
        config,
        num_batches=run.loader.batches_per_epoch,
        num_valid=len(snapshot.split("valid")),
        is_shared=was_shared or is_shared(),
        num_gpus=min(max(1, config.processes), num_gpus) if is_on_gpu else 1,
    )
    yield judge_disk(measured, config, folder)


def _verdict_of(name: str, config: RunConfig, check: Callable[[], Verdict]) -> Verdict:
    """The check's verdict; an error that a run would meet as well is a red one."""
    try:
        return check()
    except (ValueError, RuntimeError, OSError) as error:
        logger.warning("check %s: %s", name, error)
        return _failed(name, config, error)


def _failed(name: str, config: RunConfig, error: Exception) -> Verdict:
    """The verdict on what a run would end with, with what would mend it."""
    text = _sentence(error)
    if isinstance(error, DatasetError):
        return Verdict(name, "red", text, action="open_data")
    fix: Fix = {}
    if isinstance(error, WeightsError):
        fix = working_fix(config, pretrained="none") or working_fix(config, pretrained="none", norm="auto")
    elif isinstance(error, MachineError):
        fix = working_fix(config, device="auto", precision="auto")
    return trouble("disk" if isinstance(error, CheckpointError) else name, "red", text, fix, "check_again")


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
