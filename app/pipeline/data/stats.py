"""Figures of a dataset for its charts, from columns; every result is JSON-able. Imports no torch.

Legend: M images, N boxes. Boxes are xyxy, float pixels of the upright original image.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

COCO_SMALL_PX = 32  # COCO's area bounds: small below 32 x 32 pixels, large from 96 x 96
COCO_LARGE_PX = 96
NUM_BARS = 20
ASPECT_EDGES = (0.0, 1 / 8, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 4 / 5, 5 / 4, 3 / 2, 2.0, 3.0, 4.0, 8.0, np.inf)


@dataclass(frozen=True, eq=False)
class Columns:
    """A dataset as arrays: ``sizes`` [M, 2] width and height, ``splits`` M names, ``boxes`` [N, 4],
    ``image_index`` [N] rows of ``sizes``, ``category_ids`` [N]."""

    sizes: np.ndarray
    splits: np.ndarray
    boxes: np.ndarray
    image_index: np.ndarray
    category_ids: np.ndarray


def describe_dataset(columns: Columns, image_size: int) -> dict[str, Any]:
    """All figures of the Data page for images resized so that their longer side is ``image_size`` pixels."""
    per_image = np.bincount(columns.image_index, minlength=len(columns.sizes))
    return {
        "image_size": image_size,
        "num_images": len(columns.sizes),
        "num_boxes": len(columns.boxes),
        "num_empty": int((per_image == 0).sum()),
        "splits": count_splits(columns),
        "classes": count_classes(columns),
        "objects_per_image": describe_objects_per_image(per_image),
        "box_size": describe_box_sizes(columns, image_size),
        "aspect_ratio": describe_aspect_ratios(columns.boxes),
        "image_sizes": describe_image_sizes(columns.sizes),
    }


def count_splits(columns: Columns) -> dict[str, dict[str, int]]:
    """Images and boxes per split."""
    of_box = columns.splits[columns.image_index]
    return {
        str(name): {"images": int((columns.splits == name).sum()), "boxes": int((of_box == name).sum())}
        for name in np.unique(columns.splits)
    }


def count_classes(columns: Columns) -> list[dict[str, Any]]:
    """Boxes, images that hold any, and boxes per split of each class that occurs, by category id."""
    of_box = columns.splits[columns.image_index]
    rows = []
    for category_id in np.unique(columns.category_ids):
        mask = columns.category_ids == category_id
        names, counts = np.unique(of_box[mask], return_counts=True)
        rows.append(
            {
                "category_id": int(category_id),
                "num_boxes": int(mask.sum()),
                "num_images": len(np.unique(columns.image_index[mask])),
                "per_split": {str(name): int(count) for name, count in zip(names, counts, strict=True)},
            }
        )
    return rows


def describe_objects_per_image(per_image: np.ndarray) -> dict[str, Any]:
    """Histogram of int [M] objects in an image: bars of equal whole-number width, the first starting at 0."""
    largest = int(per_image.max()) if len(per_image) else 0
    width = max(1, -(-(largest + 1) // NUM_BARS))
    edges = np.arange(0, largest + 1 + width, width)
    counts = np.histogram(per_image, edges)[0]
    return {
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "max": largest,
        "mean": float(per_image.mean()) if len(per_image) else 0.0,
        "median": float(np.median(per_image)) if len(per_image) else 0.0,
    }


def describe_box_sizes(columns: Columns, image_size: int) -> dict[str, Any]:
    """Histogram of the square root of box areas in pixels after resizing, and COCO's small, medium and large."""
    sides = _box_sides(columns, image_size)
    side = np.sqrt(sides[:, 0] * sides[:, 1])
    edges = np.linspace(0, image_size, NUM_BARS + 1)
    return {
        "edges": edges.tolist(),
        "counts": np.histogram(np.minimum(side, image_size), edges)[0].tolist(),
        "small": int((side < COCO_SMALL_PX).sum()),
        "medium": int(((side >= COCO_SMALL_PX) & (side < COCO_LARGE_PX)).sum()),
        "large": int((side >= COCO_LARGE_PX).sum()),
        "below_2_px": int((sides.min(axis=1) < 2).sum()) if len(sides) else 0,
        "median": float(np.median(side)) if len(side) else 0.0,
    }


def describe_aspect_ratios(boxes: np.ndarray) -> dict[str, Any]:
    """Histogram of width / height over fixed bars, symmetric around 1; the last edge is null (no upper end)."""
    ratios = (boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1])
    counts = np.histogram(ratios, np.array(ASPECT_EDGES))[0]
    return {
        "edges": [*ASPECT_EDGES[:-1], None],
        "counts": counts.tolist(),
        "median": float(np.median(ratios)) if len(ratios) else 0.0,
    }


def describe_image_sizes(sizes: np.ndarray) -> dict[str, Any]:
    """How many different sizes there are, the most common one, and the extremes of the longer side."""
    if not len(sizes):
        return {"num_sizes": 0, "most_common": None, "num_most_common": 0, "smallest_side": 0, "largest_side": 0}
    unique, counts = np.unique(sizes, axis=0, return_counts=True)
    return {
        "num_sizes": len(unique),
        "most_common": unique[counts.argmax()].tolist(),
        "num_most_common": int(counts.max()),
        "smallest_side": int(sizes.max(axis=1).min()),
        "largest_side": int(sizes.max()),
    }


def _box_sides(columns: Columns, image_size: int) -> np.ndarray:
    """Width and height [N, 2] of the boxes in pixels of the resized image."""
    longest = columns.sizes.max(axis=1) if len(columns.sizes) else np.zeros(0)
    scale = image_size / longest[columns.image_index]
    return (columns.boxes[:, 2:] - columns.boxes[:, :2]) * scale[:, None]
