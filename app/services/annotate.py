"""Labelling one image: opening it with its neighbors, saving its boxes under a revision check."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.errors import BadRequest, Conflict, NotFound
from app.records import Annotation, Image, ImageFilter
from app.services.context import Services
from app.store import annotations, categories, images

SAME_PX = 0.005  # boxes are edited in steps of 0.01 px: what differs by less did not move


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """An image with its boxes and its place among the images that pass a filter."""

    image: Image
    annotations: list[Annotation]
    previous: int | None
    next: int | None
    position: int  # 1-based, by id; of an image that does not pass the filter: where it would stand
    total: int
    is_listed: bool  # whether the image itself passes the filter


@dataclass(frozen=True, slots=True)
class Origin:
    """What an imported annotation carries beside its box; given back when an edit of it is undone."""

    segmentation: Any = None
    coco_id: int | None = None
    source_bbox_xywh: tuple[float, float, float, float] | None = None
    is_crowd: bool = False


@dataclass(frozen=True, slots=True)
class BoxEdit:
    """A box as the editor wants it stored. ``bbox`` is xyxy in float pixels of the upright image; no id: a new box."""

    id: int | None
    category_id: int
    bbox: tuple[float, float, float, float]
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class SavedBoxes:
    """The boxes of an image as they are stored now."""

    revision: int
    annotations: list[Annotation]
    is_empty_on_purpose: bool


class StaleSave(Conflict):
    """The image was saved elsewhere first; ``current`` is what is stored now."""

    def __init__(self, file_name: str, revision: int, current: SavedBoxes) -> None:
        super().__init__(
            f"{file_name} was saved elsewhere meanwhile (revision {current.revision}, yours began at {revision}).",
            "Choose which boxes to keep.",
        )
        self.current = current


def load(services: Services, slug: str, image_id: int, image_filter: ImageFilter | None = None) -> OpenedImage:
    """An image with its boxes and its neighbors among those that pass the filter, by id; raises NotFound."""
    image_filter = image_filter or ImageFilter()
    with services.database(slug).read() as db:
        image = images.get(db, image_id)
        previous, following, num_before = images.neighbors(db, image_filter, image_id)
        total = images.count(db, image_filter)
        from_here = images.page(db, image_filter, after=image_id - 1, limit=1)
        boxes = annotations.of_image(db, image_id)
    is_listed = bool(from_here) and from_here[0].id == image_id
    return OpenedImage(image, boxes, previous, following, num_before + 1, total, is_listed)


def load_at(services: Services, slug: str, position: int, image_filter: ImageFilter | None = None) -> OpenedImage:
    """The image at a 1-based position among those that pass the filter; raises NotFound past either end."""
    image_filter = image_filter or ImageFilter()
    with services.database(slug).read() as db:
        image_id = images.id_at(db, image_filter, position)
        total = images.count(db, image_filter)
    if image_id is None:
        raise NotFound(
            f"There is no image number {position}: {total} images pass the filter." if total else "No image is here.",
            "Choose another number or change the filter." if total else "Import images or change the filter.",
        )
    return load(services, slug, image_id, image_filter)


def save(
    services: Services,
    slug: str,
    image_id: int,
    revision: int,
    boxes: Sequence[BoxEdit],
    is_empty_on_purpose: bool = False,
) -> SavedBoxes:
    """Store ``boxes`` as the only ones of an image, in one transaction; they come back in the order given.

    Boxes are cut to the image. A box that did not move keeps its segmentation and its ids; one that moved keeps its
    ids only. Raises StaleSave when the image is no longer at ``revision``, BadRequest for a box without area inside
    the image, an unknown class or an id given twice, NotFound.
    """
    with services.database(slug).write() as db:
        image = images.get(db, image_id)
        stored = {annotation.id: annotation for annotation in annotations.of_image(db, image_id)}
        if image.revision != revision:
            current = SavedBoxes(image.revision, list(stored.values()), image.is_empty_on_purpose)
            raise StaleSave(image.file_name, revision, current)
        known = {category.id for category in categories.all_of(db)}
        wanted = _annotations(image, stored, boxes, known)
        new_revision = annotations.replace(
            db, image_id, revision, wanted, is_empty_on_purpose=is_empty_on_purpose and not wanted
        )
        rows = {annotation.id: annotation for annotation in annotations.of_image(db, image_id)}
    kept = {item.id for item in wanted} & set(stored)
    new_ids = iter(sorted(set(rows) - kept))  # may be those of boxes deleted just now: SQLite gives ids out again
    ordered = [rows[item.id if item.id in kept else next(new_ids)] for item in wanted]
    return SavedBoxes(new_revision, ordered, is_empty_on_purpose and not wanted)


def _annotations(
    image: Image, stored: dict[int, Annotation], boxes: Sequence[BoxEdit], known: set[int]
) -> list[Annotation]:
    """The edits as annotations of the image; id 0 stands for a new one."""
    kept = [box.id for box in boxes if box.id in stored]
    if len(set(kept)) != len(kept):
        raise BadRequest(f"Every box of {image.file_name} must have its own id; one id was given twice.")
    taken_coco_ids = {stored[box_id].coco_id for box_id in kept}
    wanted = []
    for number, box in enumerate(boxes, 1):
        if box.category_id not in known:
            raise BadRequest(
                f"Box {number} of {image.file_name} has class {box.category_id}, which this project does not have.",
                "Reload the page to see the present classes.",
            )
        bbox = _clipped(image, number, box.bbox)
        annotation = _edited(stored[box.id], bbox, box) if box.id in stored else _new(image, bbox, box, taken_coco_ids)
        taken_coco_ids.add(annotation.coco_id)
        wanted.append(annotation)
    return wanted


def _edited(old: Annotation, bbox: tuple[float, float, float, float], box: BoxEdit) -> Annotation:
    if _is_same(old.bbox, bbox):
        bbox = old.bbox
        segmentation, source = old.segmentation, old.source_bbox_xywh
    else:
        segmentation, source = None, None
    if box.origin is not None:  # an edit that was undone: the box is back where its outline belongs
        segmentation, source = box.origin.segmentation, box.origin.source_bbox_xywh
    return replace(old, category_id=box.category_id, bbox=bbox, segmentation=segmentation, source_bbox_xywh=source)


def _new(image: Image, bbox: tuple[float, float, float, float], box: BoxEdit, taken: set[int | None]) -> Annotation:
    origin = box.origin or Origin()
    return Annotation(
        id=0,
        image_id=image.id,
        category_id=box.category_id,
        bbox=bbox,
        is_crowd=origin.is_crowd,
        segmentation=origin.segmentation,
        coco_id=None if origin.coco_id in taken else origin.coco_id,
        source_bbox_xywh=origin.source_bbox_xywh,
    )


def _clipped(image: Image, number: int, bbox: Sequence[float]) -> tuple[float, float, float, float]:
    """The box cut to the image; raises BadRequest when nothing with an area is left."""
    where = f"Box {number} of {image.file_name} ({image.width} x {image.height} px)"
    if not all(math.isfinite(value) for value in bbox):
        raise BadRequest(f"{where} must have finite coordinates, got {list(bbox)}.")
    x1, x2 = (min(max(float(value), 0.0), float(image.width)) for value in (bbox[0], bbox[2]))
    y1, y2 = (min(max(float(value), 0.0), float(image.height)) for value in (bbox[1], bbox[3]))
    if x2 <= x1 or y2 <= y1:
        raise BadRequest(
            f"{where} must have an area inside the image, got {list(bbox)}.", "Draw it again or delete it."
        )
    return (x1, y1, x2, y2)


def _is_same(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(abs(left - right) < SAME_PX for left, right in zip(a, b, strict=True))
