"""A made-up project with a judged run, of the sizes that the benchmarks of the Review page use."""

from pathlib import Path

import cv2
import numpy as np

from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.types import Detections
from app.records import Annotation, NewImage
from app.services import dataset, projects
from app.services.context import Services
from app.store import annotations, categories, images, jobs, predictions, runs
from app.store.files import Workspace
from benchmarks.judged_sets import SIZE_PX, detect, make_set

NUM_PICTURES = 16  # files that all images share
BOXES_PER_LABEL = 14  # as many detections as make_set gives a labelled box


def make_project(
    folder: Path, num_images: int, num_classes: int, predicted: int, labelled: int
) -> tuple[Services, str, int]:
    """A workspace in ``folder`` with one project; returns (services, slug, id of its prediction set).

    ``predicted`` and ``labelled`` boxes an image, on average.
    """
    services = Services(Workspace(folder))
    slug = projects.create_project(services, "Made up")
    truth, chance = make_set(num_images, num_classes, BOXES_PER_LABEL * labelled * num_images)
    found = detect(truth, chance, predicted * num_images)
    image_ids = _add_images(services, slug, truth)
    database = services.database(slug)
    with database.write() as db:
        run_id = runs.create_run(db, jobs.enqueue(db, "train", {}).id, "Made up", {"epochs": 1})
        db.execute("UPDATE job SET state = 'done'")
        score = {"map50": 0.5, "f1": 0.5, "score": 0.5, "is_last": False}
        checkpoint_id = runs.put_checkpoint(db, run_id, epoch=1, step=1, file_name="best.pt", sha256="1" * 64, **score)
    dataset.write_snapshot(services, slug, services.files(slug).run(run_id) / "dataset.json")
    with database.write() as db:
        set_id = predictions.store_predictions(
            db,
            run_id=run_id,
            split="valid",
            detections=_by_image(found, image_ids),
            snapshot_sha256="1" * 64,
            checkpoint_id=checkpoint_id,
            name="epoch",
        )
    return services, slug, set_id


def _add_images(services: Services, slug: str, truth: GroundTruth) -> list[int]:
    files, database = services.files(slug), services.database(slug)
    rng = np.random.default_rng(3)
    digests = [f"{number:064x}" for number in range(NUM_PICTURES)]
    for digest in digests:
        path = files.image(digest, "jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 255, (24, 24, 3), np.uint8)
        cv2.imwrite(str(path), cv2.resize(noise, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_CUBIC))
    first = np.searchsorted(truth.image_index, np.arange(truth.num_images + 1))
    image_ids = []
    with database.write() as db:
        class_ids = [categories.insert(db, name, category_id=n + 1).id for n, name in enumerate(truth.categories.names)]
        for number in range(truth.num_images):
            digest = digests[number % NUM_PICTURES]
            record = NewImage(
                file_name=f"{number:05d}.jpg",
                sha256=digest,
                extension="jpg",
                width=SIZE_PX,
                height=SIZE_PX,
                split="valid",
                source_key=str(number),
                coco_id=number + 1,
            )
            image_id = images.insert(db, record)
            rows = range(first[number], first[number + 1])
            boxes = [
                Annotation(0, image_id, class_ids[truth.labels[row] - 1], tuple(np.minimum(truth.boxes[row], SIZE_PX)))
                for row in rows
            ]
            annotations.insert_many(db, boxes)
            image_ids.append(image_id)
    return image_ids


def _by_image(found: DetectionColumns, image_ids: list[int]) -> dict[int, Detections]:
    first = np.searchsorted(found.image_index, np.arange(len(image_ids) + 1))
    return {
        image_id: Detections(found.boxes[start:end], found.scores[start:end], found.labels[start:end])
        for image_id, start, end in zip(image_ids, first[:-1], first[1:], strict=True)
    }
