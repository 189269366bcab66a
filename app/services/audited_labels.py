"""Predictions beside the labels as they are now: what a label audit looks through.

Legend: I images, M labelled boxes, D detections, S suspects; frames and dtypes as in ``pipeline/evaluate/columns``.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sqlite_utils import Database

from app.errors import BadRequest, NotFound
from app.pipeline.data.categories import CategoryMap
from app.pipeline.data.snapshot import Sample, Samples
from app.pipeline.evaluate.columns import IMAGES_AT_ONCE, DetectionColumns, GroundTruth, position_in_image
from app.pipeline.evaluate.label_audit import Suspects, find_suspects
from app.records import Image, PredictionSet
from app.services import truths
from app.services.context import Services
from app.services.lru_cache import LruCache
from app.store import annotations, categories, images, predictions


@dataclass(frozen=True, eq=False)
class AuditedLabels:
    """Labels as they are now with what was predicted, and labels as they were when the runs began.

    annotation_ids: int64 [M], of ``now``. set_ids: int64 [I], whose predictions each image is judged by; is_seen: bool
    [I], whether the set's run had it in training. skipped: how many images were left out because they were deleted or
    turned since.
    """

    now: GroundTruth
    frozen: GroundTruth
    annotation_ids: np.ndarray
    detections: DetectionColumns
    set_ids: np.ndarray
    is_seen: np.ndarray
    skipped: int

    @classmethod
    def read(cls, services: Services, slug: str, set_ids: Sequence[int]) -> "AuditedLabels":
        """The images that still are what was predicted; classes that came since stay under their own names.

        With several sets each image is judged by the first one whose run did not train on it, where there is one.
        Images come set by set. Raises NotFound, BadRequest.
        """
        database = services.database(slug)
        learned, chosen = _choose_predictions(services, slug, set_ids)
        with database.read() as db:
            parts = [(record, samples.select(_are_unchanged(db, samples))) for record, samples in chosen]
            parts = [(record, samples) for record, samples in parts if len(samples)]
            if not parts:
                raise BadRequest("None of the predicted images is in the project any more.", "Predict again.")
            frozen = [GroundTruth.from_samples(samples, learned) for _, samples in parts]
            image_ids = np.concatenate([truth.image_ids for truth in frozen])
            now, annotation_ids = _read_labels(db, image_ids, _with_newer(learned, db))
        found = [
            predictions.read_columns(database, record.id, truth, are_others_left_out=True)
            for (record, _), truth in zip(parts, frozen, strict=True)
        ]
        counts = [len(samples) for _, samples in parts]
        return cls(
            now=now,
            frozen=GroundTruth.joined(frozen),
            annotation_ids=annotation_ids,
            detections=DetectionColumns.joined(found, counts),
            set_ids=np.repeat([record.id for record, _ in parts], counts),
            is_seen=np.repeat([record.split == "train" for record, _ in parts], counts),
            skipped=sum(len(samples) for _, samples in chosen) - len(image_ids),
        )


@dataclass(frozen=True, eq=False)
class Audit:
    """Suspects, with the detections of at least the smallest score and the labels that they name.

    place: int32 [D], where a detection stands among all those of its image. annotation_ids: int64 [M]. set_ids,
    is_seen: as in AuditedLabels.
    """

    truth: GroundTruth
    annotation_ids: np.ndarray
    detections: DetectionColumns
    place: np.ndarray
    set_ids: np.ndarray
    is_seen: np.ndarray
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
            place=position_in_image(labels.detections.image_index)[sure].astype(np.int32),
            set_ids=labels.set_ids,
            is_seen=labels.is_seen,
            suspects=find_suspects(labels.now, detections, min_score),
            skipped=labels.skipped,
        )

    def key_of(self, detection: int) -> str:
        """What a suspect is called: its image and the place of its detection there, whatever the labels become."""
        image_id = self.truth.image_ids[self.detections.image_index[detection]]
        return f"{image_id}-{int(self.place[detection])}"

    def row_of(self, key: str) -> int:
        """The detection that a key names; raises NotFound."""
        image_id, _, place = key.partition("-")
        is_named = image_id.isdecimal() and place.isdecimal()
        index = np.flatnonzero(self.truth.image_ids == int(image_id)) if is_named else np.zeros(0, np.int64)
        rows = np.flatnonzero(np.isin(self.detections.image_index, index))
        found = rows[self.place[rows] == int(place)] if is_named else rows
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
) -> tuple[CategoryMap, list[tuple[PredictionSet, Samples]]]:
    """The classes that the models know, and the images to judge by each set's predictions."""
    database = services.database(slug)
    records = [predictions.get_set(database, set_id) for set_id in set_ids]
    snapshots = [truths.load_truth(services, slug, record.run_id) for record in records]
    if any(snapshot.categories != snapshots[0].categories for snapshot in snapshots):
        raise BadRequest("The sets were predicted by models of different classes.", "Audit with one at a time.")
    chosen: dict[int, int] = {}  # the set of each image
    for number, (record, snapshot) in enumerate(zip(records, snapshots, strict=True)):
        is_seen = record.split == "train"
        known = set(snapshot.split(record.split).image_ids.tolist())
        for image_id in predictions.list_image_ids(database, record.id):
            before = chosen.get(image_id)
            if image_id in known and (before is None or (records[before].split == "train" and not is_seen)):
                chosen[image_id] = number
    if not chosen:
        raise BadRequest("There is no image to audit.", "Choose a set of predictions that has some.")
    parts = []
    for number, (record, snapshot) in enumerate(zip(records, snapshots, strict=True)):
        samples = snapshot.split(record.split)
        is_chosen = [chosen.get(image_id) == number for image_id in samples.image_ids.tolist()]
        parts.append((record, samples.select(np.array(is_chosen, bool))))
    return snapshots[0].categories, parts


