"""Non-maximum suppression (NMS) of many images at once. Imports no torch; legend as in ``columns``."""

import numpy as np

from app.pipeline.evaluate.columns import DetectionColumns
from app.pipeline.evaluate.matching import box_ious, pairs_of_equal_group


def suppress(detections: DetectionColumns, iou_threshold: float) -> np.ndarray:
    """What greedy NMS keeps of each image and class, bool [D]; as ``widgets/suppression.js`` and batched_nms.

    A detection falls to a surer one that is kept (of equal scores the first) and overlaps it by more than the
    threshold. Started from "all are kept", each round settles at least the surest that is not settled yet.
    """
    turn = np.empty(len(detections.scores), np.int64)
    turn[np.argsort(-detections.scores, kind="stable")] = np.arange(len(turn))
    group = detections.image_index * (detections.labels.max(initial=0) + 1) + detections.labels
    falls, to = [], []
    for row, other in pairs_of_equal_group(group, group):
        is_later = turn[other] < turn[row]
        row, other = row[is_later], other[is_later]
        overlap = box_ious(detections.boxes[row], detections.boxes[other], np.zeros(len(row), bool))
        falls.append(row[overlap > iou_threshold])
        to.append(other[overlap > iou_threshold])
    row, other = np.concatenate(falls), np.concatenate(to)
    kept = np.ones(len(turn), bool)
    while True:
        now = np.ones(len(turn), bool)
        now[row[kept[other]]] = False
        if np.array_equal(now, kept):
            return kept
        kept = now
