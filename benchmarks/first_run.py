"""How good a newcomer's first run gets, in how long: a dataset, the settings the app suggests, nothing else.

    python -m benchmarks.first_run EXPORT [key=value ...]     mAP50 and F1 by seconds of training
    python -m benchmarks.first_run EXPORT --plain             the same of a plain torchvision loop on the same batches
    python -m benchmarks.first_run EXPORT --steps 10          seconds of the same steps in both, interleaved

EXPORT is a Roboflow-style COCO export (folder or zip); ``key=value`` lays options over the suggested ones.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from app.pipeline.config import RunConfig, parse_assignments, parse_config
from app.pipeline.data.snapshot import Snapshot, load_snapshot
from app.pipeline.train.loop import Run, train
from app.pipeline.train.reference import ReferenceLoop, as_float_images
from app.pipeline.types import Event, Log, Metrics, RunContext
from app.services import dataset, importing, suggestions
from app.services.context import Services
from app.store.files import Workspace
from benchmarks.training_step import seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("options", nargs="*")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--plain", action="store_true")
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        config, snapshot = prepare(arguments.export, Path(folder), arguments.options)
        print(f"{arguments.export.name}: {config.model}, {config.image_size} px, batch {config.batch_size}, ", end="")
        print(f"{config.roi_batch_size} regions, {config.epochs} epochs, {torch.get_num_threads()} threads")
        if arguments.steps:
            compare_steps(config, snapshot, Path(folder) / "run", arguments.steps)
        elif arguments.plain:
            train_plain(config, snapshot, Path(folder) / "run", score_printer())
        else:
            train(config, snapshot, Path(folder) / "run", RunContext(emit=score_printer()))


def prepare(export: Path, folder: Path, options: list[str]) -> tuple[RunConfig, Snapshot]:
    """Import as the app does, and take what the app suggests, with ``options`` laid over it."""
    services = Services(Workspace(folder))
    slug, _ = importing.import_as_new_project(services, "first run", export)
    config = parse_config({**suggestions.suggested_values(services, slug), **parse_assignments(options)})
    path = folder / "dataset.json"
    dataset.write_snapshot(services, slug, path)
    return config, load_snapshot(path)


def score_printer() -> Callable[[Event], None]:
    """Prints a row for each validation: seconds and processor seconds since the start, and the scores."""
    began, began_cpu = time.monotonic(), time.process_time()
    print(f"{'epoch':>5} {'step':>6} {'wall s':>8} {'CPU s':>8} {'mAP':>6} {'mAP50':>6} {'F1':>6}")

    def show(event: Event) -> None:
        if isinstance(event, Log):
            print(event.text)
        if isinstance(event, Metrics) and event.split == "valid":
            times = f"{time.monotonic() - began:8.0f} {time.process_time() - began_cpu:8.0f}"
            scores = " ".join(f"{event.values[name]:6.3f}" for name in ("map", "map50", "f1"))
            print(f"{event.epoch:5d} {event.step:6d} {times} {scores}", flush=True)

    return show


def compare_steps(config: RunConfig, snapshot: Snapshot, run_dir: Path, num_steps: int) -> None:
    """Ours and the plain loop take turns on the same batches; medians and the range of their ratio."""
    run = Run.start(config, snapshot, run_dir, RunContext())
    plain = ReferenceLoop(run.config, len(snapshot.categories), run.machine)
    rounds = []
    for batch, number in zip(run.loader.epoch(1), range(num_steps + 2), strict=False):
        ours = seconds(partial(run.train_step, [batch], 1))
        images = as_float_images(batch)
        theirs = seconds(partial(plain.step, images, batch.targets))
        if number >= 2:  # the first steps plan kernels
            rounds.append((ours, theirs))
    for index, kind in enumerate(("wall", "CPU")):
        ratios = [theirs[index] / ours[index] for ours, theirs in rounds]
        medians = [statistics.median(pair[side][index] for pair in rounds) for side in (0, 1)]
        print(f"{kind:>5}: ours {medians[0]:.3f} s, plain {medians[1]:.3f} s a step; ", end="")
        print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} rounds)")


def train_plain(config: RunConfig, snapshot: Snapshot, run_dir: Path, emit: Callable[[Event], None]) -> None:
    """The plain loop through all epochs at one learning rate, judged as ours is."""
    run = Run.start(config, snapshot, run_dir, RunContext())
    plain = ReferenceLoop(run.config, len(snapshot.categories), run.machine)
    for epoch in range(1, config.epochs + 1):
        for batch in run.loader.epoch(epoch):
            plain.step(as_float_images(batch), batch.targets)
        run.model.load_state_dict(plain.model.state_dict())
        judgement = run.judge.judge(run.detector)
        emit(Metrics(epoch * run.loader.batches_per_epoch, epoch, "valid", judgement.scores.to_dict()))


if __name__ == "__main__":
    main()
