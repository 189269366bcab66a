"""What each preset reaches from scratch within one short budget, trained and judged from the command line.

    python -m benchmarks.presets EXPORT [--seconds 120] [--only NAME ...]

EXPORT is a Roboflow-style COCO export (folder or zip). Every preset keeps its model, sizes, losses, rates and
augmentation; only the start (no weights) and the length are changed: as many epochs as fit into the budget of processor
seconds by the measured time of three steps, and where not even one fits, the part of an epoch that does. Prints a row a
preset: what was trained, processor seconds, and the figures of its best checkpoint on the validation split.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from app.pipeline.config import RunConfig
from app.pipeline.data.snapshot import load_snapshot
from app.pipeline.presets import PRESETS
from app.pipeline.train.loop import train_step
from app.pipeline.train.run import Run
from app.pipeline.types import RunContext
from app.services import dataset, training
from app.services.context import Services
from app.store.files import Workspace

PROJECT = "presets"
PROBED_STEPS = 4  # the first one plans kernels and does not count
POLL_S = 5.0  # each look costs about a processor second, which the training would miss


def main() -> None:
    """Import the export once, then train and judge with each preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0, help="processor seconds of training (120)")
    parser.add_argument("--only", nargs="+", default=[preset.name for preset in PRESETS], metavar="NAME")
    values = parser.parse_args()
    print(f"{values.export.name}, {values.seconds:.0f} processor seconds of training each, from scratch")
    print(f"{'preset':<28}{'px':>5}{'batch':>6}{'steps':>7}{'epochs':>8}{'CPU s':>7}{'mAP':>8}{'mAP50':>8}{'F1':>8}")
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        command(workspace, "import", str(values.export), "--project", PROJECT)
        for name in values.only:
            print(row(workspace, name, values.seconds), flush=True)


def row(workspace: Path, preset: str, budget_s: float) -> str:
    """Train and judge with one preset; its line of the table."""
    services = Services(Workspace(workspace))
    config = training.build_config(services, PROJECT, {"pretrained": "none"}, preset)
    steps_per_epoch, step_s = probe(services, workspace, config)
    changes = fitted_length(config, int(budget_s / (steps_per_epoch * step_s)))
    words = [word for name, value in changes.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    run = command(workspace, "train", "--project", PROJECT, "--preset", preset, "--set", "pretrained=none", *words)
    cpu_s = watch(workspace, run["run"], budget_s)
    figures = command(workspace, "evaluate", "--project", PROJECT, "--run", str(run["run"]))
    steps = training.metrics_after(services, PROJECT, run["run"], names=["loss"])[0][-1].step
    epochs = training.get_run(services, PROJECT, run["run"]).epoch
    size = "as is" if config.resize == "as_is" else config.image_size
    scores = "".join(f"{figures[name]:8.3f}" for name in ("map", "map50", "f1"))
    return f"{preset:<28}{size:>5}{config.batch_size:>6}{steps:>7}{epochs:>8}{cpu_s:>7.0f}{scores}"


def probe(services: Services, workspace: Path, config: RunConfig) -> tuple[int, float]:
    """Steps of an epoch, and processor seconds of one, by taking a few at the largest size."""
    path = workspace / "probe" / "dataset.json"
    dataset.write_snapshot(services, PROJECT, path)
    run = Run.start(config.model_copy(update={"progressive_sizes": ()}), load_snapshot(path), path.parent, RunContext())
    times = []
    for batch, _ in zip(run.loader.epoch(1), range(PROBED_STEPS), strict=False):
        began = time.process_time()
        train_step(run, [batch], 1)
        times.append(time.process_time() - began)
    return run.num_steps // config.epochs, sum(times[1:]) / len(times[1:])


def fitted_length(config: RunConfig, num_epochs: int) -> dict[str, Any]:
    """Options that make the run ``num_epochs`` long, at least one; its phases keep their proportions."""
    num_epochs = min(max(1, num_epochs), config.epochs)
    changes: dict[str, Any] = {"epochs": num_epochs}
    if len(config.progressive_sizes) > num_epochs:
        changes["progressive_sizes"] = []
    if config.phases:
        phases = [phase.model_dump() for phase in config.phases][-num_epochs:]
        for phase in phases:
            phase["epochs"] = max(1, phase["epochs"] * num_epochs // config.epochs)
        phases[-1]["epochs"] += num_epochs - sum(phase["epochs"] for phase in phases)
        changes["phases"] = phases
    return changes


def watch(workspace: Path, run_id: int, budget_s: float) -> float:
    """Wait for the end of a run, or cancel it when the budget is spent; returns its processor seconds."""
    spent_s, is_cancelled = 0.0, False
    while True:
        (run,) = (run for run in command(workspace, "runs", "--project", PROJECT)["runs"] if run["run"] == run_id)
        if run["state"] not in ("queued", "running", "stopping"):
            return spent_s
        if run["pid"] and psutil.pid_exists(run["pid"]):
            spent_s = sum(psutil.Process(run["pid"]).cpu_times()[:2])
        if spent_s > 1.5 * budget_s and not is_cancelled:
            is_cancelled = True
            command(workspace, "cancel", "--project", PROJECT, "--run", str(run_id))
        time.sleep(POLL_S)


def command(workspace: Path, *words: str) -> dict[str, Any]:
    """What a command of the app answers; raises RuntimeError with its error when it fails."""
    line = [sys.executable, "-m", "app", "--projects", str(workspace), *words, "--json"]
    answer = subprocess.run(line, capture_output=True, text=True)
    result = json.loads(answer.stdout.strip().rpartition("\n")[2])
    if answer.returncode:
        raise RuntimeError(f"{' '.join(words)}: {result['error']}")
    return result


if __name__ == "__main__":
    main()
