"""Looking for faults in the labels: where a model that is sure disagrees with them, as they are now."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.errors import BadRequest
from app.pipeline.data.categories import CategoryMap
from app.pipeline.data.snapshot import Sample
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.label_audit import KINDS, find_suspects
from app.pipeline.types import Detections
from app.records import Annotation, Image, Job, PredictionSet
from app.services import review
from app.services.context import Services
from app.services.stored_sets import wait_for_set
from app.store import annotations, categories, images, predictions

MAX_PAGE = 500


@dataclass(frozen=True, eq=False)
class _Predicted:
    """An image as one of the sets predicted it; ``is_seen``: the set's run had it in training."""

    sample: Sample
    found: Detections
    is_seen: bool
    record: PredictionSet


def audit_run(
    services: Services,
    slug: str,
    run_id: int,
    split: str = "valid",
    min_score: float | None = None,
    limit: int = 100,
    on_change: Callable[[Job], None] | None = None,
) -> dict[str, Any]:
    """Audit a split with a run's best checkpoint, predicting first where that was not done; see :func:`audit_sets`."""
    checkpoint = review.best_checkpoint(services, slug, run_id)
    record = wait_for_set(services, slug, checkpoint, split, on_change)
    audited = audit_sets(services, slug, [record.id], min_score=min_score, limit=limit)
    return {"run": run_id, "split": split, "checkpoint": checkpoint.file_name, **audited}


def audit_sets(
    services: Services,
    slug: str,
    set_ids: Sequence[int],
    *,
    min_score: float | None = None,
    after: int = 0,
    limit: int = 100,
) -> dict[str, Any]:
    """A page of suspects, the surest first, from the predictions of one set or of several.

    With several, each image is judged by the first set whose run did not train on it, where there is one: give the sets
    of a cross-validation, and every image is judged out of sample. ``min_score`` is where the first set's F1 is best
    unless given.

    suspects: kind (one of KINDS), image_id, file_name, annotation_id and label_box (None for a missing box), box
    (predicted; xyxy pixels), score, iou, labeled and predicted (class names; labeled None without a box), in_sample
    (whether the model was trained on the image) and set. counts: suspects by kind; images, in_sample: how many images
    were judged, and how many of them in sample; skipped: images that were deleted or turned since. total, next.
    Raises NotFound, BadRequest.
    """
    if after < 0 or not 1 <= limit <= MAX_PAGE:
        raise BadRequest(f"A page has 1 to {MAX_PAGE} entries and begins at 0 or later; got {limit} from {after}.")
    if min_score is None:
        min_score = max(review.judge(services, slug, set_ids[0]).evaluation.f1_threshold, 0.0)
    if not 0 <= min_score <= 1:
        raise BadRequest(f"The smallest score must lie in 0..1, got {min_score}.")
    learned, chosen = _choose_predictions(services, slug, set_ids)
    labels = _CurrentLabels.read(services, slug, learned, chosen)
    suspects = find_suspects(labels.truth, labels.detections, min_score)
    end = min(after + limit, len(suspects.kind))
    return {
        "min_score": min_score,
        "images": len(labels.predicted),
        "in_sample": sum(one.is_seen for one in labels.predicted),
        "skipped": len(chosen) - len(labels.predicted),
        "counts": {kind: int((suspects.kind == number).sum()) for number, kind in enumerate(KINDS)},
        "suspects": [
            labels.describe(KINDS[kind], detection, box, iou)
            for kind, detection, box, iou in zip(
                suspects.kind[after:end].tolist(),
                suspects.detection[after:end].tolist(),
                suspects.truth[after:end].tolist(),
                suspects.iou[after:end].tolist(),
                strict=True,
            )
        ],
        "total": len(suspects.kind),
        "next": end if end < len(suspects.kind) else None,
    }


