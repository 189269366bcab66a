"""The training step against the loop of torchvision's detection references, on the same batches from the same weights.

    python -m benchmarks.training_step speed [--model M] [--sizes 320 512] [--norms frozen batch] [--batch 2]
    python -m benchmarks.training_step batches            our own images a second at batch 2 and at batch 16
    python -m benchmarks.training_step calls              kernels and waits of a step at batch 2 and 8
    python -m benchmarks.training_step memory             bytes kept for the backward pass under mixed precision
    python -m benchmarks.training_step curves EXPORT      losses of short trainings with several seeds

Each takes ``--device cuda`` but calls; what the goals ask of a GPU is ``speed --device cuda --batch 8 --rounds 20``,
``batches --device cuda``, ``memory --device cuda --batch 8`` and ``curves EXPORT --device cuda --precision bfloat16``.

speed: all variants take turns on each batch; a round's ratio is the reference's time over ours in that round. The
reference in mixed precision is there in torch's own layout and channels-last ("cl").
calls: counted on the CPU, with the choices that a GPU gets; a wait is an operation whose result the host must know.
memory: what the graph keeps, counted; on a GPU also the peak of a step above what lies there between steps.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN

from app.pipeline.config import RunConfig, parse_config
from app.pipeline.machine import Machine, choose_machine
from app.pipeline.models.build import build_model, freeze_for_finetuning
from app.pipeline.models.forward import Batch, compute_losses, place_model
from app.pipeline.models.measure import _random_target
from app.pipeline.train.optim import Updater, check_losses
from app.pipeline.train.reference import ReferenceLoop, as_float_images
from benchmarks.step_calls import CallCounter, as_on_a_gpu, count_calls

NUM_CLASSES = 3
CALLS_PX = 64  # operations are as many at any size


class OurLoop:
    """Our model and step, as Run.train_step does it for one batch."""

    def __init__(self, config: RunConfig, num_categories: int, machine: Machine, norm: str = "batch") -> None:
        model = build_model(config, num_categories)
        if norm == "frozen":
            calibrate(model.backbone.body, config.image_size)
            freeze_for_finetuning(model, trainable_layers=5)
        self.model = place_model(model, machine).train()
        self.updater = Updater(self.model, config, machine)
        self.machine = machine

    def step(self, batch: Batch) -> float:
        """One update; returns the loss."""
        losses = compute_losses(self.model, batch, self.machine, waits=self.machine.waits_are_free)
        loss = torch.stack(list(losses.values())).sum()
        numbers = self.updater.read([*losses.values(), loss])
        check_losses(dict(zip([*losses, "loss"], numbers, strict=True)), batch.names)
        self.updater.add(loss)
        self.updater.apply(batch.names)
        return numbers[-1]


@torch.no_grad()
def calibrate(body: nn.Module, size: int) -> None:
    """Statistics of noise, so that frozen norms do what they do after a pretraining: without, maps grow and grow."""
    for layer in body.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    body.train()(torch.randn(2, 3, size, size))


def config_of(model: str, size: int, **values: Any) -> RunConfig:
    settings = {
        "optimizer": "sgd",
        "learning_rate": 1e-3,
        "device": "cpu",
        "precision": "float32",
        "pretrained": "none",
    }
    return parse_config({"model": model, "image_size": size, "max_detections": 100, **settings, **values})


def random_batch(size: int, num_images: int, machine: Machine, seed: int = 0) -> Batch:
    """Noise with boxes, as a run's loader hands it over: on the host, for a GPU in pinned memory."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (num_images, size, size, 3), generator=generator, dtype=torch.uint8)
    pixels = pixels.pin_memory() if machine.device.type == "cuda" else pixels
    targets = [_random_target(size, generator) for _ in range(num_images)]
    return Batch(pixels, [(size, size)] * num_images, targets, ["noise"] * num_images)


# --- speed ---

Variant = tuple[str, str]  # "ours" or "theirs", and the arithmetic: "bf16", "bf16 cl", "fp32" ...
Rounds = dict[Variant, list[tuple[float, float]]]  # (wall, CPU) seconds of a step in each round


