"""How fast resized images are supplied, against decoding and resizing them with OpenCV each time (goal: 20x and 8x).

    python -m benchmarks.sample_supply [--rounds 7] [--size 512] [--folder FOLDER]

One thread, but for the batches of the loader (without augmentation). Made-up photos of two sizes as JPEG; rounds are
interleaved, the table has the median milliseconds an image and, of each round's ratio to OpenCV, median and range. The
files lie in the page cache, as the photos do.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np

from app.pipeline.config import parse_config
from app.pipeline.data.pixel_files import PixelFiles
from app.pipeline.data.pixels import ResizedImages
from app.pipeline.data.snapshot import Sample
from app.pipeline.train.loader import TrainLoader
from app.pipeline.types import RunContext

NUM_THREADS = 2
SIZES = {"640x480": (640, 480, 48), "12 MP": (4000, 3000, 6)}  # width, height, how many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument(
        "--folder", type=Path, help="where to put photos and kept pixels; a temporary folder if not given"
    )
    values = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"to {values.size} px{'images':>10}{'ms an image':>34}{'times faster: median (range)':>32}")
    with tempfile.TemporaryDirectory(dir=values.folder) as folder:
        for name, (width, height, count) in SIZES.items():
            samples = [write_photo(Path(folder) / f"{name}-{i}.jpg", i, width, height) for i in range(count)]
            compare(name, samples, values.size, values.rounds, Path(folder) / "pixels")


def compare(name: str, samples: list[Sample], size: int, rounds: int, folder: Path) -> None:
    afresh = ResizedImages(size, 0)
    in_files = ResizedImages(size, 0, files=PixelFiles(folder))
    in_memory = ResizedImages(size, 10**9)
    for sample in samples:
        assert np.array_equal(in_files.read(sample), in_memory.read(sample))
    config = parse_config({"image_size": size, "batch_size": 8, "num_workers": NUM_THREADS})
    loader = TrainLoader(samples, 1, config, in_files, RunContext())
    ways: dict[str, Callable[[], object]] = {
        "OpenCV each time": lambda: [decode(sample, size) for sample in samples],
        "read afresh": lambda: [afresh.read(sample) for sample in samples],
        "from files": lambda: [in_files.read(sample) for sample in samples],
        "from memory": lambda: [in_memory.read(sample) for sample in samples],
        f"batches, {NUM_THREADS} threads": lambda: list(loader.epoch(config.epochs)),  # the last: no epoch behind it
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, read in ways.items():
            began = time.perf_counter()
            read()
            seconds[way].append((time.perf_counter() - began) / len(samples))
    for way, taken in seconds.items():
        ratios = [base / one for base, one in zip(seconds["OpenCV each time"], taken, strict=True)]
        spread = f"{statistics.median(ratios):.1f} ({min(ratios):.1f}–{max(ratios):.1f})"
        print(f"{name:<10}{len(samples):>6}  {way:<20}{statistics.median(taken) * 1e3:>14.3f}{spread:>32}", flush=True)


def decode(sample: Sample, size: int) -> np.ndarray:
    """The plain way: decode with OpenCV, turn to RGB, shrink by area averaging."""
    image = cv2.cvtColor(cv2.imread(str(sample.path)), cv2.COLOR_BGR2RGB)
    scale = size / max(image.shape[:2])
    target = round(image.shape[1] * scale), round(image.shape[0] * scale)
    return cv2.resize(image, target, interpolation=cv2.INTER_AREA)


def write_photo(path: Path, seed: int, width: int, height: int) -> Sample:
    """A made-up photo: clouds of color, edges, and the grain of a sensor."""
    dice = np.random.default_rng(seed)
    clouds = cv2.resize(
        dice.integers(0, 256, (12, 16, 3)).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )
    for _ in range(40):
        center = int(dice.integers(width)), int(dice.integers(height))
        color = tuple(int(value) for value in dice.integers(0, 256, 3))
        cv2.circle(clouds, center, int(dice.integers(width // 60, width // 8)), color, -1, cv2.LINE_AA)
    grain = dice.normal(0, 5, clouds.shape)
    cv2.imwrite(str(path), (clouds + grain).clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
    nothing = np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool)
    digest = sha256(path.read_bytes()).hexdigest()
    return Sample(seed, path, path.name, "train", width, height, 0, *nothing, digest)


if __name__ == "__main__":
    main()
