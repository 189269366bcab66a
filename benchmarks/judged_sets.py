"""Made-up sets of the sizes that the benchmarks of the judge use: labels, and what a fair detector finds on them."""

import numpy as np

from app.pipeline.data.categories import CategoryMap
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth

SIZE_PX = 640


def make_set(num_images: int, num_classes: int, num_detections: int, seed: int = 1) -> tuple[GroundTruth, np.ndarray]:
    """Labels of about a fourteenth as many boxes as detections (COCO's share), and each box's chance to be found."""
    rng = np.random.default_rng(seed)
    num_boxes = max(num_detections // 14, 1)
    image_index = np.sort(rng.integers(0, num_images, num_boxes))
    corner = rng.uniform(0, SIZE_PX * 0.8, (num_boxes, 2))
    boxes = np.concatenate([corner, corner + rng.gamma(2.0, 40.0, (num_boxes, 2)) + 4], axis=1)
    truth = GroundTruth(
        categories=CategoryMap(tuple(range(1, num_classes + 1)), tuple(f"class {n}" for n in range(num_classes))),
        image_ids=np.arange(1, num_images + 1),
        image_index=image_index,
        boxes=boxes,
        labels=rng.integers(1, num_classes + 1, num_boxes),
        is_crowd=np.zeros(num_boxes, bool),
    )
    return truth, rng.beta(4, 2, num_boxes)


def detect(
    truth: GroundTruth, chance: np.ndarray, num_detections: int, skill: float = 1.0, seed: int = 2
) -> DetectionColumns:
    """Detections of a detector with ``skill``: noisy copies of what it finds, some twice, and many weak false alarms.

    Boxes and scores are rounded to float32, as stored predictions are.
    """
    rng = np.random.default_rng(seed)
    is_found = rng.random(len(chance)) < chance ** (1 / skill)
    source = np.flatnonzero(is_found).repeat(rng.integers(1, 4, int(is_found.sum())))
    sides = truth.boxes[source, 2:] - truth.boxes[source, :2]
    near = truth.boxes[source] + rng.normal(0, 0.07 / skill, (len(source), 4)) * np.tile(sides, 2)
    num_alarms = max(num_detections - len(source), 0)
    corner = rng.uniform(0, SIZE_PX * 0.8, (num_alarms, 2))
    alarms = np.concatenate([corner, corner + rng.gamma(2.0, 40.0, (num_alarms, 2)) + 4], axis=1)
    boxes = np.concatenate([near, alarms]).astype(np.float32).astype(np.float64)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    scores = np.concatenate([rng.beta(4, 2, len(source)), rng.beta(1, 12, num_alarms)])
    wrong = rng.integers(1, len(truth.categories) + 1, len(source))
    labels = np.where(rng.random(len(source)) < 0.05, wrong, truth.labels[source])
    labels = np.concatenate([labels, rng.integers(1, len(truth.categories) + 1, num_alarms)])
    image_index = np.concatenate([truth.image_index[source], rng.integers(0, truth.num_images, num_alarms)])
    order = np.lexsort((-scores, image_index))
    return DetectionColumns(
        image_index[order], boxes[order], scores[order].astype(np.float32).astype(np.float64), labels[order]
    )