def measure_speed(arguments: argparse.Namespace) -> None:
    setting = f"{describe(arguments.device)}, SGD, batch {arguments.batch}, {arguments.rounds} rounds"
    print(f"{setting}; seconds a step, median")
    columns = f"{'ours':>6}{'theirs':>9}{'s ours':>9}{'theirs':>9}{'images/s':>10}{'theirs':>8}"
    print(f"{'model, norm, size':<40}{columns}  {'wall ratio (range)':<24}CPU ratio (range)", flush=True)
    for size in arguments.sizes:
        for norm in arguments.norms:
            variants = build_variants(arguments.model, size, norm, arguments.device)
            times = interleave(variants, size, arguments.batch, arguments.rounds)
            for _, mixed in [one for one in times if one[0] == "ours" and one[1] != "fp32"]:
                for theirs in ("fp32", mixed, f"{mixed} cl"):
                    print_ratio(f"{arguments.model}, {norm}, {size}", mixed, theirs, times, arguments.batch)
            print_ratio(f"{arguments.model}, {norm}, {size}", "fp32", "fp32", times, arguments.batch)


def describe(device: str) -> str:
    """What computes, by name."""
    name = choose_machine(device, "float32").describe().removesuffix(", float32")
    threads = f" ({torch.get_num_threads()} threads)" if name == "cpu" else ""
    return f"{name}{threads}, torch {torch.__version__}"


def build_variants(model: str, size: int, norm: str, device: str) -> "dict[Variant, OurLoop | ReferenceLoop]":
    """Our loop and the reference in each arithmetic that the device is asked for, all from the same weights."""
    config = config_of(model, size, device=device)
    precisions = {"bf16": "bfloat16", "fp32": "float32"}
    if device == "cuda":
        precisions = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
    variants: dict[Variant, OurLoop | ReferenceLoop] = {}
    for name, precision in precisions.items():
        machine = choose_machine(device, precision)
        variants["ours", name] = OurLoop(config, NUM_CLASSES, machine, norm)
        variants["theirs", name] = ReferenceLoop(config, NUM_CLASSES, machine, norm)
        if name != "fp32":
            variants["theirs", f"{name} cl"] = ReferenceLoop(config, NUM_CLASSES, machine, norm, is_channels_last=True)
    weights = {key: value.clone() for key, value in variants["ours", "fp32"].model.state_dict().items()}
    for loop in variants.values():
        loop.model.load_state_dict(weights)
    return variants


def interleave(variants: "dict[Variant, OurLoop | ReferenceLoop]", size: int, num_images: int, rounds: int) -> Rounds:
    """All variants take turns on each batch, in turning order."""
    times: Rounds = {key: [] for key in variants}
    for number in range(rounds + 2):
        for key in list(variants) if number % 2 else reversed(list(variants)):
            loop = variants[key]
            batch = random_batch(size, num_images, loop.machine, number)
            step = partial(loop.step, batch)
            if isinstance(loop, ReferenceLoop):
                step = partial(loop.step, as_float_images(batch), batch.targets)
            spent = seconds(step, loop.machine)
            if number >= 2:  # the first steps plan kernels
                times[key].append(spent)
    return times


def seconds(work: Callable[[], object], machine: Machine) -> tuple[float, float]:
    """Wall and processor seconds until ``machine`` has done ``work``."""
    machine.finish()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    machine.finish()
    return time.perf_counter() - wall, time.process_time() - cpu


def print_ratio(case: str, ours: str, theirs: str, times: Rounds, num_images: int) -> None:
    pairs = list(zip(times["ours", ours], times["theirs", theirs], strict=True))
    walls = [statistics.median(pair[side][0] for pair in pairs) for side in (0, 1)]
    cells = [ratio_of([(pair[0][kind], pair[1][kind]) for pair in pairs]) for kind in (0, 1)]
    figures = f"{walls[0]:9.3f}{walls[1]:9.3f}{num_images / walls[0]:10.1f}{num_images / walls[1]:8.1f}"
    print(f"{case:<40}{ours:>6}{theirs:>9}{figures}  {cells[0]:<24}{cells[1]}", flush=True)


