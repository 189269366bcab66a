"""The training step against the loop of torchvision's detection references, on the same batches from the same weights.

    python -m benchmarks.training_step speed [--model M] [--sizes 320 512] [--norms frozen batch] [--batch 2]
    python -m benchmarks.training_step calls              kernels and waits of a step at batch 2 and 8
    python -m benchmarks.training_step memory             bytes kept for the backward pass under mixed precision
    python -m benchmarks.training_step curves EXPORT      losses of short trainings with several seeds

speed: all variants take turns on each batch; a round's ratio is the reference's time over ours in that round.
calls: counted on the CPU, with the choices that a GPU gets; a wait is an operation whose result the host must know.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.detection import FasterRCNN

from app.pipeline.config import RunConfig, parse_config
from app.pipeline.machine import Machine, choose_machine
from app.pipeline.models import proposals
from app.pipeline.models.build import build_model, freeze_for_finetuning
from app.pipeline.models.forward import Batch, compute_losses, place_model
from app.pipeline.models.heads import LossyRoIHeads
from app.pipeline.models.measure import _random_target
from app.pipeline.train.optim import Updater, check_losses
from app.pipeline.train.reference import ReferenceLoop, as_float_images

NUM_CLASSES = 3
CALLS_PX = 64  # operations are as many at any size
WAITS = ("nonzero", "_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nms", "_unique2", "unique_dim")
READS = ("tolist", "cpu")  # of a whole tensor: on the CPU no operation


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


def random_batch(size: int, num_images: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (num_images, size, size, 3), generator=generator, dtype=torch.uint8)
    targets = [_random_target(size, generator) for _ in range(num_images)]
    return Batch(pixels, [(size, size)] * num_images, targets, ["noise"] * num_images)


# --- speed ---


def measure_speed(arguments: argparse.Namespace) -> None:
    rounds = f"batch {arguments.batch}, {arguments.rounds} rounds"
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, SGD, {rounds}; seconds a step, median")
    columns = f"{'ours':>6}{'theirs':>8}{'s ours':>8}{'theirs':>8}  {'wall ratio (range)':<22}CPU ratio (range)"
    print(f"{'model, norm, size':<40}{columns}", flush=True)
    for size in arguments.sizes:
        for norm in arguments.norms:
            times = interleave(arguments.model, size, norm, arguments.batch, arguments.rounds)
            for ours, theirs in (("bf16", "fp32"), ("bf16", "bf16"), ("fp32", "fp32")):
                print_ratio(f"{arguments.model}, {norm}, {size}", ours, theirs, times)


def interleave(model: str, size: int, norm: str, num_images: int, rounds: int) -> dict[tuple[str, str], list]:
    """(wall, CPU) seconds of each round, by whose loop and precision."""
    config = config_of(model, size)
    steps: dict[tuple[str, str], Callable[[Batch, list[Tensor]], float]] = {}
    weights = None
    for name, precision in (("bf16", "bfloat16"), ("fp32", "float32")):
        machine = choose_machine("cpu", precision)
        ours, theirs = (loop(config, NUM_CLASSES, machine, norm) for loop in (OurLoop, ReferenceLoop))
        weights = weights or {key: value.clone() for key, value in ours.model.state_dict().items()}
        for loop in (ours, theirs):
            loop.model.load_state_dict(weights)
        steps["ours", name] = lambda batch, images, loop=ours: loop.step(batch)
        steps["theirs", name] = lambda batch, images, loop=theirs: loop.step(images, batch.targets)
    times: dict[tuple[str, str], list] = {key: [] for key in steps}
    for number in range(rounds + 2):
        batch = random_batch(size, num_images, number)
        images = as_float_images(batch)
        for key in list(steps) if number % 2 else reversed(list(steps)):
            spent = seconds(partial(steps[key], batch, images))
            if number >= 2:  # the first steps plan kernels
                times[key].append(spent)
    return times


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds of ``work``."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def print_ratio(case: str, ours: str, theirs: str, times: dict[tuple[str, str], list]) -> None:
    pairs = list(zip(times["ours", ours], times["theirs", theirs], strict=True))
    walls = [statistics.median(pair[side][0] for pair in pairs) for side in (0, 1)]
    cells = []
    for kind in (0, 1):
        ratios = [pair[1][kind] / pair[0][kind] for pair in pairs]
        cells.append(f"{statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"{case:<40}{ours:>6}{theirs:>8}{walls[0]:8.2f}{walls[1]:8.2f}  {cells[0]:<22}{cells[1]}", flush=True)


# --- calls and waits ---


class CallCounter(TorchDispatchMode):
    """Counts operations that compute (views do not), and those whose result the host must know before it can go on."""

    def __init__(self) -> None:
        super().__init__()
        self.num_kernels = 0
        self.waits: list[str] = []
        self._reading = contextlib.ExitStack()

    def __enter__(self) -> "CallCounter":
        for name in READS:
            self._reading.enter_context(patch.object(Tensor, name, self._noting(name, getattr(Tensor, name))))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._reading.close()
        super().__exit__(*error)

    def _noting(self, name: str, read: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **named: Any) -> Any:
            self.waits.append(name)
            return read(*arguments, **named)

        return noted

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.num_kernels += not func.is_view
        name = func.overloadpacket.__name__
        if name in WAITS or (name in ("index", "index_put", "index_put_", "_index_put_impl_") and _has_mask(args[1])):
            self.waits.append(name)
        return func(*args, **(kwargs or {}))


def _has_mask(indices: Any) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Let a model on the CPU choose as it does on a GPU: waiting is not free, many small operations are not either."""
    with (
        patch.object(proposals, "suppress", proposals.suppress_together),
        patch.object(LossyRoIHeads, "_drops_empty_places", lambda self, device: False),
        patch.object(Updater, "reads_late", True),
        patch.object(Machine, "waits_are_free", False),
    ):
        yield


