"""Seconds and highest memory of an ensemble lab's job, on a set and on one ten times larger (goal: 1.1x at most).

    python -m benchmarks.ensemble_memory [--images 73 730] [--members 3] [--boxes 100]
    python -m benchmarks.ensemble_memory --projects DIR --project NAME --run ID    # of a real run, all predicted

Each lab runs as the app runs it, in a job process of its own; a job that only imports what a lab needs is the measure
of what the process takes by itself.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.pipeline.types import Detections
from app.records import Annotation, NewImage
from app.services import dataset, ensemble_lab, jobs, projects
from app.services.context import Services
from app.store import annotations, categories, images, predictions, runs
from app.store import jobs as job_store
from app.store.files import Workspace

SIZE_PX = 640
NUM_CLASSES = 3
NUM_OBJECTS = 12  # on an image
IMPORTS = "import app.jobs.main, app.services.job_handlers, app.pipeline.fusion.kernels as a"
IMPORTS += ", app.pipeline.fusion.judging_kernel as b; a.warm_up(); b.warm_up()"


@dataclass(frozen=True)
class Cost:
    """What a process took."""

    seconds: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[73, 730])
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--boxes", type=int, default=100, help="of a member on an image")
    parser.add_argument("--projects", type=Path)
    parser.add_argument("--project")
    parser.add_argument("--run", type=int, default=1)
    values = parser.parse_args()
    jobs.ensure_worker = lambda services: None  # the job is started here
    measure([sys.executable, "-c", IMPORTS])  # compiles
    empty = measure([sys.executable, "-c", IMPORTS])
    print(f"{'':<28}{'trials':>8}{'seconds':>9}{'peak MB':>9}{'above imports':>15}")
    print(f"{'imports alone':<28}{'':>8}{empty.seconds:>9.1f}{empty.peak_mb:>9.0f}")
    if values.projects:
        show(values.project, Services(Workspace(values.projects)), values.project, values.run, empty)
        return
    with tempfile.TemporaryDirectory() as folder:
        services = Services(Workspace(Path(folder)))
        peaks = []
        for count in values.images:
            slug, run_id = make_project(services, count, values.members, values.boxes)
            peaks.append(show(f"{count} images", services, slug, run_id, empty))
    print(f"{'ratio':<45}{peaks[-1] / peaks[0]:>9.2f}")


def show(title: str, services: Services, slug: str, run_id: int, empty: Cost) -> float:
    """Run a lab over the three best checkpoints of a run, print a line, and return its peak."""
    database = services.database(slug)
    job = job_store.claim(database, ensemble_lab.request_lab(services, slug, run_id=run_id).id)
    where = ["--projects", str(services.workspace.root), "--project", slug]
    command = [sys.executable, "-m", "app.services.job_process", "job", *where]
    cost = measure([*command, "--job", str(job.id), "--attempt", str(job.attempt)])
    lab = ensemble_lab.lab(services, slug, job.id)
    over = cost.peak_mb - empty.peak_mb
    print(f"{title:<28}{lab['num_trials']:>8}{cost.seconds:>9.1f}{cost.peak_mb:>9.0f}{over:>15.0f}", flush=True)
    return cost.peak_mb


def measure(command: list[str]) -> Cost:
    """Run a command whose standard input stays open until it ends."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.stdin.close()
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return Cost(time.monotonic() - began, usage.ru_maxrss * (1024 if sys.platform == "linux" else 1) / 1e6)


def make_project(services: Services, num_images: int, num_members: int, num_boxes: int) -> tuple[str, int]:
    """A project without pictures: labels, a run with checkpoints, and what each of them found."""
    dice = np.random.default_rng(0)
    slug = projects.create_project(services, f"{num_images} images")
    database = services.database(slug)
    truth = {}
    with database.write() as db:
        class_ids = [categories.insert(db, f"class {n}", category_id=n).id for n in range(NUM_CLASSES)]
        for number in range(num_images):
            digest = f"{number:064d}"
            new = NewImage(f"{number}.png", digest, "png", SIZE_PX, SIZE_PX, "valid", digest, number)
            image_id = images.insert(db, new)
            corner = dice.uniform(0, SIZE_PX - 150, (NUM_OBJECTS, 2))
            boxes = np.concatenate([corner, corner + dice.uniform(20, 140, corner.shape)], axis=1)
            labels = dice.integers(0, NUM_CLASSES, NUM_OBJECTS)
            truth[image_id] = (boxes, labels + 1)
            rows = zip(boxes.tolist(), labels.tolist(), strict=True)
            annotations.insert_many(db, [Annotation(0, image_id, class_ids[n], tuple(box)) for box, n in rows])
        run_id = runs.create_run(db, job_store.enqueue(db, "train", {}).id, "Run", {})
        db.execute("UPDATE job SET state = 'done'")
    dataset.write_snapshot(services, slug, services.files(slug).run(run_id) / "dataset.json")
    for member in range(num_members):
        with database.write() as db:
            checkpoint_id = runs.put_checkpoint(
                db, run_id, epoch=member + 1, step=member, file_name=f"{member}.pt", sha256=f"{member:064d}",
                map50=0.5, f1=0.5, score=0.5, is_last=False,
            )  # fmt: skip
            found = ((image_id, detect(*of, num_boxes, dice)) for image_id, of in truth.items())
            predictions.store_predictions(
                db, run_id=run_id, split="valid", detections=found, snapshot_sha256="", checkpoint_id=checkpoint_id
            )
    return slug, run_id


def detect(boxes: np.ndarray, labels: np.ndarray, num_boxes: int, dice: np.random.Generator) -> Detections:
    """Noisy copies of the labelled boxes, each several times, the first ones the surest."""
    of = np.arange(num_boxes) % len(boxes)
    moved = boxes[of] + dice.normal(0, 4 + 20 * (np.arange(num_boxes) >= len(boxes))[:, None], (num_boxes, 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    scores = np.sort(dice.uniform(0.01, 1, num_boxes))[::-1]
    return Detections(np.clip(moved, 0, SIZE_PX), scores, labels[of])


if __name__ == "__main__":
    main()