def ratio_of(rounds: Sequence[tuple[float, float]]) -> str:
    """How many times the first fits into the second: the median of the rounds, and their range."""
    ratios = [other / one for one, other in rounds]
    return f"{statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def measure_batches(arguments: argparse.Namespace) -> None:
    """What a small batch costs: the images a second of our own step at batch 2 and 16."""
    precision = arguments.precision or "auto"
    machine = choose_machine(arguments.device, precision)
    size, (small, large) = arguments.sizes[-1], (2, 16)
    print(
        f"{describe(arguments.device)}, {machine.describe()}, {arguments.model}, {size} px, {arguments.rounds} rounds"
    )
    for norm in arguments.norms:
        loop = OurLoop(config_of(arguments.model, size, device=arguments.device), NUM_CLASSES, machine, norm)
        rounds = []
        for number in range(arguments.rounds + 2):
            batches = [random_batch(size, num_images, machine, number) for num_images in (small, large)]
            spent = [seconds(partial(loop.step, batch), machine)[0] for batch in batches]
            if number >= 2:
                rounds.append((spent[0] / small, spent[1] / large))
        rates = [1 / statistics.median(pair[side] for pair in rounds) for side in (0, 1)]
        print(f"{norm:>8}: batch {small} {rates[0]:.2f}, batch {large} {rates[1]:.2f} images/s; ", end="")
        print(f"share {ratio_of(rounds)}", flush=True)


# --- calls and waits ---


def measure_calls(arguments: argparse.Namespace) -> None:
    print(f"{arguments.model}, frozen batch norm, bf16; forward, backward and update", flush=True)
    print(f"{'':<14}{'batch':>6}{'kernels':>9}{'waits':>7}   which")
    config, machine = config_of(arguments.model, CALLS_PX), choose_machine("cpu", "bfloat16")
    ours, theirs = (loop(config, NUM_CLASSES, machine, "frozen") for loop in (OurLoop, ReferenceLoop))
    theirs.model.load_state_dict(ours.model.state_dict())
    for num_images in (2, 8):
        batch = random_batch(CALLS_PX, num_images, machine)
        images = as_float_images(batch)
        with as_on_a_gpu():
            print_calls("ours", num_images, count_calls(lambda batch=batch: ours.step(batch)))
        print_calls("torchvision", num_images, count_calls(lambda b=batch, i=images: theirs.step(i, b.targets)))


def print_calls(whose: str, num_images: int, counter: CallCounter) -> None:
    named = ", ".join(f"{counter.waits.count(name)} {name}" for name in sorted(set(counter.waits)))
    print(f"{whose:<14}{num_images:>6}{counter.num_kernels:>9}{len(counter.waits):>7}   {named}", flush=True)


# --- memory ---


def measure_memory(arguments: argparse.Namespace) -> None:
    size = arguments.sizes[-1]
    config = config_of(arguments.model, size, device=arguments.device)
    machine = choose_machine(arguments.device, "bfloat16")
    batch = random_batch(size, arguments.batch, machine)
    images = as_float_images(batch)
    print(f"{describe(arguments.device)}, {arguments.model}, {size} px, batch {arguments.batch}, bf16, MB")
    for norm in arguments.norms:
        ours, theirs = (loop(config, NUM_CLASSES, machine, norm) for loop in (OurLoop, ReferenceLoop))
        theirs.model.load_state_dict(ours.model.state_dict())
        mine = kept_bytes(ours.model, lambda ours=ours: compute_losses(ours.model, batch, machine))
        other = kept_bytes(theirs.model, partial(theirs.loss, images, batch.targets))
        print_memory(norm, "kept for the backward pass", mine, other)
        if machine.device.type == "cuda":
            peaks = (peak_bytes(partial(ours.step, batch)), peak_bytes(partial(theirs.step, images, batch.targets)))
            print_memory(norm, "peak of a step", *peaks)


def print_memory(norm: str, what: str, mine: int, other: int) -> None:
    print(f"{norm:>8}, {what}: ours {mine / 1e6:.0f}, torchvision {other / 1e6:.0f}, ratio {mine / other:.2f}")


def peak_bytes(step: Callable[[], object]) -> int:
    """The most that a step of a GPU adds to what lies there between steps."""
    step()  # the optimizer's state is there now
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before


