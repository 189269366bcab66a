"""Small exports and pictures made on the spot."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

Files = dict[str, bytes]


def picture(width: int = 64, height: int = 48, file_format: str = "PNG", mode: str = "RGB", seed: int = 0, **options):
    """Bytes of a noise picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    PillowImage.fromarray(pixels).convert(mode).save(stream, file_format, **options)
    return stream.getvalue()


def coco(
    images: list[dict] | None = None,
    annotations: list[dict] | None = None,
    categories: list[dict] | None = None,
) -> dict[str, Any]:
    """A COCO document; by default one image of 64 x 48, one class and one box."""
    return {
        "images": images if images is not None else [image_entry()],
        "annotations": annotations if annotations is not None else [box_entry()],
        "categories": categories if categories is not None else [{"id": 1, "name": "cell", "supercategory": "cells"}],
    }


def image_entry(image_id: Any = 1, file_name: Any = "a.png", width: Any = 64, height: Any = 48, **more: Any) -> dict:
    return {"id": image_id, "file_name": file_name, "width": width, "height": height, **more}


def box_entry(annotation_id: Any = 1, image_id: Any = 1, category_id: Any = 1, bbox: Any = None, **more: Any) -> dict:
    bbox = [10, 10, 20, 20] if bbox is None else bbox
    return {"id": annotation_id, "image_id": image_id, "category_id": category_id, "bbox": bbox, "iscrowd": 0, **more}


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


def write_folder(root: Path, files: Files) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_zip(path: Path, files: Files, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path