def _choose_predictions(
    services: Services, slug: str, set_ids: Sequence[int]
) -> tuple[CategoryMap, dict[int, _Predicted]]:
    """The classes that the models know, and for each image the predictions to judge it by."""
    database = services.database(slug)
    chosen: dict[int, _Predicted] = {}
    learned: CategoryMap | None = None
    for set_id in set_ids:
        record = predictions.get_set(database, set_id)
        snapshot = review.load_truth(services, slug, record.run_id)
        if learned is None:
            learned = snapshot.categories
        if snapshot.categories != learned:
            raise BadRequest("The sets were predicted by models of different classes.", "Audit with one at a time.")
        found = predictions.read_detections(database, set_id)
        is_seen = record.split == "train"
        for sample in snapshot.split(record.split):
            before = chosen.get(sample.image_id)
            if sample.image_id in found and (before is None or (before.is_seen and not is_seen)):
                chosen[sample.image_id] = _Predicted(sample, found[sample.image_id], is_seen, record)
    if learned is None or not chosen:
        raise BadRequest("There is no image to audit.", "Choose a set of predictions that has some.")
    return learned, chosen


@dataclass(frozen=True, eq=False)
class _CurrentLabels:
    """Predictions beside the labels as they are now; ``boxes`` are the annotations in the order of the truth's rows."""

    truth: GroundTruth
    detections: DetectionColumns
    predicted: list[_Predicted]
    boxes: list[Annotation]

    @classmethod
    def read(
        cls, services: Services, slug: str, learned: CategoryMap, chosen: dict[int, _Predicted]
    ) -> "_CurrentLabels":
        """The images that still are what was predicted; boxes of classes that came since stay under their own names."""
        with services.database(slug).read() as db:
            known = images.of_ids(db, list(chosen))
            predicted = [one for image_id, one in chosen.items() if _is_unchanged(one.sample, known.get(image_id))]
            by_image = annotations.of_images(db, [one.sample.image_id for one in predicted])
            newer = [item for item in categories.all_of(db) if item.id not in learned.ids]
        if not predicted:
            raise BadRequest("None of the predicted images is in the project any more.", "Predict again.")
        classes = CategoryMap(
            learned.ids + tuple(item.id for item in newer), learned.names + tuple(item.name for item in newer)
        )
        rows = [by_image[one.sample.image_id] for one in predicted]
        boxes = [annotation for row in rows for annotation in row]
        truth = GroundTruth(
            categories=classes,
            image_ids=np.array([one.sample.image_id for one in predicted], np.int64),
            image_index=np.repeat(np.arange(len(rows)), [len(row) for row in rows]),
            boxes=np.array([item.bbox for item in boxes], np.float64).reshape(-1, 4),
            labels=np.array([classes.label_of(item.category_id) for item in boxes], np.int64),
            is_crowd=np.array([item.is_crowd for item in boxes], bool),
        )
        found = {one.sample.image_id: one.found for one in predicted}
        return cls(truth, DetectionColumns.from_detections(truth, found), predicted, boxes)

    def describe(self, kind: str, detection: int, box: int, iou: float) -> dict[str, Any]:
        """One suspect for a screen or a script."""
        one = self.predicted[int(self.detections.image_index[detection])]
        names = self.truth.categories
        annotation = self.boxes[box] if box >= 0 else None
        return {
            "kind": kind,
            "image_id": one.sample.image_id,
            "file_name": one.sample.file_name,
            "annotation_id": annotation.id if annotation else None,
            "label_box": list(annotation.bbox) if annotation else None,
            "box": self.detections.boxes[detection].tolist(),
            "score": float(self.detections.scores[detection]),
            "iou": iou,
            "labeled": names.name_of(int(self.truth.labels[box])) if annotation else None,
            "predicted": names.name_of(int(self.detections.labels[detection])),
            "in_sample": one.is_seen,
            "set": one.record.id,
        }


def _is_unchanged(sample: Sample, image: Image | None) -> bool:
    """Whether boxes found in the image then still mean the same place."""
    if image is None or image.problem:
        return False
    return (image.rotation, image.width, image.height) == (sample.rotation, sample.width, sample.height)