def kept_bytes(model: FasterRCNN, forward: Callable[[], object]) -> int:
    """Bytes of all storages that the graph of ``forward`` keeps, without the weights themselves."""
    own = {value.untyped_storage().data_ptr() for value in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Any] = {}  # the storages stay, so that no two get the same address

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        answer = forward()
    total = sum(storage.nbytes() for address, storage in kept.items() if address not in own)
    del answer
    return total


# --- curves ---


def measure_curves(arguments: argparse.Namespace) -> None:
    """Both loops by one recipe, from the same weights, on the same batches, with several seeds for what is drawn."""
    from benchmarks.first_run import prepare

    with tempfile.TemporaryDirectory() as folder:
        options = ["model=fasterrcnn_resnet18_fpn", f"image_size={arguments.sizes[-1]}", "batch_size=4"]
        options += ["augmentation=[]", f"device={arguments.device}"]
        options += ["optimizer=sgd", "learning_rate=0.01", "pretrained=none", "roi_batch_size=64", "rpn_batch_size=64"]
        config, snapshot = prepare(arguments.export, Path(folder), options)
        config = config.model_copy(update={"max_detections": 100})
        machine = choose_machine(arguments.device, arguments.precision or "float32")
        curves = {
            whose: [run_curve(whose, config, snapshot, machine, seed, arguments.steps) for seed in range(3)]
            for whose in ("ours", "torchvision")
        }
    setting = f"{machine.describe()}, {config.model}, {config.image_size} px, batch {config.batch_size}"
    print(f"{setting}, {arguments.export.name}: mean loss of each tenth of {arguments.steps} steps, with 3 seeds")
    print(f"{'steps':<10}{'ours (range)':<28}{'torchvision (range)':<28}difference")
    for tenth in range(10):
        part = slice(tenth * arguments.steps // 10, (tenth + 1) * arguments.steps // 10)
        means = {whose: [statistics.mean(curve[part]) for curve in own] for whose, own in curves.items()}
        cells = [f"{statistics.mean(own):.4f} ({min(own):.4f} to {max(own):.4f})" for own in means.values()]
        difference = statistics.mean(means["ours"]) / statistics.mean(means["torchvision"]) - 1
        steps = f"{part.start} to {part.stop}"
        print(f"{steps:<10}{cells[0]:<28}{cells[1]:<28}{difference:+.1%}", flush=True)


def run_curve(whose: str, config: RunConfig, snapshot: Any, machine: Machine, seed: int, num_steps: int) -> list[float]:
    from app.pipeline.data.pixels import ResizedImages
    from app.pipeline.train.loader import TrainLoader
    from app.pipeline.types import RunContext

    torch.manual_seed(100)  # the same weights for all
    ours = OurLoop(config, len(snapshot.categories), machine)
    reference = ReferenceLoop(config, len(snapshot.categories), machine, max_norm=config.clip_gradient_norm)
    reference.start_from(ours.model)
    loader = TrainLoader(
        snapshot.split("train"), len(snapshot.categories), config, ResizedImages.for_config(config), RunContext()
    )
    torch.manual_seed(seed)
    losses: list[float] = []
    epoch = 0
    while len(losses) < num_steps:
        epoch += 1
        for batch in loader.epoch(epoch):
            step = ours.step(batch) if whose == "ours" else reference.step(as_float_images(batch), batch.targets)
            losses.append(step)
    return losses[:num_steps]


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measures: dict[str, Callable[[argparse.Namespace], None]] = {
        "speed": measure_speed,
        "batches": measure_batches,
        "calls": measure_calls,
        "memory": measure_memory,
        "curves": measure_curves,
    }
    parser.add_argument("what", choices=measures)
    parser.add_argument("export", type=Path, nargs="?", help="a COCO export, for curves")
    parser.add_argument("--model", default="fasterrcnn_resnet50_fpn")
    parser.add_argument("--sizes", type=int, nargs="+", help="512 where nothing is said, for curves 96")
    parser.add_argument("--norms", nargs="+", default=["frozen", "batch"])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", choices=["float32", "bfloat16", "float16"], help="of curves and batches")
    arguments = parser.parse_args(args)
    arguments.sizes = arguments.sizes or [96 if arguments.what == "curves" else 512]
    if arguments.what == "curves" and arguments.export is None:
        parser.error("curves needs an export to train on")
    measures[arguments.what](arguments)


if __name__ == "__main__":
    main()