def _with_newer(learned: CategoryMap, db: Database) -> CategoryMap:
    """The classes that the models know, and after them those that came since."""
    newer = [item for item in categories.all_of(db) if item.id not in learned.ids]
    return CategoryMap(
        learned.ids + tuple(item.id for item in newer), learned.names + tuple(item.name for item in newer)
    )


def _read_labels(db: Database, image_ids: np.ndarray, classes: CategoryMap) -> tuple[GroundTruth, np.ndarray]:
    """The labels of images as they are now, and the ids of the annotations; some hundred images are read at a time."""
    counts, labels, is_crowd, boxes, ids = array("q"), array("q"), array("b"), array("d"), array("q")
    for part in _parts(image_ids):
        for rows in annotations.of_images(db, part).values():
            counts.append(len(rows))
            for row in rows:
                labels.append(classes.label_of(row.category_id))
                is_crowd.append(row.is_crowd)
                boxes.extend(row.bbox)
                ids.append(row.id)
    truth = GroundTruth(
        categories=classes,
        image_ids=image_ids,
        image_index=np.repeat(np.arange(len(image_ids)), counts),
        boxes=np.array(boxes).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        is_crowd=np.array(is_crowd, bool),
    )
    return truth, np.array(ids, np.int64)


def _are_unchanged(db: Database, samples: Samples) -> np.ndarray:
    """bool [I], whether boxes found in the images then still mean the same places."""
    is_unchanged = []
    for start in range(0, len(samples), IMAGES_AT_ONCE):
        part = samples[start : start + IMAGES_AT_ONCE]
        known = images.of_ids(db, part.image_ids.tolist())
        is_unchanged += [_is_unchanged(sample, known.get(sample.image_id)) for sample in part]
    return np.array(is_unchanged, bool)


def _parts(image_ids: np.ndarray) -> Iterator[list[int]]:
    for start in range(0, len(image_ids), IMAGES_AT_ONCE):
        yield image_ids[start : start + IMAGES_AT_ONCE].tolist()


def _is_unchanged(sample: Sample, image: Image | None) -> bool:
    if image is None or image.problem:
        return False
    return (image.rotation, image.width, image.height) == (sample.rotation, sample.width, sample.height)
