"""Stored predictions: one set per checkpoint or ensemble and split, one row of blobs per image.

Blobs are little-endian: boxes float32 [N, 4] xyxy pixels of the upright image, scores float32 [N], labels int32 [N].
Every score is kept; thresholds belong to whoever reads.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from sqlite_utils import Database

from app.errors import NotFound
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth, refuse_unknown_images
from app.pipeline.types import Detections, PredictionTime
from app.records import PredictionSet
from app.store.database import ProjectDatabase, row_of, rows_of

_IDS_PER_QUERY = 500  # stays below SQLite's limit of variables


def store_predictions(
    db: Database,
    *,
    run_id: int,
    split: str,
    detections: Mapping[int, Detections] | Iterable[tuple[int, Detections]],
    snapshot_sha256: str,
    checkpoint_id: int | None = None,
    name: str = "",
    members: Sequence[int] = (),
    options: dict[str, Any] | None = None,
    took: PredictionTime | None = None,
) -> int:
    """Store predictions by image id inside the caller's write transaction and return the set's id.

    With ``checkpoint_id`` they are that checkpoint's and replace the ones it had on the split with the same options
    (``test_time_augmentation``, left out when off); without, they are those of an ensemble of the sets ``members`` and
    replace an earlier one of the same members and options. Pairs of id and detections are taken one by one, so that
    they need not all be in memory. ``took``: what making them did, of an ensemble the fusing alone.
    """
    pairs = detections.items() if isinstance(detections, Mapping) else detections
    kind = "ensemble" if checkpoint_id is None else "checkpoint"
    values = [kind, run_id, checkpoint_id, split, json.dumps(list(members)), json.dumps(options or {}, sort_keys=True)]
    if checkpoint_id is None:
        db.execute(
            "DELETE FROM prediction_set WHERE kind = ? AND run_id = ? AND checkpoint_id IS ? AND split = ? "
            "AND members = ? AND options = ?",
            values,
        )
    else:
        db.execute(
            "DELETE FROM prediction_set WHERE checkpoint_id = ? AND split = ? AND options = ?",
            [checkpoint_id, split, values[-1]],
        )
    cursor = db.execute(
        "INSERT INTO prediction_set (kind, run_id, checkpoint_id, split, members, options, name, snapshot_sha256, "
        "created_at, ms_per_image, device) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [*values, name, snapshot_sha256, time.time(), *((took.ms_per_image, took.device) if took else (None, ""))],
    )
    set_id = int(cursor.lastrowid)
    db.conn.executemany(
        "INSERT INTO prediction (set_id, image_id, boxes, scores, labels) VALUES (?, ?, ?, ?, ?)",
        ((set_id, image_id, *_to_blobs(found)) for image_id, found in pairs),
    )
    return set_id


def get_set(database: ProjectDatabase, set_id: int) -> PredictionSet:
    """One set; raises NotFound."""
    with database.read() as db:
        row = row_of(db, "SELECT * FROM prediction_set WHERE id = ?", [set_id])
    if row is None:
        raise NotFound(
            f"There is no prediction set {set_id} in this project.",
            "Its checkpoint may have been replaced by a better one.",
        )
    return _set(row)


def time_of(record: PredictionSet) -> PredictionTime | None:
    """What making a set took, for storing the same predictions under another name."""
    return None if record.ms_per_image is None else PredictionTime(record.ms_per_image, record.device)


def list_sets(database: ProjectDatabase, *, run_id: int | None = None, split: str | None = None) -> list[PredictionSet]:
    """Sets, newest first; only those of a run or a split if given."""
    with database.read() as db:
        rows = rows_of(
            db,
            "SELECT * FROM prediction_set WHERE (:run IS NULL OR run_id = :run) AND (:split IS NULL OR split = :split) "
            "ORDER BY id DESC",
            {"run": run_id, "split": split},
        )
    return [_set(row) for row in rows]


def find_set(
    database: ProjectDatabase, checkpoint_id: int, split: str, test_time_augmentation: str = "off"
) -> PredictionSet | None:
    """The set of a checkpoint on a split, predicted with that augmentation, or None."""
    where = "checkpoint_id = ? AND split = ? AND coalesce(json_extract(options, '$.test_time_augmentation'), 'off') = ?"
    return _find(database, where, [checkpoint_id, split, test_time_augmentation])


def find_ensemble(
    database: ProjectDatabase, run_id: int, split: str, members: Sequence[int], options: dict[str, Any]
) -> PredictionSet | None:
    """The ensemble of just these sets, fused with these options, or None."""
    where = "kind = 'ensemble' AND run_id = ? AND split = ? AND members = ? AND options = ?"
    return _find(database, where, [run_id, split, json.dumps(list(members)), json.dumps(options, sort_keys=True)])


def _find(database: ProjectDatabase, where: str, values: list[Any]) -> PredictionSet | None:
    with database.read() as db:
        row = row_of(db, f"SELECT * FROM prediction_set WHERE {where}", values)  # noqa: S608 - values are bound
    return _set(row) if row else None


def read_detections(
    database: ProjectDatabase, set_id: int, image_ids: Sequence[int] | None = None
) -> dict[int, Detections]:
    """Detections by image id: of all images of the set, or of those in ``image_ids`` that it has."""
    with database.read() as db:
        return _of_images(db, set_id, _image_ids(db, set_id) if image_ids is None else image_ids)


def iterate_detections(database: ProjectDatabase, set_id: int) -> Iterator[tuple[int, Detections]]:
    """Image ids, in order, with their detections: one consistent view, of which some hundred images are in memory."""
    with database.read() as db:
        for part in _parts(_image_ids(db, set_id)):
            yield from sorted(_of_images(db, set_id, part).items())


def count_detections(database: ProjectDatabase, set_id: int) -> int:
    """How many detections a set has, by the lengths of its blobs: none of them is read."""
    with database.read() as db:
        row = row_of(db, "SELECT sum(length(scores)) AS bytes FROM prediction WHERE set_id = ?", [set_id])
    return (row["bytes"] or 0) // 4


def read_columns(
    database: ProjectDatabase, set_id: int, truth: GroundTruth, *, are_others_left_out: bool = False
) -> DetectionColumns:
    """Detections of the images of ``truth`` as columns, some hundred images at a time: no more is held than they take.

    Raises EvaluationError for a label beyond the classes of ``truth``, and for an image that it does not list unless
    ``are_others_left_out``.
    """
    with database.read() as db:
        if not are_others_left_out:
            refuse_unknown_images(truth, _image_ids(db, set_id))
        return DetectionColumns.read(truth, partial(_of_images, db, set_id))


def list_image_ids(database: ProjectDatabase, set_id: int) -> list[int]:
    """The images that a set has predictions of, those without a detection too."""
    with database.read() as db:
        return _image_ids(db, set_id)


def _image_ids(db: Database, set_id: int) -> list[int]:
    query = "SELECT image_id FROM prediction WHERE set_id = ? ORDER BY image_id"
    return [row[0] for row in db.execute(query, [set_id])]


def _of_images(db: Database, set_id: int, image_ids: Sequence[int]) -> dict[int, Detections]:
    found = {}
    for part in _parts(image_ids):
        marks = ", ".join("?" * len(part))
        query = f"SELECT * FROM prediction WHERE set_id = ? AND image_id IN ({marks})"
        found |= {row["image_id"]: _from_blobs(row) for row in db.execute(query, [set_id, *part])}
    return found


def _parts(image_ids: Sequence[int]) -> list[Sequence[int]]:
    return [image_ids[start : start + _IDS_PER_QUERY] for start in range(0, len(image_ids), _IDS_PER_QUERY)]


def _to_blobs(found: Detections) -> tuple[bytes, bytes, bytes]:
    return (
        found.boxes.astype("<f4").tobytes(),
        found.scores.astype("<f4").tobytes(),
        found.labels.astype("<i4").tobytes(),
    )


def _from_blobs(row: Any) -> Detections:
    return Detections(
        np.frombuffer(row["boxes"], "<f4").reshape(-1, 4),
        np.frombuffer(row["scores"], "<f4"),
        np.frombuffer(row["labels"], "<i4"),
    )


def _set(row: Any) -> PredictionSet:
    values = {name: row[name] for name in row.keys()}  # noqa: SIM118 (iterating a Row gives values)
    values["members"] = tuple(json.loads(values["members"]))
    values["options"] = json.loads(values["options"])
    return PredictionSet(**values)
