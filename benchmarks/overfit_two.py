"""Whether a detector learns: the loss on two images must fall to below a tenth.

    python -m benchmarks.overfit_two fasterrcnn_efficientnet_b3_fpn fasterrcnn_swin_t_fpn --size 96 --steps 150

Prints one line a model: the first loss, the mean of the last ten, their ratio, and seconds. Exits with 1 when one of
them does not fall to below a tenth.
"""

import argparse
import statistics
import sys
import time

import torch

from app.pipeline.config import parse_config
from app.pipeline.machine import choose_machine
from app.pipeline.models.build import build_model
from app.pipeline.models.forward import Batch, compute_losses, place_model
from app.pipeline.train.optim import Updater
from app.pipeline.train.schedule import learning_rate_at

COLORS = ((220, 40, 40), (40, 60, 220))
WANTED = 0.1
ENOUGH = 0.08  # where it stops early


def two_images(size: int) -> Batch:
    """Gray noise with a red and a blue rectangle each, at other places and of other sizes."""
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(90, 130, (2, size, size, 3), generator=generator, dtype=torch.uint8)
    shares = ([(0.1, 0.1, 0.5, 0.45), (0.55, 0.5, 0.9, 0.95)], [(0.5, 0.05, 0.95, 0.4), (0.1, 0.55, 0.4, 0.9)])
    targets = []
    for image, boxes in zip(pixels, shares, strict=True):
        corners = [[round(size * side) for side in box] for box in boxes]
        for (x1, y1, x2, y2), color in zip(corners, COLORS, strict=True):
            image[y1:y2, x1:x2] = torch.tensor(color, dtype=torch.uint8)
        targets.append({"boxes": torch.tensor(corners, dtype=torch.float32), "labels": torch.tensor([1, 2])})
    return Batch(pixels, [(size, size)] * 2, targets, ["one", "two"])


def overfit(model_name: str, size: int, steps: int, **options: object) -> list[float]:
    """The total loss at each step of training from scratch on two images; stops early below a tenth of the first."""
    values = {"model": model_name, "image_size": size, "max_detections": 100, "device": "cpu", "precision": "float32"}
    values |= {"learning_rate": 3e-4, "warmup_steps": 10, "roi_batch_size": 32, "rpn_batch_size": 64, "norm": "auto"}
    config = parse_config({**values, **options})
    torch.manual_seed(0)
    machine = choose_machine(config.device, config.precision)
    model = place_model(build_model(config, len(COLORS)), machine).train()
    updater, batch, losses = Updater(model, config, machine), two_images(size), []
    for step in range(steps):
        updater.set_learning_rate(learning_rate_at(step, steps, config))
        loss = torch.stack(list(compute_losses(model, batch, machine).values())).sum()
        losses.append(float(loss.detach()))
        updater.add(loss, 1.0)
        updater.apply(batch.names)
        if statistics.mean(losses[-10:]) < losses[0] * ENOUGH:
            break
    return losses


def main() -> int:
    """Overfit each model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--norm", default="auto", help="auto (batch norm) or group")
    values = parser.parse_args()
    is_learning = True
    print(f"{'model':<40}{'steps':>6}{'first':>9}{'last 10':>9}{'ratio':>8}{'seconds':>9}")
    for name in values.models:
        began = time.monotonic()
        losses = overfit(name, values.size, values.steps, norm=values.norm)
        last = statistics.mean(losses[-10:])
        ratio = last / losses[0]
        is_learning &= ratio < WANTED
        took = time.monotonic() - began
        print(f"{name:<40}{len(losses):>6}{losses[0]:>9.4f}{last:>9.4f}{ratio:>8.3f}{took:>9.0f}", flush=True)
    return 0 if is_learning else 1


if __name__ == "__main__":
    sys.exit(main())
