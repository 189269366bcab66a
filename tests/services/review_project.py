"""A small project with a trained-looking run: images, labels, a frozen dataset, checkpoints and stored predictions."""

from dataclasses import dataclass

import cv2
import numpy as np
import orjson

from app.pipeline.types import Detections
from app.records import Annotation, NewImage
from app.services import dataset, projects
from app.services.context import Services
from app.store import annotations, categories, images, jobs, predictions, runs
from app.store.files import Workspace

SIZE = 200
CLASSES = ("Red cell", "White cell")


@dataclass(frozen=True)
class ReviewProject:
    """What the tests need to know of it."""

    services: Services
    slug: str
    run_id: int
    checkpoint_ids: list[int]
    set_ids: list[int]
    image_ids: dict[str, list[int]]


def make_review_project(folder, num_valid=6, num_test=3):
    """Three checkpoints whose predictions on valid get worse from the first to the third; a fourth is the last one."""
    services = Services(Workspace(folder))
    slug = projects.create_project(services, "Blood cells")
    rng = np.random.default_rng(7)
    image_ids = _add_images(services, slug, rng, {"train": 2, "valid": num_valid, "test": num_test})
    database = services.database(slug)
    with database.write() as db:
        run_id = runs.create_run(db, jobs.enqueue(db, "train", {}).id, "First run", {"epochs": 4})
        db.execute("UPDATE job SET state = 'done'")
    dataset.write_snapshot(services, slug, services.files(slug).run(run_id) / "dataset.json")
    checkpoint_ids = [_add_checkpoint(database, run_id, epoch) for epoch in (4, 3, 2, 5)]
    document = orjson.loads((services.files(slug).run(run_id) / "dataset.json").read_bytes())
    set_ids = [
        _add_predictions(database, run_id, checkpoint_id, document, image_ids["valid"], noise)
        for checkpoint_id, noise in zip(checkpoint_ids[:3], (2.0, 4.0, 7.0), strict=True)
    ]
    return ReviewProject(services, slug, run_id, checkpoint_ids, set_ids, image_ids)


def _add_images(services, slug, rng, counts):
    database, files = services.database(slug), services.files(slug)
    image_ids = {}
    with database.write() as db:
        class_ids = [categories.insert(db, name, category_id=10 * n + 3).id for n, name in enumerate(CLASSES)]
        for split, count in counts.items():
            image_ids[split] = []
            for position in range(count):
                boxes = _boxes(rng, 0 if position == count - 1 else 5)
                digest = f"{split}{position}".encode().hex().ljust(64, "0")
                _draw(files.image(digest, "png"), boxes)
                image_id = images.insert(
                    db,
                    NewImage(
                        file_name=f"{split}_{position}.png",
                        sha256=digest,
                        extension="png",
                        width=SIZE,
                        height=SIZE,
                        split=split,
                        source_key=digest,
                        coco_id=100 + position,
                    ),
                )
                rows = [
                    Annotation(0, image_id, class_ids[n % 2], tuple(float(v) for v in box))
                    for n, box in enumerate(boxes)
                ]
                annotations.insert_many(db, rows)
                image_ids[split].append(image_id)
    return image_ids


def _boxes(rng, count):
    corner = rng.uniform(0, SIZE - 60, (count, 2))
    return np.round(np.concatenate([corner, corner + rng.uniform(20, 60, (count, 2))], axis=1), 2)


def _draw(path, boxes):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((SIZE, SIZE, 3), 214, np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes.astype(int).tolist()):
        color = ((90, 90, 190), (160, 90, 150))[number % 2]
        cv2.rectangle(picture, (x1, y1), (x2, y2), color, -1)
    cv2.imwrite(str(path), picture)


def _add_checkpoint(database, run_id, epoch):
    is_last = epoch == 5
    with database.write() as db:
        return runs.put_checkpoint(
            db,
            run_id,
            epoch=epoch,
            step=epoch * 10,
            file_name="last.pt" if is_last else f"epoch-{epoch}.pt",
            sha256=f"{epoch}" * 64,
            map50=None if is_last else epoch / 5,
            f1=None if is_last else epoch / 5,
            score=None if is_last else epoch / 5,
            is_last=is_last,
        )


def _add_predictions(database, run_id, checkpoint_id, document, image_ids, noise):
    """Noisy copies of the labels with fair scores, two false alarms in each image, every fifth object overlooked."""
    rng = np.random.default_rng(int(noise * 10))
    label_of = {category["id"]: n + 1 for n, category in enumerate(document["categories"])}
    found = {}
    for image_id in image_ids:
        rows = [item for item in document["annotations"] if item["image_id"] == image_id and rng.random() > 0.2]
        xywh = np.array([item["bbox"] for item in rows], float).reshape(-1, 4)
        true = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1) + rng.normal(0, noise, xywh.shape)
        true[:, 2:] = np.maximum(true[:, 2:], true[:, :2] + 1)
        boxes = np.clip(np.concatenate([true, _boxes(rng, 2)]), 0, SIZE)
        scores = np.concatenate([rng.uniform(0.4, 1, len(rows)), rng.uniform(0.05, 0.6, 2)])
        labels = [label_of[item["category_id"]] for item in rows] + rng.integers(1, 3, 2).tolist()
        found[image_id] = Detections(boxes, scores, labels)
    with database.write() as db:
        return predictions.store_predictions(
            db,
            run_id=run_id,
            split="valid",
            detections=found,
            snapshot_sha256="a" * 64,
            checkpoint_id=checkpoint_id,
            name="epoch",
        )
