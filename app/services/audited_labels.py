"""Predictions beside the labels as they are now: what a label audit looks through.

Legend: I images, M labelled boxes, D detections, S suspects; frames and dtypes as in ``pipeline/evaluate/columns``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlite_utils import Database

from app.errors import BadRequest, NotFound
from app.pipeline.data.categories import CategoryMap
from app.pipeline.data.snapshot import Sample
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth, position_in_image
from app.pipeline.evaluate.label_audit import Suspects, find_suspects
from app.pipeline.types import Detections
from app.records import Annotation, Image, PredictionSet
from app.services import review
from app.services.context import Services
from app.services.lru_cache import LruCache
from app.store import annotations, categories, images, predictions


@dataclass(frozen=True, eq=False)
class Predicted:
    """An image as one of the sets predicted it; ``is_seen``: the set's run had it in training."""

    sample: Sample
    found: Detections
    is_seen: bool
    record: PredictionSet


@dataclass(frozen=True, eq=False)
class AuditedLabels:
    """Labels as they are now with what was predicted, and labels as they were when the runs began.

    annotation_ids: int64 [M], of ``now``. predicted: one an image, in the order of the columns. skipped: how many
    images were left out because they were deleted or turned since.
    """

    now: GroundTruth
    frozen: GroundTruth
    annotation_ids: np.ndarray
    detections: DetectionColumns
    predicted: list[Predicted]
    skipped: int

    @classmethod
    def read(cls, services: Services, slug: str, set_ids: Sequence[int]) -> "AuditedLabels":
        """The images that still are what was predicted; classes that came since stay under their own names.

        With several sets each image is judged by the first one whose run did not train on it, where there is one.
        Raises NotFound, BadRequest.
        """
        learned, chosen = _choose_predictions(services, slug, set_ids)
        with services.database(slug).read() as db:
            known = images.of_ids(db, list(chosen))
            predicted = [one for image_id, one in chosen.items() if _is_unchanged(one.sample, known.get(image_id))]
            if not predicted:
                raise BadRequest("None of the predicted images is in the project any more.", "Predict again.")
            classes = _with_newer(learned, db)
            by_image = annotations.of_images(db, [one.sample.image_id for one in predicted])
        rows = [by_image[one.sample.image_id] for one in predicted]
        boxes = [annotation for row in rows for annotation in row]
        now = _truth_of(predicted, rows, boxes, classes)
        found = {one.sample.image_id: one.found for one in predicted}
        return cls(
            now=now,
            frozen=GroundTruth.from_samples([one.sample for one in predicted], learned),
            annotation_ids=np.array([box.id for box in boxes], np.int64),
            detections=DetectionColumns.from_detections(now, found),
            predicted=predicted,
            skipped=len(chosen) - len(predicted),
        )


@dataclass(frozen=True, slots=True)
class AuditedImage:
    """What is kept of an image of an audit."""

    image_id: int
    is_seen: bool
    set_id: int


@dataclass(frozen=True, eq=False)
class Audit:
    """Suspects, with the detections of at least the smallest score and the labels that they name.

    place: int64 [D], where a detection stands among all those of its image. annotation_ids: int64 [M].
    """

    truth: GroundTruth
    annotation_ids: np.ndarray
    detections: DetectionColumns
    place: np.ndarray
    images: list[AuditedImage]
    suspects: Suspects
    skipped: int

    @classmethod
    def of(cls, labels: AuditedLabels, min_score: float) -> "Audit":
        """The audit of labels by detections that are at least ``min_score`` sure."""
        sure = np.flatnonzero(labels.detections.scores >= min_score)
        detections = labels.detections.select(sure)
        return cls(
            truth=labels.now,
            annotation_ids=labels.annotation_ids,
            detections=detections,
            place=position_in_image(labels.detections.image_index)[sure],
            images=[AuditedImage(one.sample.image_id, one.is_seen, one.record.id) for one in labels.predicted],
            suspects=find_suspects(labels.now, detections, min_score),
            skipped=labels.skipped,
        )

    def key_of(self, detection: int) -> str:
        """What a suspect is called: its image and the place of its detection there, whatever the labels become."""
        image = self.images[int(self.detections.image_index[detection])]
        return f"{image.image_id}-{int(self.place[detection])}"

    def row_of(self, key: str) -> int:
        """The detection that a key names; raises NotFound."""
        image_id, _, place = key.partition("-")
        index = next((index for index, image in enumerate(self.images) if str(image.image_id) == image_id), -1)
        rows = np.flatnonzero(self.detections.image_index == index)
        found = rows[self.place[rows] == int(place)] if place.isdecimal() else rows[:0]
        if not len(found):
            raise NotFound(f"There is no suspect {key!r} in this audit.", "Open the audit anew.")
        return int(found[0])

    def is_behind(self, detection: int) -> np.ndarray:
        """bool [S]: which suspects come behind a detection, in the order of the audit."""
        score, rows = self.detections.scores[detection], self.suspects.detection
        scores = self.detections.scores[rows]
        return (scores < score) | ((scores == score) & (rows > detection))


_last = LruCache(1)  # pages come from one reading, and the one before is let go first: two need not fit into memory


def audit(services: Services, slug: str, set_ids: Sequence[int], min_score: float) -> Audit:
    """The audit of sets, read anew when labels, images or predictions changed since. Raises NotFound, BadRequest."""
    database = services.database(slug)
    made_at = tuple((set_id, predictions.get_set(database, set_id).created_at) for set_id in set_ids)
    with database.read() as db:
        version = images.labels_version(db), tuple((item.id, item.name) for item in categories.all_of(db))
    key = (database.path, made_at, min_score, version)
    return _last.get(key, lambda: Audit.of(AuditedLabels.read(services, slug, set_ids), min_score))


def _choose_predictions(
    services: Services, slug: str, set_ids: Sequence[int]
) -> tuple[CategoryMap, dict[int, Predicted]]:
    """The classes that the models know, and for each image the predictions to judge it by."""
    database = services.database(slug)
    chosen: dict[int, Predicted] = {}
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
                chosen[sample.image_id] = Predicted(sample, found[sample.image_id], is_seen, record)
    if learned is None or not chosen:
        raise BadRequest("There is no image to audit.", "Choose a set of predictions that has some.")
    return learned, chosen


def _with_newer(learned: CategoryMap, db: Database) -> CategoryMap:
    """The classes that the models know, and after them those that came since."""
    newer = [item for item in categories.all_of(db) if item.id not in learned.ids]
    return CategoryMap(
        learned.ids + tuple(item.id for item in newer), learned.names + tuple(item.name for item in newer)
    )


def _truth_of(
    predicted: Sequence[Predicted],
    rows: Sequence[Sequence[Annotation]],
    boxes: Sequence[Annotation],
    classes: CategoryMap,
) -> GroundTruth:
    return GroundTruth(
        categories=classes,
        image_ids=np.array([one.sample.image_id for one in predicted], np.int64),
        image_index=np.repeat(np.arange(len(rows)), [len(row) for row in rows]),
        boxes=np.array([item.bbox for item in boxes], np.float64).reshape(-1, 4),
        labels=np.array([classes.label_of(item.category_id) for item in boxes], np.int64),
        is_crowd=np.array([item.is_crowd for item in boxes], bool),
    )


def _is_unchanged(sample: Sample, image: Image | None) -> bool:
    """Whether boxes found in the image then still mean the same place."""
    if image is None or image.problem:
        return False
    return (image.rotation, image.width, image.height) == (sample.rotation, sample.width, sample.height)
