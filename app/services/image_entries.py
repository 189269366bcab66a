"""An image and its boxes as the canvas takes them: arrays are flat, boxes [4 N] xyxy pixels."""

from typing import Any

import numpy as np

from app.pipeline.data.snapshot import Sample
from app.pipeline.types import Detections


def image_entry(sample: Sample) -> dict[str, Any]:
    """id, file_name, width, height and ``truth``: boxes, labels and is_crowd (0 or 1)."""
    return {
        "id": sample.image_id,
        "file_name": sample.file_name,
        "width": sample.width,
        "height": sample.height,
        "truth": {
            "boxes": sample.boxes.ravel(),
            "labels": sample.labels,
            "is_crowd": sample.is_crowd.astype(np.int64),
        },
    }


def detections_entry(found: Detections | None) -> dict[str, np.ndarray]:
    """boxes (float32 as stored), scores and labels; empty arrays of None."""
    found = found or Detections.empty()
    return {"boxes": found.boxes.ravel(), "scores": found.scores, "labels": found.labels}
