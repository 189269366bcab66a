"""How much more memory a run takes with more images: train and evaluate, 1,000 against 100,000 (goal: 1.1x at most).

    python -m benchmarks.memory [--images 1000 100000] [--steps 30] [--boxes 3]

Small pictures of which one in twenty is judged on; each size in a process of its own, for a number of steps and one
validation, with the budget of pixels in memory fixed. MB of memory in use after each part, and at the highest.
"""

import argparse
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import orjson
import psutil

NUM_PICTURES = 64  # files that all images share
BUDGET = 8_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--boxes", type=int, default=3, help="on each image")
    parser.add_argument("--one", type=Path, help="the snapshot to run on in this process")
    values = parser.parse_args()
    if values.one:
        return run(values.one, values.steps)
    print(
        f"{'images':>8}{'imported':>10}{'read':>8}{'trained':>9}{'judged':>8}{'highest':>9}{'seconds':>9}", flush=True
    )
    with tempfile.TemporaryDirectory() as folder:
        for count in values.images:
            path = write_snapshot(Path(folder), count, values.boxes)
            command = [sys.executable, "-m", "benchmarks.memory", "--one", str(path), "--steps", str(values.steps)]
            began = time.monotonic()
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            print(f"{count:>8}{answer.stdout.rstrip()}{time.monotonic() - began:>9.0f}", flush=True)
    return None


def run(path: Path, steps: int) -> None:
    import torch

    from app.pipeline.config import parse_config
    from app.pipeline.data import pixels
    from app.pipeline.data.snapshot import load_snapshot
    from app.pipeline.train import loop
    from app.pipeline.train.loader import TrainLoader
    from app.pipeline.train.run import Run

    torch.set_num_threads(1)
    marks = [rss()]
    pixels.default_budget_bytes = lambda: BUDGET
    steps_of, judge = TrainLoader.steps, loop.judge_if_due

    def first_steps(self: TrainLoader, number: int, first_batch: int) -> object:
        return itertools.islice(steps_of(self, number, first_batch), steps)

    def noting(run: Run) -> None:
        if run.is_judgement_due:
            marks.append(rss())
            judge(run)
            marks.append(rss())

    TrainLoader.steps, loop.judge_if_due = first_steps, noting
    snapshot = load_snapshot(path)
    marks.append(rss())
    values = {"image_size": 64, "batch_size": 4, "epochs": 1, "device": "cpu", "rpn_batch_size": 32}
    values |= {"roi_batch_size": 32, "proposals": 100, "augmentation": [{"name": "HorizontalFlip"}]}
    loop.train(
        parse_config(values), snapshot, path.parent / f"run {len(snapshot.samples)}", pixels_dir=path.parent / "pixels"
    )
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1) / 1e6
    print("".join(f"{mark:>{width}.0f}" for mark, width in zip([*marks, highest], (10, 8, 9, 8, 9), strict=True)))


def rss() -> float:
    """MB of this process."""
    return psutil.Process(os.getpid()).memory_info().rss / 1e6


def write_snapshot(folder: Path, count: int, num_boxes: int) -> Path:
    """A snapshot of ``count`` images, written entry by entry."""
    dice = np.random.default_rng(0)
    hashes = []
    for number in range(NUM_PICTURES):
        picture = folder / f"{number}.png"
        cv2.imwrite(str(picture), dice.integers(0, 256, (64, 64, 3)).astype(np.uint8))
        hashes.append(sha256(picture.read_bytes()).hexdigest())
    images = [
        {
            "id": i + 1,
            "file_name": f"camera 3/2024-05-17/frame {i:09d}.jpg",
            "width": 64,
            "height": 64,
            "split": "train" if i % 20 else "valid",
            "rotation": 0,
            "sha256": hashes[i % NUM_PICTURES],
            "path": f"{i % NUM_PICTURES}.png",
        }
        for i in range(count)
    ]
    corners = dice.uniform(0, 40, (count * num_boxes, 2)).round(2).tolist()
    boxes = [
        {"id": i + 1, "image_id": i // num_boxes + 1, "category_id": i % 3, "bbox": [*corner, 20.5, 18], "iscrowd": 0}
        for i, corner in enumerate(corners)
    ]
    categories = [{"id": number, "name": f"class {number}"} for number in range(3)]
    path = folder / "dataset.json"
    path.write_bytes(orjson.dumps({"categories": categories, "images": images, "annotations": boxes}))
    return path


if __name__ == "__main__":
    main()
