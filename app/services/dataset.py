"""The frozen dataset of a run: what is trained on and judged against, as one COCO file beside the run."""

import os
from pathlib import Path
from typing import Any

import orjson

from app.records import Annotation, Image
from app.services.context import Services
from app.store import annotations as annotation_store
from app.store import categories as category_store
from app.store import images as image_store
from app.store.files import ProjectFiles, replacing


def write_snapshot(services: Services, slug: str, path: Path) -> None:
    """Write every usable image (none with a problem) with its boxes to ``path``, in one consistent view.

    COCO JSON as ``pipeline.data.snapshot`` reads it: ids are those of the database, ``path`` of an image is relative to
    the folder of the file. The file appears whole or not at all.
    """
    document = snapshot_document(services, slug, path.parent)
    with replacing(path) as temporary:
        temporary.write_bytes(orjson.dumps(document))


def snapshot_document(services: Services, slug: str, folder: Path) -> dict[str, Any]:
    """The snapshot as a dict; image paths are relative to ``folder``."""
    files = services.files(slug)
    with services.database(slug).read() as db:
        categories = category_store.all_of(db)
        images = [image for image in image_store.all_of(db) if not image.problem]
        by_image = annotation_store.all_by_image(db)
    return {
        "info": {"description": f"Frozen dataset of the project {slug}"},
        "categories": [
            {"id": category.id, "name": category.name, "supercategory": category.supercategory}
            for category in categories
        ],
        "images": [_image_entry(image, files, folder) for image in images],
        "annotations": [_annotation_entry(annotation) for image in images for annotation in by_image.get(image.id, ())],
    }


def _image_entry(image: Image, files: ProjectFiles, folder: Path) -> dict[str, Any]:
    return {
        "id": image.id,
        "file_name": image.file_name,
        "width": image.width,
        "height": image.height,
        "split": image.split,
        "rotation": image.rotation,
        "sha256": image.sha256,
        "path": Path(os.path.relpath(files.image(image.sha256, image.extension), folder)).as_posix(),
    }


def _annotation_entry(annotation: Annotation) -> dict[str, Any]:
    x1, y1, x2, y2 = annotation.bbox
    return {
        "id": annotation.id,
        "image_id": annotation.image_id,
        "category_id": annotation.category_id,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": int(annotation.is_crowd),
    }
