"""What the Data page shows and changes: pages of images, figures, classes, an image's split and rotation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlite_utils import Database

from app.errors import BadRequest, Conflict
from app.pipeline.data.stats import Columns, describe_dataset
from app.records import SPLITS, Annotation, Category, Image, ImageFilter
from app.services.context import Services
from app.store import annotations, categories, images

MAX_PAGE = 500


@dataclass(frozen=True, slots=True)
class ImagePage:
    """Images in order of id with their boxes by image id; ``next`` is the id to go on after, None at the end."""

    images: list[Image]
    boxes: dict[int, list[Annotation]]
    total: int
    next: int | None


def list_images(services: Services, slug: str, image_filter: ImageFilter, after: int = 0, limit: int = 60) -> ImagePage:
    """At most ``limit`` images with ids above ``after`` that pass the filter; raises BadRequest, NotFound."""
    if not 1 <= limit <= MAX_PAGE:
        raise BadRequest(f"limit must be 1 to {MAX_PAGE}, got {limit}.")
    with services.database(slug).read() as db:
        found = images.page(db, image_filter, after=after, limit=limit + 1)
        shown = found[:limit]
        boxes = annotations.of_images(db, [image.id for image in shown])
        total = images.count(db, image_filter)
    return ImagePage(shown, boxes, total, shown[-1].id if len(found) > limit else None)


def describe(services: Services, slug: str, image_size: int) -> dict[str, Any]:
    """Figures of the usable images for charts (see ``pipeline.data.stats``).

    Besides: ``num_quarantined``, and ``listed``: images, annotations and quarantined images of each split.
    """
    if not 32 <= image_size <= 4096:
        raise BadRequest(f"image_size must be 32 to 4096 pixels, got {image_size}.")
    with services.database(slug).read() as db:
        every = images.all_of(db)
        rows = annotations.box_rows(db)
        listed = images.counts_by_split(db)
    usable = [image for image in every if not image.problem]
    stats = describe_dataset(_columns(usable, rows), image_size)
    return {**stats, "num_quarantined": len(every) - len(usable), "listed": listed}


def list_categories(services: Services, slug: str) -> list[Category]:
    """The classes in order of position, with their numbers of boxes."""
    with services.database(slug).read() as db:
        return categories.all_of(db)


def add_category(services: Services, slug: str, name: str) -> Category:
    """Add a class after the others; raises BadRequest or Conflict for a name that cannot be."""
    with services.database(slug).write() as db:
        return categories.insert(db, name)


def rename_category(services: Services, slug: str, category_id: int, name: str) -> Category:
    """Give a class another name; raises BadRequest, Conflict or NotFound."""
    with services.database(slug).write() as db:
        return categories.rename(db, category_id, name)


def change_image(
    services: Services, slug: str, image_id: int, split: str | None = None, rotation: int | None = None
) -> Image:
    """Move an image to another split, turn a quarantined one, or both; what is None stays.

    Raises BadRequest for an unknown split or rotation, Conflict when the boxes do not fit, NotFound.
    """
    if split is not None and split not in SPLITS:
        raise BadRequest(f"split must be one of {', '.join(SPLITS)}, got {split!r}.")
    if rotation is not None and rotation not in (0, 90, 180, 270):
        raise BadRequest(f"rotation must be 0, 90, 180 or 270 degrees, got {rotation}.")
    with services.database(slug).write() as db:
        if rotation is not None:
            _turn(db, images.get(db, image_id), rotation)
        if split is not None:
            images.set_split(db, image_id, split)
        return images.get(db, image_id)


def _turn(db: Database, image: Image, rotation: int) -> None:
    """Turn the picture under its boxes, which stay: the labels were made on the upright picture."""
    if not image.problem and not image.rotation:
        raise Conflict(
            f"{image.file_name} is not quarantined; turning it would move the picture away from its boxes.",
            "Only an image whose labels declare another orientation can be turned.",
        )
    is_swapped = (rotation - image.rotation) % 180 != 0
    width, height = (image.height, image.width) if is_swapped else (image.width, image.height)
    num_outside = sum(box.bbox[2] > width or box.bbox[3] > height for box in annotations.of_image(db, image.id))
    if num_outside:
        raise Conflict(
            f"Turned by {rotation} degrees, {image.file_name} is {width} x {height} pixels and {num_outside} of its "
            "boxes lie outside.",
            "Choose the rotation in which every box lies on its object.",
        )
    images.set_rotation(db, image.id, rotation, width=width, height=height)


def _columns(usable: list[Image], rows: list[tuple[int, int, float, float, float, float]]) -> Columns:
    index_of = {image.id: index for index, image in enumerate(usable)}
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Columns(
        sizes=np.array([(image.width, image.height) for image in usable], np.int64).reshape(-1, 2),
        splits=np.array([image.split for image in usable], dtype="U8"),
        boxes=table[:, 2:],
        image_index=np.array([index_of[image_id] for image_id in table[:, 0].astype(np.int64).tolist()], np.int64),
        category_ids=table[:, 1].astype(np.int64),
    )
