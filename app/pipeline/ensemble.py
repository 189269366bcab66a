"""Fuse the detections of several models on an image, or on many at once, into one list each. Imports no torch.

Weighted boxes fusion (Solovyev, Wang, Gabruseva 2021) averages overlapping boxes of a class, weighted by score, and
rescales the score by how many members agree: a lone .9 of three members comes out .30, three times .9 stays .90. Good
thresholds of the members are therefore wrong for their ensemble: take ``f1_threshold`` of its own evaluation.

The methods are compiled (``fusion/kernels.py``, loaded at the first call) and give the very bits of ensemble_boxes, the
reference implementation by the authors, but for soft-NMS: there the library returns the scores from before the decay,
so that duplicates keep full marks. Weights are relative: NMS and its kin count a score times its member's share of the
largest weight. Frames: in and out xyxy pixels of the upright image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from app.pipeline.fusion.columns import Columns, MemberColumns
from app.pipeline.types import Detections

SHORT_NAMES = {"wbf": "WBF", "nms": "NMS", "soft_nms": "Soft-NMS", "nmw": "NMW"}
METHODS = tuple(SHORT_NAMES)  # in the order of the compiled constants
CONF_TYPES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")


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


def options_in_effect(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an ensemble as they are stored, without those that its method ignores.

    Soft-NMS lowers scores by any overlap, whatever the IoU.
    """
    method = options.get("method", METHODS[0])
    ignored = {"iou_threshold": method == "soft_nms", "conf_type": method != "wbf"}
    return {name: value for name, value in options.items() if not ignored.get(name)}


@dataclass(frozen=True)
class _OnePicture:
    width: int
    height: int
    image_id: int = 0


def fuse(members: Sequence[Detections], width: int, height: int, options: FusionOptions) -> Detections:
    """Fuse the members' detections of an image of ``width`` x ``height`` pixels, best score first.

    The members' arrays are left as they are. Raises FusionError when there is no member, or when the number of weights
    differs from that of the members.
    """
    if width < 1 or height < 1:
        raise FusionError(f"width and height must be at least 1 pixel, got {width} x {height}")
    columns = MemberColumns.from_detections([{0: member} for member in members], [_OnePicture(width, height)])
    return fuse_columns(columns, options).to_detections()[0]


def fuse_columns(columns: MemberColumns, options: FusionOptions) -> Columns:
    """Fuse every image of ``columns``, best score first in each; equal scores by label.

    Raises FusionError as :func:`fuse` does.
    """
    from app.pipeline.fusion import kernels  # loads numba, which the web process does without

    if not columns.num_members:
        raise FusionError("an ensemble needs at least one member, got none")
    if options.weights and len(options.weights) != columns.num_members:
        raise FusionError(f"there must be one weight per member: {columns.num_members}, got {len(options.weights)}")
    weights = np.array(options.weights or np.ones(columns.num_members), np.float64)
    fused = kernels.fuse_rows(
        columns.first,
        columns.members,
        columns.boxes,
        columns.scores,
        columns.labels,
        weights,
        float(weights.sum()),
        float(np.float32(options.skip_threshold)),  # scores are float32: .7 of them must reach a threshold of .7
        options.iou_threshold,
        METHODS.index(options.method),
        CONF_TYPES.index(options.conf_type),
    )
    return Columns(*fused, columns.sizes)
