"""How an export writes its boxes: as COCO's corner, width and height in pixels, as two corners, or normalized.

Judged over the whole export: one tool wrote all its splits, and a small one alone says too little. Imports no torch.
"""

import numpy as np

from app.pipeline.data.coco import ParsedImage, xyxy_to_xywh
from app.pipeline.data.findings import ExportRefused, FindingLog

MIN_BOXES_TO_JUDGE = 10  # fewer say too little about how an export writes its boxes
MIN_NORMALIZED = 3
MAX_SHARE = 1.01  # of an image's side: rounding takes some boxes over 1
NEARLY_ALL = 0.95  # the rest are slips, which must not change how all the others are read
OUTSIDE_TOLERANCE_PX = 2.0  # exports round: a box may reach half a pixel too far


def judge_boxes(images: list[ParsedImage], label: str, log: FindingLog) -> None:
    """Read the boxes of a whole export as xyxy where they are written so, in place.

    ``label`` names the export in messages. Raises ExportRefused when the boxes are normalized.
    """
    _refuse_normalized(images, label, log)
    if not _are_corner_pairs(images):
        return
    for image in images:
        for annotation in image.annotations:
            annotation.bbox = annotation.source_bbox_xywh
            annotation.source_bbox_xywh = xyxy_to_xywh(annotation.bbox)
    message = "boxes are written as two corners, not as corner, width and height; they were read that way"
    log.add("fixed", "xyxy", message, where=label, count=sum(len(image.annotations) for image in images))


def _refuse_normalized(images: list[ParsedImage], label: str, log: FindingLog) -> None:
    """Refuse an export whose boxes nearly all lie between 0 and 1; warn of such boxes among others."""
    boxes = _numbers_of(images)
    is_share = ((boxes >= 0) & (boxes <= MAX_SHARE)).all(axis=1)
    num_shares = int(is_share.sum())
    if num_shares == 0 or (boxes[is_share] % 1 == 0).all():  # 0 0 1 1 may as well be a pixel
        return
    text = f"{num_shares} of {len(boxes)} boxes lie between 0 and 1, as normalized ones do; COCO boxes are pixels"
    if num_shares < MIN_NORMALIZED or num_shares < NEARLY_ALL * len(boxes):
        log.add("warning", "below_a_pixel", f"{text}. They were kept as they are", where=label, count=num_shares)
        return
    raise ExportRefused(
        f"{label}: {text}.",
        "Multiply x and width by the image's width, y and height by its height, and import again.",
    )


def _are_corner_pairs(images: list[ParsedImage]) -> bool:
    """Whether most boxes of images of a known size, read as xywh, leave them, and nearly all fit when read as xyxy."""
    sized = [image for image in images if image.width and image.height and image.annotations]
    xywh = _numbers_of(sized)
    if len(xywh) < MIN_BOXES_TO_JUDGE:
        return False
    sizes = np.array([(image.width, image.height) for image in sized for _ in image.annotations], np.float64)
    overshoots = ((xywh[:, :2] + xywh[:, 2:] - sizes) > OUTSIDE_TOLERANCE_PX).any(axis=1)
    fits_as_xyxy = ((xywh[:, 2:] > xywh[:, :2]) & (xywh[:, 2:] - sizes <= OUTSIDE_TOLERANCE_PX)).all(axis=1)
    return bool(overshoots.mean() > 0.5 and fits_as_xyxy.mean() >= NEARLY_ALL)


def _numbers_of(images: list[ParsedImage]) -> np.ndarray:
    """The four numbers of each box as the file has them, N x 4."""
    rows = [annotation.source_bbox_xywh for image in images for annotation in image.annotations]
    return np.array(rows, np.float64).reshape(-1, 4)
