"""Fitting the boxes of an image to its true size: clip first, then drop what has no area. Imports no torch."""

from dataclasses import dataclass, replace

from app.pipeline.data.coco import ParsedAnnotation, ParsedImage
from app.pipeline.data.findings import Finding, FindingLog
from app.pipeline.data.image import ImageInfo

MIN_SIDE_PX = 0.01  # float32 cannot hold thinner boxes at the far end of a large image
ROUNDING_PX = 1.0  # exports round: boxes reach up to a pixel over the edge
MANY_BOXES = 1000


@dataclass(frozen=True, slots=True)
class Fitted:
    """What an image keeps: its annotations, findings, and ``problem``: why it is quarantined, or empty."""

    annotations: list[ParsedAnnotation]
    findings: list[Finding]
    problem: str


def fit_to_image(image: ParsedImage, info: ImageInfo) -> Fitted:
    """Clip the boxes of ``image`` to its real, upright size and drop duplicates and boxes left without area.

    Where the declared size is the real one with width and height swapped, nobody but a person can tell which way to
    turn the picture: the image is quarantined and its boxes stay in the declared frame.
    """
    log = FindingLog()
    problem = _find_problem(image, info, log)
    width, height = (image.width, image.height) if problem else (info.width, info.height)
    annotations: list[ParsedAnnotation] = []
    seen: set[tuple] = set()
    num_rounded = num_clipped = num_repeated = 0
    for annotation in image.annotations:
        identity = (annotation.category_id, annotation.bbox, annotation.is_crowd)
        if identity in seen:
            num_repeated += 1
            continue
        seen.add(identity)
        x1, y1, x2, y2 = annotation.bbox
        clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        if clipped[2] - clipped[0] < MIN_SIDE_PX or clipped[3] - clipped[1] < MIN_SIDE_PX:
            _log_lost(annotation, width, height, image, log)
            continue
        overshoot = max(abs(before - after) for before, after in zip(annotation.bbox, clipped, strict=True))
        num_rounded += 0 < overshoot <= ROUNDING_PX
        num_clipped += overshoot > ROUNDING_PX
        annotations.append(replace(annotation, bbox=clipped) if overshoot else annotation)
    _log_counts(image, len(annotations), num_rounded, num_clipped, num_repeated, log)
    return Fitted(annotations, log.all(), problem)


def _find_problem(image: ParsedImage, info: ImageInfo, log: FindingLog) -> str:
    """Compare the declared size with the real one."""
    declared, real = (image.width, image.height), (info.width, info.height)
    if declared == real:
        return ""
    where = {"split": image.split, "where": image.file_name}
    if None in declared:
        if not image.annotations:
            return ""  # nothing was labelled, so nothing needed the size
        log.add("fixed", "size_missing", f"the size was not given; the file is {real[0]} x {real[1]}", **where)
        return ""
    text = f"labels say {declared[0]} x {declared[1]} pixels, the file is {real[0]} x {real[1]}"
    if declared == real[::-1]:
        problem = f"Width and height are swapped: {text}. Choose the rotation that fits its boxes."
        log.add("quarantined", "swapped_size", problem, **where)
        return problem
    log.add("fixed", "size_differs", f"{text}; the file's size is used", **where)
    return ""


def _log_lost(annotation: ParsedAnnotation, width: int, height: int, image: ParsedImage, log: FindingLog) -> None:
    x1, y1, x2, y2 = annotation.bbox
    is_outside = x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0
    box = ", ".join(f"{value:g}" for value in annotation.source_bbox_xywh)
    reason = f"lies outside the {width} x {height} image" if is_outside else "has no area inside the image"
    log.add(
        "skipped",
        "outside" if is_outside else "degenerate",
        f"box [{box}] {reason}",
        split=image.split,
        where=image.file_name,
    )


def _log_counts(
    image: ParsedImage, num_kept: int, num_rounded: int, num_clipped: int, num_repeated: int, log: FindingLog
) -> None:
    where = {"split": image.split, "where": image.file_name}
    if num_rounded:
        message = f"{num_rounded} box(es) reached up to a pixel over the edge and were clipped"
        log.add("note", "clipped_rounding", message, count=num_rounded, **where)
    if num_clipped:
        message = f"{num_clipped} box(es) reached over the edge and were clipped"
        log.add("fixed", "clipped", message, count=num_clipped, **where)
    if num_repeated:
        message = f"{num_repeated} exact duplicate box(es) were dropped"
        log.add("fixed", "duplicate_box", message, count=num_repeated, **where)
    if num_kept > MANY_BOXES:
        log.add("warning", "many_boxes", f"the image has {num_kept} boxes; training on it is slow", **where)
