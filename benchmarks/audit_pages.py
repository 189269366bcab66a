"""What a page of a label audit costs, and what the audit of a large split leaves in memory.

Made-up predictions on 4,000 images with 15 boxes and 100 detections each, thousands of suspects among them. Compared in
one run: a page read anew, as after a saved image, with pages of the audit that is kept. Memory is that of the process.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from app.pipeline.types import Detections
from app.records import Annotation, NewImage
from app.services import audited_labels, auditing, dataset, projects
from app.services.auditing import AuditFilter
from app.services.context import Services
from app.store import annotations, categories, images, jobs, predictions, runs
from app.store.files import Workspace

NUM_IMAGES, NUM_BOXES, NUM_DETECTIONS = 4000, 15, 100
SIZE = 640
PAGE = 60
SURE = AuditFilter(min_score=0.5)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        services, slug, set_id = make_project(Path(folder))
        began = resident_mb()
        anew_s = seconds(lambda: auditing.audit_sets(services, slug, [set_id], SURE, limit=PAGE))
        first_mb, pages = resident_mb(), []
        page = auditing.audit_sets(services, slug, [set_id], SURE, limit=PAGE)
        total = page["total"]
        while page["next"]:
            start = time.perf_counter()
            page = auditing.audit_sets(services, slug, [set_id], SURE, after=page["next"], limit=PAGE)
            pages.append(time.perf_counter() - start)
        kept = audited_labels.audit(services, slug, [set_id], SURE.min_score)
        columns = (kept.detections.boxes, kept.truth.boxes, kept.place, kept.annotation_ids)
        print(f"{NUM_IMAGES} images, {NUM_IMAGES * NUM_DETECTIONS} detections, {total} suspects, pages of {PAGE}")
        print(f"{'a page read anew':<34}{1000 * anew_s:>10.0f} ms")
        print(f"{'a page of the kept audit, median':<34}{1000 * np.median(pages):>10.1f} ms")
        print(f"{'ratio':<34}{anew_s / np.median(pages):>10.0f}")
        print(f"{'memory after the first page':<34}{first_mb - began:>+10.0f} MB")
        print(f"{f'and after {len(pages)} more':<34}{resident_mb() - began:>+10.0f} MB")
        print(f"{'columns of the kept audit':<34}{sum(one.nbytes for one in columns) / 1e6:>10.1f} MB")


def make_project(folder: Path) -> tuple[Services, str, int]:
    """A project, a run on it, and its predictions on the validation split."""
    services, rng = Services(Workspace(folder)), np.random.default_rng(0)
    slug = projects.create_project(services, "Pages")
    database = services.database(slug)
    boxes = rng.uniform(0, SIZE - 80, (NUM_IMAGES, NUM_BOXES, 2))
    boxes = np.concatenate([boxes, boxes + rng.uniform(40, 80, boxes.shape)], axis=-1)
    with database.write() as db:
        labels = [categories.insert(db, f"class {number}").id for number in range(5)]
        for number in range(NUM_IMAGES):
            name = f"{number}.png"
            images.insert(db, NewImage(name, f"{number:064x}", "png", SIZE, SIZE, "valid", name, number + 1))
        rows = [
            Annotation(0, number + 1, labels[place % 5], tuple(box))
            for number in range(NUM_IMAGES)
            for place, box in enumerate(boxes[number].tolist())
            if place  # the first one was forgotten
        ]
        annotations.insert_many(db, rows)
        run_id = runs.create_run(db, jobs.enqueue(db, "train", {}).id, "Run", {})
    dataset.write_snapshot(services, slug, services.files(slug).run(run_id) / "dataset.json")
    with database.write() as db:
        set_id = predictions.store_predictions(
            db,
            run_id=run_id,
            split="valid",
            detections=((number + 1, detect(boxes[number], rng)) for number in range(NUM_IMAGES)),
            snapshot_sha256="a" * 64,
        )
    return services, slug, set_id


def detect(boxes: np.ndarray, rng: np.random.Generator) -> Detections:
    """Every box found with some noise, and many weak false alarms."""
    found = np.clip(boxes + rng.normal(0, 4, boxes.shape), 0, SIZE)
    corners = rng.uniform(0, SIZE - 80, (NUM_DETECTIONS - len(boxes), 2))
    false = np.concatenate([corners, corners + rng.uniform(20, 80, corners.shape)], axis=1)
    scores = np.concatenate([rng.uniform(0.6, 1, len(boxes)), rng.uniform(0, 0.4, len(false))])
    labels = np.concatenate([np.arange(len(boxes)) % 5 + 1, rng.integers(1, 6, len(false))])
    return Detections(np.concatenate([found, false]), scores, labels)


def seconds(action) -> float:  # noqa: ANN001 (any callable)
    """How long it took."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def resident_mb() -> float:
    return psutil.Process().memory_info().rss / 1e6


if __name__ == "__main__":
    main()
