"""What anchors reach on a project's boxes, before a run is started."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from app.pipeline.anchors import Shapes, boxes_after_resize, level_shapes, measure_recall, resolve_shapes, stock_shapes
from app.pipeline.config import AnchorOptions, RunConfig, parse_config
from app.pipeline.data.resize import canvas_for
from app.pipeline.models.catalogue import pyramid_strides
from app.records import Image
from app.services.context import Services
from app.store import annotations as annotation_store
from app.store import images as image_store

# What anchors depend on: other options of a form may be wrong meanwhile.
RELEVANT = frozenset({"model", "image_size", "resize", "seed", *AnchorOptions.model_fields})
MAX_MEASURED = 50_000  # boxes; the recall of a random part this large is within half a percent of that of all


def describe_recall(services: Services, slug: str, values: dict[str, Any]) -> dict[str, Any]:
    """How many of the train split's boxes the anchors reach: the stock ones and those chosen, else KMeans's.

    ``values`` are options by name as in a form; those that anchors do not depend on are not looked at. ``stock`` and
    ``other`` (None without boxes) have ``kind``, ``shapes`` (width and height by level), ``num_per_position`` and
    ``recall``: num_boxes, at_50, at_70 (shares, None without boxes) under all, small, medium and large. Raises
    ConfigError, NotFound.
    """
    config = parse_config({name: value for name, value in values.items() if name in RELEVANT})
    strides = pyramid_strides(config.model)
    images, boxes = _train_boxes(services, slug, config)
    answer = {"image_size": config.image_size, "resize": config.resize, "num_boxes": len(boxes)}
    if not len(boxes):
        return {**answer, "stock": None, "other": None}
    canvas = canvas_for([(image.width, image.height) for image in images], config.image_size, config.resize)
    measured = _sample(boxes, config.seed)

    def describe(kind: str, shapes: Shapes) -> dict[str, Any]:
        recall = measure_recall(measured, shapes, strides, canvas)
        return {
            "kind": kind,
            "shapes": [[[round(float(side), 1) for side in shape] for shape in level] for level in shapes],
            "num_per_position": len(shapes[0]),
            "recall": {name: asdict(one) for name, one in recall.items()},
        }

    other = config if config.anchors == "custom" else _proposal(config, boxes)
    return {
        **answer,
        "stock": describe("stock", stock_shapes(len(strides))),
        "other": describe(other.anchors, level_shapes(other, strides)),
    }


def _proposal(config: RunConfig, boxes: np.ndarray) -> RunConfig:
    """The config with the KMeans anchors that a run would find."""
    return resolve_shapes(config.model_copy(update={"anchors": "kmeans"}), boxes)


def _sample(boxes: np.ndarray, seed: int) -> np.ndarray:
    if len(boxes) <= MAX_MEASURED:
        return boxes
    return boxes[np.random.default_rng(seed).choice(len(boxes), MAX_MEASURED, replace=False)]


def _train_boxes(services: Services, slug: str, config: RunConfig) -> tuple[Sequence[Image], np.ndarray]:
    """The usable images of the train split, and their boxes [N, 4] in pixels after resizing, crowds left out."""
    with services.database(slug).read() as db:
        images = {image.id: image for image in image_store.all_of(db, "train") if not image.problem}
        rows = [row for row in annotation_store.box_rows(db, with_crowds=False) if row[0] in images]
    if not rows:
        return list(images.values()), np.zeros((0, 4))
    table = np.array(rows, np.float64)
    ids, starts = np.unique(table[:, 0], return_index=True)  # rows come image by image
    parts = np.split(table[:, 2:], starts[1:])
    sizes = [(images[int(image_id)].width, images[int(image_id)].height) for image_id in ids]
    resized = [boxes_after_resize(part, size, config) for part, size in zip(parts, sizes, strict=True)]
    return list(images.values()), np.concatenate(resized)
