"""Images of a project: inserting, filtered pages in order of id, neighbours, changes of split and rotation."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlite_utils import Database

from app.errors import NotFound
from app.records import Image, ImageFilter, NewImage
from app.store.database import row_of, rows_of

_COLUMNS = (
    "id, file_name, sha256, extension, width, height, split, source_key, coco_id, rotation, problem,"
    " is_empty_on_purpose, revision, num_annotations"
)
_MAX_PARAMETERS = 500  # ids per query: SQLite's own limit is far higher, short statements stay in its cache


def insert(db: Database, image: NewImage) -> int:
    """Add an image without annotations; returns its id."""
    cursor = db.execute(
        "INSERT INTO image (file_name, sha256, extension, width, height, split, source_key, coco_id, extra,"
        " rotation, needs_rendering, problem) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            image.file_name,
            image.sha256,
            image.extension,
            int(image.width),
            int(image.height),
            image.split,
            image.source_key,
            int(image.coco_id),
            orjson.dumps(image.extra).decode() if image.extra else None,
            int(image.rotation),
            int(image.needs_rendering),
            image.problem,
        ],
    )
    return int(cursor.lastrowid)


def get(db: Database, image_id: int) -> Image:
    """The image with this id; raises NotFound."""
    row = row_of(db, f"SELECT {_COLUMNS} FROM image WHERE id = ?", [image_id])
    if row is None:
        raise NotFound(f"There is no image {image_id} in this project.", "Reload the page: it may have been removed.")
    return _image(row)


def of_ids(db: Database, image_ids: Sequence[int]) -> dict[int, Image]:
    """The images with these ids, by id; unknown ids are left out."""
    found: dict[int, Image] = {}
    for start in range(0, len(image_ids), _MAX_PARAMETERS):
        chunk = list(image_ids[start : start + _MAX_PARAMETERS])
        marks = ", ".join("?" * len(chunk))
        for row in rows_of(db, f"SELECT {_COLUMNS} FROM image WHERE id IN ({marks})", chunk):
            found[row["id"]] = _image(row)
    return found


def page(db: Database, image_filter: ImageFilter, *, after: int = 0, limit: int = 100) -> list[Image]:
    """At most ``limit`` images that pass the filter, with ids above ``after``, in order of id."""
    where, parameters = _where(image_filter)
    sql = f"SELECT {_COLUMNS} FROM image WHERE {where} AND id > ? ORDER BY id LIMIT ?"
    return [_image(row) for row in rows_of(db, sql, [*parameters, after, limit])]


def all_of(db: Database, split: str | None = None) -> list[Image]:
    """Every image (of a split), quarantined ones included, in order of id."""
    return page(db, ImageFilter(split=split), limit=-1)


def count(db: Database, image_filter: ImageFilter | None = None) -> int:
    """How many images pass the filter."""
    where, parameters = _where(image_filter or ImageFilter())
    return int(row_of(db, f"SELECT count(*) FROM image WHERE {where}", parameters)[0])


def neighbors(db: Database, image_filter: ImageFilter, image_id: int) -> tuple[int | None, int | None, int]:
    """Ids before and after an image among those that pass the filter, and its position (how many come before)."""
    where, parameters = _where(image_filter)
    previous = row_of(db, f"SELECT max(id), count(*) FROM image WHERE {where} AND id < ?", [*parameters, image_id])
    following = row_of(db, f"SELECT min(id) FROM image WHERE {where} AND id > ?", [*parameters, image_id])
    return previous[0], following[0], int(previous[1])


def id_at(db: Database, image_filter: ImageFilter, position: int) -> int | None:
    """The id of the image at a 1-based position among those that pass the filter; None past either end."""
    if position < 1:
        return None
    where, parameters = _where(image_filter)
    row = row_of(db, f"SELECT id FROM image WHERE {where} ORDER BY id LIMIT 1 OFFSET ?", [*parameters, position - 1])
    return None if row is None else int(row[0])


def labels_version(db: Database) -> tuple[int, ...]:
    """A value that is another one after any change of images, their boxes or their rotation; revisions only grow."""
    return tuple(row_of(db, "SELECT count(*), coalesce(max(id), 0), coalesce(sum(revision), 0) FROM image"))


def counts_by_split(db: Database) -> dict[str, dict[str, int]]:
    """For each split that has images: images, annotations, quarantined (images with a problem)."""
    sql = (
        "SELECT split, count(*) AS images, sum(num_annotations) AS annotations, sum(problem != '') AS quarantined"
        " FROM image GROUP BY split"
    )
    return {
        row["split"]: {name: int(row[name]) for name in ("images", "annotations", "quarantined")}
        for row in rows_of(db, sql)
    }


def extra_of(db: Database, image_id: int) -> dict[str, Any]:
    """Further keys of the image in the COCO file it came from; empty for an image added by hand. Raises NotFound."""
    row = row_of(db, "SELECT extra FROM image WHERE id = ?", [image_id])
    if row is None:
        raise NotFound(f"There is no image {image_id} in this project.")
    return orjson.loads(row["extra"]) if row["extra"] else {}


def extras(db: Database) -> dict[int, dict[str, Any]]:
    """``extra_of`` for every image that has such keys."""
    rows = rows_of(db, "SELECT id, extra FROM image WHERE extra IS NOT NULL")
    return {row["id"]: orjson.loads(row["extra"]) for row in rows}


def needs_rendering(db: Database, image_id: int) -> bool:
    """Whether a browser cannot show the stored bytes as they are; raises NotFound."""
    row = row_of(db, "SELECT needs_rendering FROM image WHERE id = ?", [image_id])
    if row is None:
        raise NotFound(f"There is no image {image_id} in this project.")
    return bool(row["needs_rendering"])


def set_split(db: Database, image_id: int, split: str) -> None:
    """Move an image to another split, where it gets a new COCO id if its own is taken; raises NotFound."""
    image = get(db, image_id)
    if image.split == split:
        return
    taken = coco_ids(db, split)
    coco_id = max(taken) + 1 if image.coco_id in taken else image.coco_id
    db.execute("UPDATE image SET split = ?, coco_id = ? WHERE id = ?", [split, coco_id, image_id])


def set_rotation(db: Database, image_id: int, rotation: int, *, width: int, height: int, problem: str = "") -> None:
    """Turn an image; ``width`` and ``height`` are those of the upright picture afterwards. Raises NotFound."""
    get(db, image_id)
    db.execute(
        "UPDATE image SET rotation = ?, width = ?, height = ?, problem = ?, revision = revision + 1 WHERE id = ?",
        [int(rotation), int(width), int(height), problem, image_id],
    )


def known_hashes(db: Database) -> set[str]:
    """SHA-256 of the bytes of every image."""
    return {row[0] for row in rows_of(db, "SELECT DISTINCT sha256 FROM image")}


def coco_ids(db: Database, split: str) -> set[int]:
    """The COCO ids taken by the images of a split."""
    return {row[0] for row in rows_of(db, "SELECT coco_id FROM image WHERE split = ?", [split])}


def _where(image_filter: ImageFilter) -> tuple[str, list[Any]]:
    """SQL condition and its parameters; only fixed text goes into the condition."""
    terms, parameters = ["1"], []
    if image_filter.split:
        terms.append("split = ?")
        parameters.append(image_filter.split)
    if image_filter.category_id is not None:
        terms.append("EXISTS (SELECT 1 FROM annotation WHERE image_id = image.id AND category_id = ?)")
        parameters.append(image_filter.category_id)
    if image_filter.has_problem is not None:
        terms.append("problem != ''" if image_filter.has_problem else "problem = ''")
    if image_filter.name:
        terms.append("instr(lower(file_name), lower(?)) > 0")
        parameters.append(image_filter.name)
    if image_filter.min_boxes is not None:
        terms.append("num_annotations >= ?")
        parameters.append(image_filter.min_boxes)
    if image_filter.max_boxes is not None:
        terms.append("num_annotations <= ?")
        parameters.append(image_filter.max_boxes)
    return " AND ".join(terms), parameters


def _image(row: Any) -> Image:
    values = dict(row)
    values["is_empty_on_purpose"] = bool(values["is_empty_on_purpose"])
    return Image(**values)
