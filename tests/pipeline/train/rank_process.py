"""One of several processes that train the tiny detector; started by torch.distributed.run.

    rank_process.py FOLDER MODEL [what goes wrong] [RANK:BATCH ...]

Rank 0 writes the events that it emits, one a line, to FOLDER/events. In each attempt the RANK named for it is killed in
the middle of a step, when the batch of that number has come to it.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from app.pipeline.config import load_config
from app.pipeline.data.snapshot import load_snapshot
from app.pipeline.models import build
from app.pipeline.train import learner, loop, run
from app.pipeline.types import Log, Metrics, RunContext
from tests.pipeline.train.broken import Broken
from tests.pipeline.train.tiny_dataset import construct_tiny, construct_tiny_with_batch_norm

MODELS = {"plain": construct_tiny, "batch norm": construct_tiny_with_batch_norm}


def main(folder: Path, model: str, fault: str, deaths: list[str]) -> None:
    torch.set_num_threads(1)
    build.construct = MODELS[model]
    run.SAVE_EVERY_S, run.MAX_SAVE_SHARE = 0.0, float("inf")
    rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    events = (folder / "events").open("a")

    def emit(event):
        if isinstance(event, Log) or (isinstance(event, Metrics) and event.split != "system"):
            print(event, file=events, flush=True)

    compute = learner.compute_losses
    num_calls = 0

    def count(*args):
        nonlocal num_calls
        num_calls += 1
        if deaths[attempt:][:1] == [f"{rank}:{num_calls}"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if rank == 1 and num_calls == 3:
            if fault == "broken":
                return {name: Broken.apply(value) for name, value in compute(*args).items()}
            if fault == "not finite":
                return {name: value * float("nan") for name, value in compute(*args).items()}
        return compute(*args)

    learner.compute_losses = count
    should_stop = (lambda: num_calls >= 3) if fault == "stopped" else (lambda: False)
    snapshot = load_snapshot(folder / "dataset.json")
    try:
        config = load_config(folder / "config.json")
        result = loop.train(config, snapshot, folder / "run", RunContext(emit, should_stop))
        (folder / f"ended {rank}").write_text(result.state)
    except Exception as error:  # in every rank the same
        (folder / f"ended {rank}").write_text(f"{type(error).__name__}: {error}")


main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