def count_calls(step: Callable[[], object]) -> CallCounter:
    step()  # what is kept from step to step is there now
    with CallCounter() as counter:
        step()
    return counter


def measure_calls(arguments: argparse.Namespace) -> None:
    print(f"{arguments.model}, frozen batch norm, bf16; forward, backward and update", flush=True)
    print(f"{'':<14}{'batch':>6}{'kernels':>9}{'waits':>7}   which")
    config, machine = config_of(arguments.model, CALLS_PX), choose_machine("cpu", "bfloat16")
    ours, theirs = (loop(config, NUM_CLASSES, machine, "frozen") for loop in (OurLoop, ReferenceLoop))
    theirs.model.load_state_dict(ours.model.state_dict())
    for num_images in (2, 8):
        batch = random_batch(CALLS_PX, num_images)
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
    config, machine = config_of(arguments.model, size), choose_machine("cpu", "bfloat16")
    batch = random_batch(size, arguments.batch)
    print(f"{arguments.model}, {size} px, batch {arguments.batch}, bf16: MB kept for the backward pass")
    for norm in ("frozen", "batch"):
        ours, theirs = (loop(config, NUM_CLASSES, machine, norm) for loop in (OurLoop, ReferenceLoop))
        theirs.model.load_state_dict(ours.model.state_dict())
        images = as_float_images(batch)
        mine = kept_bytes(ours.model, lambda ours=ours: compute_losses(ours.model, batch, machine))
        other = kept_bytes(theirs.model, partial(theirs.loss, images, batch.targets))
        print(f"{norm:>8}: ours {mine / 1e6:.0f}, torchvision {other / 1e6:.0f}, ratio {mine / other:.2f}")


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
        options = ["model=fasterrcnn_resnet18_fpn", "image_size=96", "batch_size=4", "augmentation=[]"]
        options += ["optimizer=sgd", "learning_rate=0.01", "pretrained=none", "roi_batch_size=64", "rpn_batch_size=64"]
        config, snapshot = prepare(arguments.export, Path(folder), options)
        config = config.model_copy(update={"max_detections": 100})
        curves = {
            whose: [run_curve(whose, config, snapshot, seed, arguments.steps) for seed in range(3)]
            for whose in ("ours", "torchvision")
        }
    setting = f"{config.model}, {config.image_size} px, batch {config.batch_size}, fp32, {arguments.export.name}"
    print(f"{setting}: mean loss of each tenth of {arguments.steps} steps, with 3 seeds")
    print(f"{'steps':<10}{'ours (range)':<28}{'torchvision (range)':<28}difference")
    for tenth in range(10):
        part = slice(tenth * arguments.steps // 10, (tenth + 1) * arguments.steps // 10)
        means = {whose: [statistics.mean(curve[part]) for curve in own] for whose, own in curves.items()}
        cells = [f"{statistics.mean(own):.4f} ({min(own):.4f} to {max(own):.4f})" for own in means.values()]
        difference = statistics.mean(means["ours"]) / statistics.mean(means["torchvision"]) - 1
        steps = f"{part.start} to {part.stop}"
        print(f"{steps:<10}{cells[0]:<28}{cells[1]:<28}{difference:+.1%}", flush=True)


def run_curve(whose: str, config: RunConfig, snapshot: Any, seed: int, num_steps: int) -> list[float]:
    from app.pipeline.data.pixels import ResizedImages
    from app.pipeline.train.loader import TrainLoader
    from app.pipeline.types import RunContext

    torch.manual_seed(100)  # the same weights for all
    machine = choose_machine("cpu", "float32")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "calls", "memory", "curves"])
    parser.add_argument("export", type=Path, nargs="?", help="a COCO export, for curves")
    parser.add_argument("--model", default="fasterrcnn_resnet50_fpn")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512])
    parser.add_argument("--norms", nargs="+", default=["frozen", "batch"])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    measure = {"speed": measure_speed, "calls": measure_calls, "memory": measure_memory, "curves": measure_curves}
    measure[arguments.what](arguments)


if __name__ == "__main__":
    main()
