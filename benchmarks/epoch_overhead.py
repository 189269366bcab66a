"""What share of an epoch is not training steps (goal: at most 5 %), and how long the steps wait for images (2 %).

    python -m benchmarks.epoch_overhead EXPORT [--train 500] [--valid 50] [--epochs 3] [key=value ...]

Trains as a job does, with its database, on the first images of an export (folder or zip) and the options that the app
suggests, with ``key=value`` laid over them. The table has the seconds of each part from the second epoch on, when
pixels are kept and memory is warm, and its share of those epochs.
"""

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import torch

from app.jobs import handlers
from app.jobs.context import JobContext
from app.jobs.recorder import RunRecorder
from app.pipeline.config import parse_assignments
from app.pipeline.predict import Detector
from app.pipeline.train import loop, validation
from app.pipeline.train.keeper import CheckpointKeeper
from app.pipeline.train.loader import TrainLoader
from app.pipeline.train.run import Run
from app.services import importing, suggestions, training
from app.services.context import Services
from app.store import jobs
from app.store.files import Workspace

PARTS = ("steps", "waiting for images", "predicting", "scoring", "checkpoints", "recording")


class Stopwatch:
    """Seconds of the main thread by part; what is timed inside another part counts for the inner one alone."""

    def __init__(self) -> None:
        self._thread = threading.current_thread()
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        if threading.current_thread() is not self._thread:
            yield
            return
        began = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            took = time.perf_counter() - began
            self.seconds[part] += took - self._inner.pop()
            self._inner[-1] += took

    def time_calls(self, owner: Any, name: str, part: str) -> None:
        """Time every call of ``owner.name``; of one that yields, the time until each item is there."""
        plain: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.timing(part):
                result = plain(*args, **kwargs)
            return self._timed_items(result, part) if isinstance(result, Iterator) else result

        setattr(owner, name, timed)

    def _timed_items(self, items: Iterator[Any], part: str) -> Iterator[Any]:
        missing = object()
        while True:
            with self.timing(part):
                item = next(items, missing)
            if item is missing:
                return
            yield item


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("options", nargs="*")
    parser.add_argument("--train", type=int, default=500)
    parser.add_argument("--valid", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=4)
    values = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        services = Services(Workspace(Path(folder)))
        slug, _ = importing.import_as_new_project(services, "overhead", values.export)
        job = queue_run(services, slug, {"epochs": values.epochs, **parse_assignments(values.options)})
        counts = keep_first(job.files.run(job.payload["run_id"]) / "dataset.json", values.train, values.valid)
        total, seconds = run_timed(job)
    print(f"{values.export.name}: {counts['train']} images an epoch, {counts['valid']} to judge on, ", end="")
    print(f"{values.epochs - 1} epochs timed, {torch.get_num_threads()} threads of torch")
    for part in (*PARTS, "the rest"):
        took = seconds[part] if part in PARTS else total - sum(seconds.values())
        print(f"{part:<22}{took:>10.2f} s{took / total:>9.2%}")
    print(f"{'outside the steps':<22}{total - seconds['steps']:>10.2f} s{1 - seconds['steps'] / total:>9.2%}")
    print(f"waiting against steps {seconds['waiting for images'] / seconds['steps']:>21.2%}")


def queue_run(services: Services, slug: str, values: dict[str, Any]) -> JobContext:
    """A run as the app queues it, claimed by this process instead of a worker."""
    config = training.build_config(services, slug, {**suggestions.suggested_values(services, slug), **values}, "")
    print(f"{config.model}, {config.image_size} px, batch {config.batch_size}, ", end="")
    print(f"augmentation {', '.join(step.name for step in config.augmentation) or 'none'}")
    run = training._create(services, slug, config, "overhead")
    job = jobs.claim(services.database(slug), run.job_id)
    return JobContext(services.workspace, slug, job)


def keep_first(path: Path, num_train: int, num_valid: int) -> dict[str, int]:
    """Leave only the first images of train and valid in a snapshot; returns how many there are."""
    document = orjson.loads(path.read_bytes())
    kept, counts = [], {"train": 0, "valid": 0}
    for image in document["images"]:
        split = image["split"]
        if split in counts and counts[split] < {"train": num_train, "valid": num_valid}[split]:
            counts[split] += 1
            kept.append(image)
    ids = {image["id"] for image in kept}
    document["images"] = kept
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] in ids]
    path.write_bytes(orjson.dumps(document))
    return counts


def run_timed(job: JobContext) -> tuple[float, dict[str, float]]:
    """Train; returns the seconds from the second epoch to the end, and those of each part of them."""
    watch, began = Stopwatch(), 0.0
    watch.time_calls(loop, "train_step", "steps")
    watch.time_calls(TrainLoader, "steps", "waiting for images")
    watch.time_calls(Detector, "predict_samples", "predicting")
    watch.time_calls(validation, "evaluate", "scoring")
    watch.time_calls(CheckpointKeeper, "offer", "checkpoints")
    watch.time_calls(Run, "save", "checkpoints")
    watch.time_calls(RunRecorder, "emit", "recording")
    begin_epoch = loop.begin_epoch

    def note_second(run: Run, epoch: int) -> None:
        nonlocal began
        if epoch == 2:
            watch.seconds.clear()
            began = time.perf_counter()
        begin_epoch(run, epoch)

    loop.begin_epoch = note_second
    job._pulse.start()  # not job.start(), which ends the run with standard input
    handlers.train(job)
    took = time.perf_counter() - began
    job.finish("done")
    return took, watch.seconds


if __name__ == "__main__":
    main()
