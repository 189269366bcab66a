"""Fuse the detections of several models on one image into one list. Imports no torch.

Weighted boxes fusion (Solovyev, Wang, Gabruseva 2021) averages overlapping boxes of a class, weighted by score, and
rescales the score by how many members agree: a lone .9 of three members comes out .30, three times .9 stays .90. Good
thresholds of the members are therefore wrong for their ensemble: take ``f1_threshold`` of its own evaluation.

Frames: in and out xyxy pixels of the upright image; inside, and only here, 0..1 of its width and height.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from app.pipeline.types import Detections

SOFT_NMS_SIGMA = 0.5
SOFT_NMS_SMALLEST_SCORE = 0.001


class FusionError(ValueError):
    """Members or options that cannot be fused; the message says which."""


class FusionOptions(BaseModel):
    """How members are fused; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: Literal["wbf", "nms", "soft_nms", "nmw"] = Field(
        "wbf",
        description="Weighted boxes fusion, non-maximum suppression, its soft form, or non-maximum weighted.",
    )
    iou_threshold: float = Field(
        0.55, gt=0, lt=1, description="Boxes of a class overlapping more than this are taken for one object."
    )
    skip_threshold: float = Field(0.0, ge=0, lt=1, description="Members' boxes with a lower score are left out.")
    weights: tuple[PositiveFloat, ...] = Field((), description="Weight of each member; empty counts all alike.")
    conf_type: Literal["avg", "max", "box_and_model_avg", "absent_model_aware_avg"] = Field(
        "avg", description="How weighted boxes fusion makes one score of several; other methods ignore it."
    )


class _Stack:
    """The members' boxes in the 0..1 frame, checked: equal lengths, no box without area, no score under the limit."""

    def __init__(self, members: Sequence[Detections], width: int, height: int, skip_threshold: float) -> None:
        scale = np.array([width, height, width, height], np.float64)
        self.boxes: list[np.ndarray] = []
        self.scores: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        for member in members:
            boxes = np.clip(member.boxes.astype(np.float64) / scale, 0, 1)
            keep = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (member.scores >= skip_threshold)
            self.boxes.append(boxes[keep])
            self.scores.append(member.scores[keep].astype(np.float64))
            self.labels.append(member.labels[keep].astype(np.int64))

    def __len__(self) -> int:
        return sum(len(scores) for scores in self.scores)


Fused = tuple[np.ndarray, np.ndarray, np.ndarray]


def fuse(members: Sequence[Detections], width: int, height: int, options: FusionOptions) -> Detections:
    """Fuse the members' detections of an image of ``width`` x ``height`` pixels, best score first.

    The members' arrays are left as they are. Raises FusionError when there is no member, when the number of weights
    differs from that of the members, or when the fusing library refuses.
    """
    _check(members, width, height, options)
    stack = _Stack(members, width, height, options.skip_threshold)
    if not len(stack):
        return Detections.empty()
    try:
        boxes, scores, labels = _METHODS[options.method](stack, options)
    except SystemExit as error:  # ensemble_boxes ends the process on input it does not like
        raise FusionError("ensemble_boxes refused the members' boxes; see the log for its reason") from error
    order = np.argsort(-scores, kind="stable")
    pixels = boxes[order] * np.array([width, height, width, height], np.float64)
    return Detections(pixels, np.clip(scores[order], 0, 1), labels[order])


def _check(members: Sequence[Detections], width: int, height: int, options: FusionOptions) -> None:
    if not members:
        raise FusionError("an ensemble needs at least one member, got none")
    if width < 1 or height < 1:
        raise FusionError(f"width and height must be at least 1 pixel, got {width} x {height}")
    if options.weights and len(options.weights) != len(members):
        raise FusionError(f"there must be one weight per member: {len(members)}, got {len(options.weights)}")


def _weights(stack: _Stack, options: FusionOptions) -> list[float]:
    return list(options.weights) or [1.0] * len(stack.boxes)


def _weighted_boxes_fusion(stack: _Stack, options: FusionOptions) -> Fused:
    from ensemble_boxes import weighted_boxes_fusion

    return weighted_boxes_fusion(
        stack.boxes,
        stack.scores,
        stack.labels,
        weights=_weights(stack, options),
        iou_thr=options.iou_threshold,
        skip_box_thr=0.0,
        conf_type=options.conf_type,
    )


def _non_maximum_weighted(stack: _Stack, options: FusionOptions) -> Fused:
    from ensemble_boxes import non_maximum_weighted

    return non_maximum_weighted(
        stack.boxes, stack.scores, stack.labels, weights=_weights(stack, options), iou_thr=options.iou_threshold
    )


def _non_maximum_suppression(stack: _Stack, options: FusionOptions) -> Fused:
    from ensemble_boxes import nms

    # The weights go in before: the library would write the weighted scores into the caller's list.
    boxes, scores, labels = _joined(stack, options)
    return nms([boxes], [scores], [labels], iou_thr=options.iou_threshold)


def _soft_nms(stack: _Stack, options: FusionOptions) -> Fused:
    """Gaussian soft-NMS (Bodla et al. 2017, eq. 6): s_i becomes s_i exp(-IoU² / sigma) for each better box in turn.

    Not ensemble_boxes' own: that one gives back the scores from before the decay, so duplicates keep full marks.
    """
    boxes, scores, labels = _joined(stack, options)
    keep: list[int] = []
    remaining = np.arange(len(scores))
    while len(remaining):
        best = remaining[np.argmax(scores[remaining])]
        if scores[best] < SOFT_NMS_SMALLEST_SCORE:
            break
        keep.append(int(best))
        remaining = remaining[remaining != best]
        same = remaining[labels[remaining] == labels[best]]
        scores[same] *= np.exp(-(_iou_with(boxes[best], boxes[same]) ** 2) / SOFT_NMS_SIGMA)
    return boxes[keep], scores[keep], labels[keep]


def _joined(stack: _Stack, options: FusionOptions) -> Fused:
    """All members' rows in one list (copies), scores times the member's share of the largest weight."""
    weights = _weights(stack, options)
    scores = [score * (weight / max(weights)) for score, weight in zip(stack.scores, weights, strict=True)]
    return np.concatenate(stack.boxes), np.concatenate(scores), np.concatenate(stack.labels)


def _iou_with(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    sides = np.clip(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0, None)
    intersection = sides.prod(axis=1)
    return intersection / ((box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - intersection)


_METHODS: dict[str, Callable[[_Stack, FusionOptions], Fused]] = {
    "wbf": _weighted_boxes_fusion,
    "nms": _non_maximum_suppression,
    "soft_nms": _soft_nms,
    "nmw": _non_maximum_weighted,
}
