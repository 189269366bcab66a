"""One of several processes that train the tiny detector; started by torch.distributed.run.

    rank_process.py FOLDER MODEL [what goes wrong] [RANK:BATCH ...]

Rank 0 writes the events that it emits, one a line, to FOLDER/events. In each attempt the RANK named for it is killed in
the middle of a step, when the batch of that number has come to it.
"""

import errno
import os
import signal
import sys
from pathlib import Path

import torch

from app.pipeline.config import load_config
from app.pipeline.data.snapshot import load_snapshot
from app.pipeline.models import build
from app.pipeline.train import gradients, learner, loop, run
from app.pipeline.types import Log, Metrics, RunContext
from tests.pipeline.train.broken import Broken
from tests.pipeline.train.tiny_dataset import construct_tiny, construct_tiny_with_batch_norm

TOO_LITTLE = "CUDA out of memory"
MODELS = {"plain": construct_tiny, "batch norm": construct_tiny_with_batch_norm}


def main(folder: Path, model: str, fault: str, deaths: list[str]) -> None:
    torch.set_num_threads(1)
    build.construct = MODELS[model]
    run.SAVE_EVERY_S, run.MAX_SAVE_SHARE = 0.0, float("inf")
    rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    events = (folder / "events").open("a")

    def emit(event):
        if fault == "gradient" and isinstance(event, Metrics) and event.step == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        if isinstance(event, Log) or (isinstance(event, Metrics) and event.split != "system"):
            print(event, file=events, flush=True)

    compute = learner.compute_losses
    num_calls = 0

    def count(*args):
        nonlocal num_calls
        num_calls += 1
        if deaths[attempt:][:1] == [f"{rank}:{num_calls}"]:
            os.kill(os.getpid(), signal.SIGKILL)
        losses = compute(*args)
        if num_calls == (2 if fault == "two at once" else 3):  # rank 1 has no batch in the third step
            if (fault, rank) == ("broken", 1):
                return {name: Broken.apply(value) for name, value in losses.items()}
            if (fault, rank) in {("not finite", 1), ("two at once", 0)}:
                return {name: value * float("nan") for name, value in losses.items()}
            if (fault, rank) == ("two at once", 1):
                raise RuntimeError(TOO_LITTLE)
            if (fault, rank) == ("gradient", 0):
                return {name: Spoiled.apply(value) for name, value in losses.items()}
        return losses

    learner.compute_losses = count
    if (fault, rank) == ("memory", 1):
        fail_once(gradients, "DistributedDataParallel")
        fail_once(torch.optim.AdamW, "step")
    should_stop = (lambda: num_calls >= 3) if fault == "stopped" else (lambda: False)
    snapshot = load_snapshot(folder / "dataset.json")
    try:
        config = load_config(folder / "config.json")
        result = loop.train(config, snapshot, folder / "run", RunContext(emit, should_stop))
        (folder / f"ended {rank}").write_text(result.state)
    except Exception as error:  # in every rank the same
        (folder / f"ended {rank}").write_text(f"{type(error).__name__}: {error}")


class Spoiled(torch.autograd.Function):
    """The loss itself, with a gradient that is not finite."""

    @staticmethod
    def forward(ctx, loss):  # noqa: ANN001
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):  # noqa: ANN001
        return gradient * float("nan")


def fail_once(owner: object, name: str) -> None:
    """Let the first call come to its end and fail all the same, as a kernel's error is heard of later."""
    call, calls = getattr(owner, name), []

    def replacement(*args, **options):
        result = call(*args, **options)
        calls.append(name)
        if len(calls) == 1:
            raise RuntimeError(TOO_LITTLE)
        return result

    setattr(owner, name, replacement)


main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
