"""How good a newcomer's first run gets, in how long: a dataset, the settings the app suggests, nothing else.

    python -m benchmarks.first_run EXPORT [key=value ...]     mAP50 and F1 by seconds of training
    python -m benchmarks.first_run EXPORT --plain             the same beside a plain torchvision loop
    python -m benchmarks.first_run EXPORT --steps 10          seconds of the same steps in both, interleaved

EXPORT is a Roboflow-style COCO export (folder or zip); ``key=value`` lays options over the suggested ones.

The plain loop has the recipe of the run: its first weights, the learning rate of each step, weight decay, clipping,
anchors, batches and augmented images, and it is judged by the same code. What is left to differ is the step. The two
take turns, one validation each, so that what else the machine does meets both; seconds are those of one's own turns,
validation included, of the run its checkpoints too. The plain loop computes in the precision of the run, or in that of
``--plain-precision``.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch

from app.pipeline.config import RunConfig, parse_assignments, parse_config
from app.pipeline.data.snapshot import Snapshot, load_snapshot
from app.pipeline.machine import choose_machine
from app.pipeline.models.build import resolve_norm
from app.pipeline.train.loop import train, train_step
from app.pipeline.train.reference import ReferenceLoop, as_float_images
from app.pipeline.train.run import Run
from app.pipeline.train.schedule import learning_rate_at
from app.pipeline.types import Event, Log, Metrics, RunBegun, RunContext
from app.services import dataset, importing, suggestions
from app.services.context import Services
from app.store.files import Workspace
from benchmarks.clock import describe_device, read_clocks, seconds, seconds_since

# What the plain loop cannot do: with one of these changed, the two would not have the same recipe.
OURS_ALONE = (
    *("resize", "progressive_sizes", "channels", "pooler_size", "processes", "accumulate_batches", "ema_decay"),
    *("phases", "rpn_box_loss", "box_loss", "class_loss", "class_weights"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("options", nargs="*")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--plain-precision", default="same", choices=["same", "float32", "bfloat16", "float16"])
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        config, snapshot = prepare(arguments.export, Path(folder), arguments.options)
        print(f"{arguments.export.name}: {config.model}, {config.image_size} px, batch {config.batch_size}, ", end="")
        print(f"{config.roi_batch_size} regions, {config.epochs} epochs, ", end="")
        print(describe_device(choose_machine(config.device).device))
        if arguments.steps:
            compare_steps(config, snapshot, Path(folder) / "run", arguments.steps)
        elif arguments.plain:
            race(config, snapshot, Path(folder), arguments.plain_precision)
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
        ours = seconds(partial(train_step, run, [batch], 1), run.machine.device)
        images = as_float_images(batch)
        theirs = seconds(partial(plain.step, images, batch.targets), run.machine.device)
        if number >= 2:  # the first steps plan kernels
            rounds.append((ours, theirs))
    for index, kind in enumerate(("wall", "CPU")):
        ratios = [theirs[index] / ours[index] for ours, theirs in rounds]
        medians = [statistics.median(pair[side][index] for pair in rounds) for side in (0, 1)]
        print(f"{kind:>5}: ours {medians[0]:.3f} s, plain {medians[1]:.3f} s a step; ", end="")
        print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} rounds)")


# --- mAP50 by seconds, ours and plain ---


class Point(NamedTuple):
    """What a side has come to in so many seconds of its own: one validation."""

    wall_s: float
    cpu_s: float
    map50: float


class PlainTraining:
    """The plain loop with the recipe of a run. ``run`` never trains: its weights, batches and judge are used."""

    def __init__(self, config: RunConfig, snapshot: Snapshot, run_dir: Path, precision: str) -> None:
        changed = [name for name in OURS_ALONE if getattr(config, name) != getattr(RunConfig(), name)]
        changed += ["norm"] if config.norm == "group" else []
        if changed:
            raise SystemExit(f"The plain loop has no {', '.join(changed)}: leave them as they are.")
        self.run = Run.start(config, snapshot, run_dir, RunContext())
        machine = self.run.machine if precision == "same" else choose_machine(config.device, precision)
        clipping = config.clip_gradient_norm
        self.loop = ReferenceLoop(self.run.config, len(snapshot.categories), machine, resolve_norm(config), clipping)
        self.loop.start_from(self.run.learner.model)
        self._step = self._epoch = 0

    def train_until(self, epoch: int) -> float:
        """Train to the end of an epoch; returns mAP50."""
        for number in range(self._epoch + 1, epoch + 1):
            torch.manual_seed(number)  # whatever the other side has drawn
            for batch in self.run.loader.epoch(number):
                rate = learning_rate_at(self._step, self.run.num_steps, self.run.config)
                self.loop.set_learning_rate(rate)
                self.loop.step(as_float_images(batch), batch.targets)
                self._step += 1
            self._epoch = number
        self.run.learner.model.load_state_dict(self.loop.model.state_dict())
        return self.run.judge.judge(self.run.detector).scores.map50


class Turns:
    """Takes in the events of a run: each time it is judged, the plain loop trains as far, on a clock of its own."""

    def __init__(self, plain: PlainTraining) -> None:
        self._plain = plain
        self._device = plain.run.machine.device
        self.ours: list[Point] = []
        self.theirs: list[Point] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Log):
            print(event.text)
        if isinstance(event, RunBegun):
            self._began = read_clocks(self._device)
        if isinstance(event, Metrics) and event.split == "valid":
            spent = seconds_since(self._began, self._device)
            self.ours.append(_next_point(self.ours, spent, event.values["map50"]))
            found: list[float] = []
            spent = seconds(lambda: found.append(self._plain.train_until(event.epoch)), self._device)
            self.theirs.append(_next_point(self.theirs, spent, found[0]))
            ends = [f"{end.wall_s:9.0f}{end.cpu_s:8.0f}{end.map50:8.3f}" for end in (self.ours[-1], self.theirs[-1])]
            print(f"{event.epoch:5d}{'  '.join(ends)}", flush=True)
            self._began = read_clocks(self._device)


def _next_point(before: Sequence[Point], spent: tuple[float, float], map50: float) -> Point:
    wall, cpu = (before[-1].wall_s, before[-1].cpu_s) if before else (0.0, 0.0)
    return Point(wall + spent[0], cpu + spent[1], map50)


def race(config: RunConfig, snapshot: Snapshot, folder: Path, precision: str) -> None:
    """Train both by turns; prints mAP50 by seconds, and the ratio of the seconds to the same mAP50."""
    plain = PlainTraining(config, snapshot, folder / "plain", precision)
    machines = f"{plain.run.machine.describe()}; plain in {str(plain.loop.machine.dtype).removeprefix('torch.')}"
    print(f"ours on {machines}; {config.optimizer}, {config.schedule} from {config.learning_rate}, seed {config.seed}")
    print(f"{'':5}{'ours: s':>9}{'CPU s':>8}{'mAP50':>8}  {'plain: s':>9}{'CPU s':>8}{'mAP50':>8}")
    turns = Turns(plain)
    with plain.run.loader:
        train(config, snapshot, folder / "run", RunContext(emit=turns))
    print_ratios(turns.ours, turns.theirs)


def print_ratios(ours: Sequence[Point], theirs: Sequence[Point]) -> None:
    """Seconds to each mAP50 that both have reached, and of a turn."""
    print(f"{'mAP50':>8}{'ours s':>9}{'plain s':>9}{'ratio':>8}{'CPU':>8}   seconds until it was reached")
    both = min(max(point.map50 for point in side) for side in (ours, theirs))
    for level in [*(step / 10 for step in range(1, 10) if step / 10 < both), both] if both else []:
        (wall, cpu), (their_wall, their_cpu) = seconds_to_reach(ours, level), seconds_to_reach(theirs, level)
        print(f"{level:8.3f}{wall:9.1f}{their_wall:9.1f}{their_wall / wall:8.2f}{their_cpu / cpu:8.2f}")
    for index, kind in enumerate(("wall", "CPU")):
        turns = [[after[index] - before[index] for before, after in pairwise(side)] for side in (ours, theirs)]
        ratios = [their / own for own, their in zip(*turns, strict=True)]
        if ratios:  # without the first turn, which plans kernels
            rounds = f"({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} rounds)"
            print(f"{kind:>5} seconds of a turn, validation included: ratio {statistics.median(ratios):.2f} {rounds}")


def seconds_to_reach(curve: Sequence[Point], level: float) -> tuple[float, float]:
    """Wall and processor seconds until the best mAP50 so far got to ``level``, on straight lines from point to point.

    Raises ValueError when it never did.
    """
    before = Point(0.0, 0.0, 0.0)
    for point in curve:
        if point.map50 >= level:
            share = (level - before.map50) / (point.map50 - before.map50)
            wall = before.wall_s + share * (point.wall_s - before.wall_s)
            return wall, before.cpu_s + share * (point.cpu_s - before.cpu_s)
        before = point._replace(map50=max(point.map50, before.map50))
    raise ValueError(f"mAP50 {level:.3f} was never reached")


if __name__ == "__main__":
    main()
