"""Annotations of images: reading them in order, replacing those of one image under a revision check."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlite_utils import Database

from app.errors import Conflict, NotFound
from app.records import Annotation
from app.store.database import row_of, rows_of

_COLUMNS = "id, image_id, category_id, x1, y1, x2, y2, is_crowd, segmentation, coco_id, source_bbox_xywh"
_MAX_PARAMETERS = 500


def of_image(db: Database, image_id: int) -> list[Annotation]:
    """The annotations of an image in order of id; empty for an unknown image."""
    sql = f"SELECT {_COLUMNS} FROM annotation WHERE image_id = ? ORDER BY id"
    return [_annotation(row) for row in rows_of(db, sql, [image_id])]


def of_images(db: Database, image_ids: Sequence[int]) -> dict[int, list[Annotation]]:
    """The annotations of several images by image id; every id asked for has a list."""
    found: dict[int, list[Annotation]] = {image_id: [] for image_id in image_ids}
    for start in range(0, len(image_ids), _MAX_PARAMETERS):
        chunk = list(image_ids[start : start + _MAX_PARAMETERS])
        marks = ", ".join("?" * len(chunk))
        sql = f"SELECT {_COLUMNS} FROM annotation WHERE image_id IN ({marks}) ORDER BY id"
        for row in rows_of(db, sql, chunk):
            found[row["image_id"]].append(_annotation(row))
    return found


def all_by_image(db: Database) -> dict[int, list[Annotation]]:
    """Every annotation by image id, in order of id; images without annotations are left out."""
    found: dict[int, list[Annotation]] = {}
    for row in db.execute(f"SELECT {_COLUMNS} FROM annotation ORDER BY id"):
        found.setdefault(row["image_id"], []).append(_annotation(row))
    return found


def box_rows(
    db: Database, *, with_problems: bool = False, with_crowds: bool = True
) -> list[tuple[int, int, float, float, float, float]]:
    """(image_id, category_id, x1, y1, x2, y2) of every annotation, image by image; cheap for a million boxes."""
    join = "" if with_problems else "JOIN image ON image.id = image_id AND image.problem = ''"
    where = "" if with_crowds else "WHERE is_crowd = 0"
    columns = "image_id, category_id, x1, y1, x2, y2"
    sql = f"SELECT {columns} FROM annotation {join} {where} ORDER BY image_id, annotation.id"
    return [tuple(row) for row in db.execute(sql)]


def insert_many(db: Database, annotations: Sequence[Annotation]) -> None:
    """Add annotations, ids given out by the database, and bring the counts of their images up to date."""
    db.conn.executemany(
        "INSERT INTO annotation (image_id, category_id, x1, y1, x2, y2, is_crowd, segmentation, coco_id,"
        " source_bbox_xywh) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_values(annotation) for annotation in annotations],
    )
    _recount(db, sorted({annotation.image_id for annotation in annotations}))


def replace(
    db: Database, image_id: int, revision: int, annotations: Sequence[Annotation], *, is_empty_on_purpose: bool = False
) -> int:
    """Make ``annotations`` the only ones of an image and return its new revision.

    An annotation whose id is one of the image's keeps it; any other id (0 for a new box) gets a new one, in the given
    order. Raises Conflict when the image's revision is no longer ``revision``, NotFound when there is no such image.
    """
    _raise_revision(db, image_id, revision, is_empty_on_purpose and not annotations)
    known = {row[0] for row in rows_of(db, "SELECT id FROM annotation WHERE image_id = ?", [image_id])}
    kept = {annotation.id for annotation in annotations} & known
    db.conn.executemany("DELETE FROM annotation WHERE id = ?", [(gone,) for gone in sorted(known - kept)])
    for annotation in annotations:
        values = _values(annotation, image_id)
        if annotation.id in kept:
            db.execute(
                "UPDATE annotation SET image_id = ?, category_id = ?, x1 = ?, y1 = ?, x2 = ?, y2 = ?, is_crowd = ?,"
                " segmentation = ?, coco_id = ?, source_bbox_xywh = ? WHERE id = ?",
                [*values, annotation.id],
            )
        else:
            db.execute(
                "INSERT INTO annotation (image_id, category_id, x1, y1, x2, y2, is_crowd, segmentation, coco_id,"
                " source_bbox_xywh) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
    _recount(db, [image_id])
    return revision + 1


def count(db: Database) -> int:
    """How many annotations the project has."""
    return int(row_of(db, "SELECT count(*) FROM annotation")[0])


def _raise_revision(db: Database, image_id: int, revision: int, is_empty_on_purpose: bool) -> None:
    cursor = db.execute(
        "UPDATE image SET revision = revision + 1, is_empty_on_purpose = ? WHERE id = ? AND revision = ?",
        [int(is_empty_on_purpose), image_id, revision],
    )
    if cursor.rowcount:
        return
    row = row_of(db, "SELECT revision FROM image WHERE id = ?", [image_id])
    if row is None:
        raise NotFound(f"There is no image {image_id} in this project.", "Reload the page: it may have been removed.")
    raise Conflict(
        f"Image {image_id} was saved elsewhere meanwhile (revision {row['revision']}, yours began at {revision}).",
        "Choose which boxes to keep.",
    )


def _recount(db: Database, image_ids: Sequence[int]) -> None:
    db.conn.executemany(
        "UPDATE image SET num_annotations = (SELECT count(*) FROM annotation WHERE image_id = image.id) WHERE id = ?",
        [(image_id,) for image_id in image_ids],
    )


def _values(annotation: Annotation, image_id: int | None = None) -> list[Any]:
    return [
        annotation.image_id if image_id is None else image_id,
        int(annotation.category_id),
        *(float(value) for value in annotation.bbox),
        int(annotation.is_crowd),
        None if annotation.segmentation is None else orjson.dumps(annotation.segmentation).decode(),
        annotation.coco_id,
        None if annotation.source_bbox_xywh is None else orjson.dumps(list(annotation.source_bbox_xywh)).decode(),
    ]


def _annotation(row: Any) -> Annotation:
    source = row["source_bbox_xywh"]
    return Annotation(
        id=row["id"],
        image_id=row["image_id"],
        category_id=row["category_id"],
        bbox=(row["x1"], row["y1"], row["x2"], row["y2"]),
        is_crowd=bool(row["is_crowd"]),
        segmentation=None if row["segmentation"] is None else orjson.loads(row["segmentation"]),
        coco_id=row["coco_id"],
        source_bbox_xywh=None if source is None else tuple(orjson.loads(source)),
    )
