"""How an export writes its boxes: as COCO's corner, width and height in pixels, as two corners, or normalized.

Judged over the whole export: one tool wrote all its splits, and a small one alone says too little. Imports no torch.
"""

import numpy as np

from app.pipeline.data.coco import ParsedImage, xyxy_to_xywh
from app.pipeline.data.findings import ExportRefused, FindingLog

MIN_BOXES_TO_JUDGE = 10  # fewer say too little about how an export writes its boxes
NEARLY_ALL = 0.95  # the rest are slips, which must not change how all the others are read
OUTSIDE_TOLERANCE_PX = 2.0  # exports round: a box may reach half a pixel too far


def judge_boxes(images: list[ParsedImage], label: str, log: FindingLog) -> None:
    """Read the boxes of a whole export as xyxy where they are written so, in place.

    ``label`` names the export in messages. Raises ExportRefused when the boxes are normalized.
    """
    boxes = [annotation.source_bbox_xywh for image in images for annotation in image.annotations]
    if (
        boxes
        and all(max(box) <= 1 and min(box) >= 0 for box in boxes)
        and any(box != tuple(map(round, box)) for box in boxes)
    ):
        raise ExportRefused(
            f"{label}: all {len(boxes)} boxes lie between 0 and 1, so they are normalized; COCO boxes are pixels.",
            "Multiply x and width by the image's width, y and height by its height, and import again.",
        )
    if not _are_corner_pairs(images):
        return
    for image in images:
        for annotation in image.annotations:
            annotation.bbox = annotation.source_bbox_xywh
            annotation.source_bbox_xywh = xyxy_to_xywh(annotation.bbox)
    message = "boxes are written as two corners, not as corner, width and height; they were read that way"
    log.add("fixed", "xyxy", message, where=label, count=len(boxes))


def _are_corner_pairs(images: list[ParsedImage]) -> bool:
    """Whether most boxes of images of a known size, read as xywh, leave them, and nearly all fit when read as xyxy."""
    sized = [image for image in images if image.width and image.height and image.annotations]
    xywh = np.array([a.source_bbox_xywh for image in sized for a in image.annotations], np.float64).reshape(-1, 4)
    if len(xywh) < MIN_BOXES_TO_JUDGE:
        return False
    sizes = np.array([(image.width, image.height) for image in sized for _ in image.annotations], np.float64)
    overshoots = ((xywh[:, :2] + xywh[:, 2:] - sizes) > OUTSIDE_TOLERANCE_PX).any(axis=1)
    fits_as_xyxy = ((xywh[:, 2:] > xywh[:, :2]) & (xywh[:, 2:] - sizes <= OUTSIDE_TOLERANCE_PX)).all(axis=1)
    return bool(overshoots.mean() > 0.5 and fits_as_xyxy.mean() >= NEARLY_ALL)
