"""Losses of short trainings by our loop and the reference's: from the same weights, on the same batches."""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

from app.pipeline.config import RunConfig
from app.pipeline.data.pixels import ResizedImages
from app.pipeline.data.snapshot import Snapshot
from app.pipeline.machine import Machine, choose_machine
from app.pipeline.train.loader import TrainLoader
from app.pipeline.train.reference import ReferenceLoop
from app.pipeline.types import RunContext
from benchmarks.clock import describe_device
from benchmarks.first_run import prepare
from benchmarks.step_loops import OurLoop, as_loaded, step_of

NUM_SEEDS = 3
NUM_WINDOWS = 10


def measure_curves(arguments: argparse.Namespace) -> None:
    precisions = {"ours": arguments.precision, "torchvision": arguments.plain_precision or arguments.precision}
    machines = {whose: choose_machine(arguments.device, precision) for whose, precision in precisions.items()}
    with tempfile.TemporaryDirectory() as folder:
        options = [f"model={arguments.model}", f"image_size={arguments.size}", "batch_size=4", "augmentation=[]"]
        options += ["optimizer=sgd", "learning_rate=0.01", "pretrained=none", "roi_batch_size=64", "rpn_batch_size=64"]
        config, snapshot = prepare(arguments.export, Path(folder), options)
        config = config.model_copy(update={"max_detections": 100})
        curves = {
            whose: [run_curve(whose, config, snapshot, machine, seed, arguments.steps) for seed in range(NUM_SEEDS)]
            for whose, machine in machines.items()
        }
    against = " against ".join(dict.fromkeys(precisions.values()))
    setting = f"{config.model}, {config.image_size} px, batch {config.batch_size}, {against}"
    print(f"{describe_device(machines['ours'].device)}, {setting}, {arguments.export.name}")
    print(f"mean loss of each tenth of {arguments.steps} steps, with {NUM_SEEDS} seeds")
    print(f"{'steps':<10}{'ours (range)':<28}{'torchvision (range)':<28}difference")
    for window in range(NUM_WINDOWS):
        part = slice(window * arguments.steps // NUM_WINDOWS, (window + 1) * arguments.steps // NUM_WINDOWS)
        means = {whose: [statistics.mean(curve[part]) for curve in own] for whose, own in curves.items()}
        cells = [f"{statistics.mean(own):.4f} ({min(own):.4f} to {max(own):.4f})" for own in means.values()]
        difference = statistics.mean(means["ours"]) / statistics.mean(means["torchvision"]) - 1
        steps = f"{part.start} to {part.stop}"
        print(f"{steps:<10}{cells[0]:<28}{cells[1]:<28}{difference:+.1%}", flush=True)


def run_curve(
    whose: str, config: RunConfig, snapshot: Snapshot, machine: Machine, seed: int, num_steps: int
) -> list[float]:
    """The loss of each step."""
    torch.manual_seed(100)  # the same weights for all
    num_categories = len(snapshot.categories)
    ours = OurLoop(config, num_categories, machine)
    reference = ReferenceLoop(config, num_categories, machine, max_norm=config.clip_gradient_norm)
    reference.start_from(ours.model)
    loop = ours if whose == "ours" else reference
    images, is_pinned = ResizedImages.for_config(config), machine.device.type == "cuda"
    torch.manual_seed(seed)
    losses: list[float] = []
    with TrainLoader(snapshot.split("train"), num_categories, config, images, RunContext(), is_pinned) as loader:
        epoch = 0
        while len(losses) < num_steps:
            epoch += 1
            losses += [step_of(loop, batch, as_loaded(batch))() for batch in loader.epoch(epoch)]
    return losses[:num_steps]
