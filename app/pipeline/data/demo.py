"""A made-up dataset that looks like stained blood smears, written as a Roboflow-style COCO export.

It has what real data has: four classes of very different frequency, crowded and empty images, objects cut by the
border, overlaps, uneven light and noise. Everything follows from one seed. Images are uint8 RGB, boxes xywh pixels as
in COCO.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import orjson

WIDTH, HEIGHT = 256, 192
CLASS_NAMES = ("red cell", "platelet", "white cell", "parasite")
_CLASS_WEIGHTS = (0.74, 0.14, 0.08, 0.04)
_SPLIT_SHARES = (("train", 0.7), ("valid", 0.2), ("test", 0.1))
_MIN_VISIBLE_SHARE = 0.4


@dataclass(frozen=True)
class _Cell:
    """An ellipse to paint: center and half axes in pixels, angle in radians, index into CLASS_NAMES."""

    kind: int
    center: tuple[float, float]
    axes: tuple[float, float]
    angle: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Its xyxy extent, before clipping to the image."""
        (x, y), (a, b) = self.center, self.axes
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        half_width, half_height = np.hypot(a * cos, b * sin), np.hypot(a * sin, b * cos)
        return x - half_width, y - half_height, x + half_width, y + half_height


def write_demo_export(
    folder: Path, *, num_images: int = 320, seed: int = 7, on_progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write ``num_images`` images with ``_annotations.coco.json`` per split under ``folder``; returns ``folder``."""
    done = 0
    for split_index, (split, share) in enumerate(_SPLIT_SHARES):
        target = folder / split
        target.mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for index in range(round(num_images * share)):
            rng = np.random.default_rng([seed, split_index, index])
            picture, cells = draw_slide(rng)
            name = f"slide-{split}-{index + 1:03d}"
            file_name = f"{name}_jpg.rf.{hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()}.jpg"
            encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
            (target / file_name).write_bytes(encoded.tobytes())
            images.append({"id": index, "license": 1, "file_name": file_name, "height": HEIGHT, "width": WIDTH})
            annotations += [_annotation(cell, index, len(annotations) + i) for i, cell in enumerate(cells)]
            done += 1
            if on_progress:
                on_progress(done, num_images)
        document = {
            "info": {"description": "Synthetic blood smears made by Anchorage"},
            "licenses": [{"id": 1, "name": "CC0 1.0", "url": ""}],
            "categories": [{"id": 0, "name": "blood-smear", "supercategory": "none"}]
            + [{"id": i + 1, "name": name, "supercategory": "blood-smear"} for i, name in enumerate(CLASS_NAMES)],
            "images": images,
            "annotations": annotations,
        }
        (target / "_annotations.coco.json").write_bytes(orjson.dumps(document))
    return folder


def draw_slide(rng: np.random.Generator) -> tuple[np.ndarray, list[_Cell]]:
    """One picture (uint8 [HEIGHT, WIDTH, 3] RGB) and the cells in it, all at least partly visible."""
    canvas = _background(rng)
    cells = _place_cells(rng)
    for cell in cells:
        _paint(canvas, cell, rng)
    blurred = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.5, 1.1)))
    noisy = blurred + rng.normal(0, rng.uniform(2, 6), (HEIGHT, WIDTH, 1))
    return np.clip(noisy, 0, 255).astype(np.uint8), cells


def _background(rng: np.random.Generator) -> np.ndarray:
    """Pale plasma under uneven light, float [HEIGHT, WIDTH, 3]."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    center = rng.uniform([0, 0], [WIDTH, HEIGHT])
    shade = 1 - rng.uniform(0.05, 0.2) * np.hypot(x - center[0], y - center[1]) / WIDTH
    tint = np.array([236, 226, 230]) + rng.normal(0, 6, 3)
    smudges = cv2.resize(rng.normal(0, 4, (6, 8)).astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return (tint * shade[..., None] + smudges[..., None]).astype(np.float32)


def _place_cells(rng: np.random.Generator) -> list[_Cell]:
    """None (6 % of the images), three to sixteen, or a crowd (8 %); neighbors may touch and overlap a little."""
    draw = rng.random()
    wanted = 0 if draw < 0.06 else int(rng.integers(30, 46)) if draw < 0.14 else int(rng.integers(3, 17))
    cells: list[_Cell] = []
    for _ in range(wanted * 4):
        if len(cells) == wanted:
            break
        cell = _random_cell(rng)
        if _visible_share(cell) >= _MIN_VISIBLE_SHARE and not any(_too_close(cell, other) for other in cells):
            cells.append(cell)
    return cells


def _random_cell(rng: np.random.Generator) -> _Cell:
    kind = int(rng.choice(len(CLASS_NAMES), p=_CLASS_WEIGHTS))
    low, high = ((10, 15), (5, 7), (18, 25), (13, 19))[kind]
    a = rng.uniform(low, high)
    flatness = rng.uniform(0.22, 0.32) if kind == 3 else rng.uniform(0.82, 1.0)
    center = rng.uniform([-6, -6], [WIDTH + 6, HEIGHT + 6])
    return _Cell(kind, (float(center[0]), float(center[1])), (a, a * flatness), float(rng.uniform(0, np.pi)))


def _too_close(cell: _Cell, other: _Cell) -> bool:
    distance = np.hypot(cell.center[0] - other.center[0], cell.center[1] - other.center[1])
    return bool(distance < 0.8 * (max(cell.axes) + max(other.axes)))


def _clipped(cell: _Cell) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = cell.box
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(WIDTH)), min(y2, float(HEIGHT))


def _visible_share(cell: _Cell) -> float:
    x1, y1, x2, y2 = cell.box
    left, top, right, bottom = _clipped(cell)
    return max(right - left, 0.0) * max(bottom - top, 0.0) / ((x2 - x1) * (y2 - y1))


def _paint(canvas: np.ndarray, cell: _Cell, rng: np.random.Generator) -> None:
    """Blend the cell into the canvas in place."""
    x1, y1, x2, y2 = _clipped(cell)
    rows = slice(max(int(y1) - 2, 0), min(int(y2) + 3, HEIGHT))
    columns = slice(max(int(x1) - 2, 0), min(int(x2) + 3, WIDTH))
    y, x = np.mgrid[rows, columns].astype(np.float32) + 0.5
    dx, dy = x - cell.center[0], y - cell.center[1]
    cos, sin = np.cos(cell.angle), np.sin(cell.angle)
    u, v = (dx * cos + dy * sin) / cell.axes[0], (dy * cos - dx * sin) / cell.axes[1]
    radius = np.hypot(u, v)
    cover = np.clip((1 - radius) * min(cell.axes), 0, 1) * rng.uniform(0.8, 0.97)
    color = _stain(cell.kind, radius, u, v, rng)
    patch = canvas[rows, columns]
    patch += cover[..., None] * (color - patch)


def _stain(kind: int, radius: np.ndarray, u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Color of every pixel of a cell, float [h, w, 3]; ``u``, ``v`` and ``radius`` are 1 at the cell's edge."""
    jitter = rng.normal(0, 6, 3)
    if kind == 0:  # a disc that is pale in the middle
        ring = np.clip(radius * 1.3, 0.35, 1)[..., None]
        return np.array([226, 214, 216]) + ring * (np.array([206, 128, 130]) + jitter - np.array([226, 214, 216]))
    if kind == 1:
        return np.broadcast_to(np.array([142, 96, 168]) + jitter, (*radius.shape, 3))
    if kind == 2:  # a lobed nucleus in pale cytoplasm
        cytoplasm, nucleus = np.array([196, 176, 214]) + jitter, np.array([92, 58, 142]) + jitter
        lobes = np.zeros_like(radius)
        for turn in rng.uniform(0, 2 * np.pi, 3):
            lobes = np.maximum(lobes, np.hypot(u - 0.35 * np.cos(turn), v - 0.35 * np.sin(turn)) < 0.38)
        return cytoplasm + lobes[..., None] * (nucleus - cytoplasm)
    core = (radius < 0.45)[..., None]  # a thin body with a dark core
    return np.array([118, 92, 170]) + jitter + core * np.array([-50, -40, -30])


def _annotation(cell: _Cell, image_id: int, annotation_id: int) -> dict:
    x1, y1, x2, y2 = (round(float(value), 2) for value in _clipped(cell))
    width, height = round(x2 - x1, 2), round(y2 - y1, 2)
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": cell.kind + 1,
        "bbox": [x1, y1, width, height],
        "area": width * height,
        "segmentation": [],
        "iscrowd": 0,
    }
