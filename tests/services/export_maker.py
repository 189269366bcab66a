"""Made on the spot: a small COCO export, in a folder or a zip."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

CATEGORIES = [
    {"id": 0, "name": "animals", "supercategory": "none"},
    {"id": 1, "name": "cat", "supercategory": "animals"},
    {"id": 2, "name": "dog", "supercategory": "animals"},
]


def picture(seed: int, size=(64, 48), image_format="JPEG") -> bytes:
    """Bytes of a picture that no other seed has; size is width, height."""
    values = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, image_format)
    return buffer.getvalue()


class Export:
    """A COCO export under construction: splits -> entries, then a folder or a zip."""

    def __init__(self, categories=CATEGORIES):
        self.categories = categories
        self.splits: dict[str, dict] = {}
        self.contents: dict[str, bytes] = {}

    def add(self, split, name, boxes=(), *, size=(64, 48), stated=None, content=None, extra=None, coco_id=None):
        """boxes: (category_id, [x, y, w, h]) or whole annotation dicts."""
        document = self.splits.setdefault(split, {"images": [], "annotations": []})
        image_id = len(document["images"]) if coco_id is None else coco_id
        width, height = stated or size
        entry = {"id": image_id, "file_name": name, "width": width, "height": height}
        document["images"].append(entry | ({"extra": extra} if extra else {}))
        for box in boxes:
            annotation = box if isinstance(box, dict) else {"category_id": box[0], "bbox": list(box[1])}
            number = len(document["annotations"])
            document["annotations"].append({"id": number, "image_id": image_id, "iscrowd": 0, **annotation})
        seed = len(self.contents) + 1000
        self.contents[f"{split}/{name}"] = picture(seed, size) if content is None else content
        return self

    def files(self) -> dict[str, bytes]:
        documents = {
            f"{split}/_annotations.coco.json": json.dumps({"categories": self.categories, **document}).encode()
            for split, document in self.splits.items()
        }
        return documents | self.contents

    def folder(self, path: Path) -> Path:
        for name, content in self.files().items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        return path

    def zip(self, path: Path) -> Path:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in self.files().items():
                archive.writestr(name, content)
        return path
