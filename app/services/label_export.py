"""The labels as a COCO zip in Roboflow's layout, which imports again unchanged.

Images, boxes and classes leave under the ids they came with; a box that was not edited leaves with the very numbers it
came with. New boxes get the next free ids of their split.
"""

import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from app.errors import Cancelled
from app.pipeline.data.coco import OWN_MARK
from app.pipeline.data.image import encode_jpeg, encode_png, read_image
from app.records import SPLITS, Annotation, Image
from app.services.context import Services
from app.store import annotations as annotation_store
from app.store import categories as category_store
from app.store import images as image_store
from app.store.files import replacing

JSON_NAME = "_annotations.coco.json"
INFO = {"description": "Labels exported from Anchorage", OWN_MARK: True}
MAX_NAME_BYTES = 200
_ENTRY_TIME = (1980, 1, 1, 0, 0, 0)  # a constant, so that the same labels make the same zip
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)", re.IGNORECASE)


def export_labels(
    services: Services,
    slug: str,
    path: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Write the zip to ``path``, whole or not at all; returns images, annotations, categories and splits.

    A turned image leaves upright, as a new picture; all others leave as the bytes that were imported.
    ``on_progress(done, total)`` counts images. Raises NotFound, and Cancelled when ``should_stop`` says so.
    """
    files = services.files(slug)
    documents = coco_documents(services, slug)
    with services.database(slug).read() as db:
        images = image_store.all_of(db)
    names = {image_id: name for split in SPLITS for image_id, name in _names_of(images, split).items()}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for split, document in documents.items():
            _add(archive, f"{split}/{JSON_NAME}", orjson.dumps(document), zipfile.ZIP_DEFLATED)
        for done, image in enumerate(images):
            if should_stop():
                raise Cancelled("The export was stopped; nothing was written.")
            stored = files.image(image.sha256, image.extension)
            content = _rendered(stored, image.rotation, names[image.id]) if image.rotation else stored.read_bytes()
            _add(archive, f"{image.split}/{names[image.id]}", content)
            on_progress(done + 1, len(images))
    return {
        "images": len(images),
        "annotations": sum(len(document["annotations"]) for document in documents.values()),
        "categories": len(next(iter(documents.values()))["categories"]),
        "splits": {split: len(document["images"]) for split, document in documents.items()},
    }


def coco_documents(services: Services, slug: str) -> dict[str, dict[str, Any]]:
    """The COCO document of each split that has images; of ``train`` alone when there are none."""
    with services.database(slug).read() as db:
        categories = category_store.all_of(db)
        images = image_store.all_of(db)
        extras = image_store.extras(db)
        by_image = annotation_store.all_by_image(db)
    entries = [
        {"id": category.id, "name": category.name, "supercategory": category.supercategory} for category in categories
    ]
    documents = {}
    for split in SPLITS:
        names = _names_of(images, split)
        members = [image for image in images if image.split == split]
        if members or (split == "train" and not images):
            documents[split] = {
                "info": INFO,
                "licenses": [],
                "categories": entries,
                "images": [_image_entry(image, names[image.id], extras.get(image.id, {})) for image in members],
                "annotations": list(_annotation_entries(members, by_image)),
            }
    return documents


def coco_image_ids(services: Services, slug: str, split: str) -> dict[int, int]:
    """The id under which each image of a split leaves, by database id; classes leave under their database ids."""
    with services.database(slug).read() as db:
        return {image.id: image.coco_id for image in image_store.all_of(db, split)}


def safe_name(file_name: str) -> str:
    """A relative path that every file system takes, the very ``file_name`` if it is one."""
    parts = []
    for part in _FORBIDDEN.sub("_", file_name.replace("\\", "/")).split("/"):
        part = part.rstrip(". ")
        if part:
            parts.append(f"_{part}" if _DEVICE.match(part) else part)
    if not parts:
        return "image"
    return str(PurePosixPath(*parts[:-1], _shortened(parts[-1])))


def _shortened(name: str) -> str:
    suffix = PurePosixPath(name).suffix[:10]
    stem = name.removesuffix(suffix) if suffix else name
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    return stem.encode()[: MAX_NAME_BYTES - len(suffix.encode())].decode(errors="ignore") + suffix


def _names_of(images: list[Image], split: str) -> dict[int, str]:
    """A safe name for each image of a split; names that differ only in case are told apart by a number."""
    names: dict[int, str] = {}
    taken = {JSON_NAME}
    for image in images:
        if image.split != split:
            continue
        name = path = PurePosixPath(safe_name(image.file_name))
        number = 2
        while str(name).lower() in taken:
            name = path.with_name(f"{path.stem}_{number}{path.suffix}")
            number += 1
        taken.add(str(name).lower())
        names[image.id] = str(name)
    return names


def _image_entry(image: Image, name: str, extra: dict[str, Any]) -> dict[str, Any]:
    """``extra`` has the width and height of the original file's entry where they contradict the picture."""
    stated = {} if image.problem else {"width": image.width, "height": image.height}
    entry = {"id": image.coco_id, "file_name": name, "height": image.height, "width": image.width}
    return {**entry, **extra, **stated}


def _annotation_entries(images: list[Image], by_image: dict[int, list[Annotation]]) -> Iterator[dict[str, Any]]:
    taken: set[int] = set()
    free = 1 + max(
        (annotation.coco_id or 0 for image in images for annotation in by_image.get(image.id, ())), default=-1
    )
    for image in images:
        for annotation in by_image.get(image.id, ()):
            coco_id = annotation.coco_id
            if coco_id is None or coco_id in taken:
                coco_id, free = free, free + 1
            taken.add(coco_id)
            yield _annotation_entry(annotation, image, coco_id)


def _annotation_entry(annotation: Annotation, image: Image, coco_id: int) -> dict[str, Any]:
    bbox = exported_bbox(annotation, image)
    return {
        "id": coco_id,
        "image_id": image.coco_id,
        "category_id": annotation.category_id,
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "segmentation": [] if annotation.segmentation is None else annotation.segmentation,
        "iscrowd": int(annotation.is_crowd),
    }


def exported_bbox(annotation: Annotation, image: Image) -> list[float]:
    """xywh of a box: the imported numbers if the box still lies where they put it, else computed from the box."""
    x1, y1, x2, y2 = annotation.bbox
    source = annotation.source_bbox_xywh
    if source is not None:
        x, y, width, height = source
        clipped = (max(x, 0), max(y, 0), min(x + width, image.width), min(y + height, image.height))
        if annotation.bbox in (clipped, (x, y, x + width, y + height)):
            return list(source)
    return [x1, y1, x2 - x1, y2 - y1]


def _rendered(path: Path, rotation: int, name: str) -> bytes:
    """The upright picture in the format of the name; PNG where the name says so, else JPEG."""
    picture = read_image(path, rotation)
    return encode_png(picture) if name.lower().endswith(".png") else encode_jpeg(picture, quality=95)


def _add(archive: zipfile.ZipFile, name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    archive.writestr(zipfile.ZipInfo(name, _ENTRY_TIME), content, compress_type=compression)
