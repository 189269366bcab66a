"""The RPN's best boxes: the first stage's answer, padded to as many for each image.

B images, L levels, A anchors of all levels, N candidates (the best of each level), P proposals.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from app.pipeline.models.matching import box_overlaps, pick
from app.pipeline.models.nms import suppress_compiled

# More than boxes are found to hang on each other: 6 to 14 in a trained detector, 8 to 20 in the first epoch from random
# weights.
ROUNDS_AT_ONCE = 32
ROWS_AT_ONCE = 256  # of the overlaps between candidates, to bound their memory


class Proposals(NamedTuple):
    """Boxes float32 [B, P, 4] (xyxy pixels, within the images), the best first, and which of them are one: [B, P].

    canvas: (height, width) of the padded images that they lie on. scores: their objectness, float32 [B, P] in 0..1, -1
    where there is no box. is_settled: a bool on the device, whether NMS had come to its end; None when it surely had.
    """

    boxes: Tensor
    is_kept: Tensor
    canvas: tuple[int, int]
    scores: Tensor
    is_settled: Tensor | None = None

    def of_images(self) -> list[Tensor]:
        """Boxes [N_i, 4] of each image, without empty places. Waits for the device."""
        return [boxes[is_kept] for boxes, is_kept in zip(self.boxes, self.is_kept, strict=True)]


class Limits(NamedTuple):
    """How proposals are chosen: candidates of a level, proposals of an image, NMS, lowest score and side in pixels."""

    num_candidates: int
    num_proposals: int
    nms_threshold: float
    min_score: float
    min_side_px: float


def select_proposals(
    scores: Tensor,
    offsets: Tensor,
    anchors: Tensor,
    num_per_level: Sequence[int],
    frames: Tensor,
    coder: BoxCoder,
    limits: Limits,
    canvas: tuple[int, int],
    waits: bool = True,
) -> Proposals:
    """The best boxes of each image after NMS within each level, as torchvision's ``filter_proposals`` chooses them.

    scores [B, A] before the sigmoid, offsets [B, A, 4], anchors [A, 4], frames [B, 2] the (width, height) of the
    images, which are padded to ``canvas``. Only candidates are decoded, a few thousand of all anchors. Unless it
    ``waits`` a GPU is not asked whether NMS is settled.
    """
    scores, rows, counts = _best_of_levels(scores, num_per_level, limits.num_candidates)
    boxes = coder.decode_single(pick(offsets, rows), anchors[rows])
    boxes = torch.minimum(boxes.clamp(min=0), frames.repeat(1, 2)[:, None])
    is_kept = ((boxes[..., 2:] - boxes[..., :2]) >= limits.min_side_px).all(dim=-1)
    scores = scores.sigmoid()
    is_kept &= scores >= limits.min_score
    # What is too small overlaps nothing as a box of no size, so that it takes no other box with it.
    is_best, is_settled = suppress(boxes * is_kept[..., None], counts, limits.nms_threshold, waits)
    is_kept &= is_best
    # Sorted, not topk: of an untrained RPN many scores are equal, and their order decides what the head sees.
    keys, rows = scores.masked_fill(~is_kept, -1.0).sort(dim=1, descending=True, stable=True)
    keys, rows = keys[:, : limits.num_proposals], rows[:, : limits.num_proposals]
    return Proposals(pick(boxes, rows), keys >= 0, canvas, keys, is_settled)


def _best_of_levels(scores: Tensor, num_per_level: Sequence[int], num: int) -> tuple[Tensor, Tensor, list[int]]:
    """Scores and rows [B, N] of the best of each level, level by level, the best first; and how many of each."""
    best, rows, counts, start = [], [], [], 0
    for count in num_per_level:
        top = scores[:, start : start + count].topk(min(num, count), dim=1)
        best.append(top.values)
        rows.append(top.indices + start)
        counts.append(top.values.shape[1])
        start += count
    return torch.cat(best, dim=1), torch.cat(rows, dim=1), counts


def suppress(boxes: Tensor, counts: Sequence[int], threshold: float, waits: bool) -> tuple[Tensor, Tensor | None]:
    """What greedy NMS keeps, bool [B, N], of boxes [B, N, 4], ``counts`` of each level and the best of it first.

    With it whether that is settled, a bool on the device, or None when it surely is.
    """
    if boxes.device.type == "cpu":
        return suppress_in_turn(boxes, counts, threshold), None
    return suppress_together(boxes, counts, threshold, waits)


def suppress_in_turn(boxes: Tensor, counts: Sequence[int], threshold: float) -> Tensor:
    """Box by box, image by image and level by level, in compiled code: the fastest on a CPU."""
    return torch.from_numpy(suppress_compiled(boxes.numpy(), counts, threshold))


def suppress_together(
    boxes: Tensor, counts: Sequence[int], threshold: float, waits: bool = True
) -> tuple[Tensor, Tensor | None]:
    """All images and levels at once, the same result to the bit: for a GPU, which waits once or not at all.

    A box is kept unless a better one that is kept overlaps it. Started from "all are kept", each round settles at least
    the best box that is not yet settled; what a round does not change is the answer of greedy NMS. Without waiting it
    ends after ROUNDS_AT_ONCE rounds, settled or not.
    """
    num_images, most = len(boxes), max(counts)
    levels = [torch.nn.functional.pad(part, (0, 0, 0, most - part.shape[1])) for part in boxes.split(list(counts), 1)]
    boxes = torch.stack(levels, dim=1).flatten(0, 1)
    hits = torch.empty(len(boxes), most, most, dtype=torch.float16, device=boxes.device)
    for start in range(0, most, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        hits[:, rows] = box_overlaps(boxes[:, rows], boxes) > threshold
    hits.tril_(-1)  # a place is hit by better ones only: hits are symmetric
    kept = one = torch.ones(len(boxes), most, 1, dtype=torch.float16, device=boxes.device)
    with torch.autocast(boxes.device.type, enabled=False):  # it would convert all hits in each round
        while True:
            for _ in range(ROUNDS_AT_ONCE):
                before, kept = kept, torch.baddbmm(one, hits, kept, alpha=-1).clamp_(min=0)
            is_settled = (before == kept).all()
            if not waits or is_settled:
                break
    by_level = kept.view(num_images, len(counts), most) > 0
    is_kept = torch.cat([by_level[:, level, :count] for level, count in enumerate(counts)], dim=1)
    return is_kept, None if waits else is_settled
