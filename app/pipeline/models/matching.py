"""Which candidate box is which object, and which of them are learned from: for a whole batch at once.

Every shape depends on sizes alone, never on values: no step asks the device for a number, and a batch of eight launches
as many kernels as one of two. B images, G the objects of the fullest one, N candidates (anchors or proposals),
S samples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.pipeline.losses import IGNORED

MAX_CELLS = 2**25  # overlaps computed at a time: 128 MB as float32


class PaddedTargets(NamedTuple):
    """Objects of a batch: boxes float32 [B, G, 4] (xyxy pixels), labels int64 [B, G] in 1..K, 0 where there is none."""

    boxes: Tensor
    labels: Tensor


def pad_targets(targets: Sequence[dict[str, Tensor]], device: torch.device) -> PaddedTargets:
    """torchvision's targets (boxes [N, 4] and labels [N] of each image, on the CPU) side by side, in one transfer."""
    fullest = max((len(target["labels"]) for target in targets), default=0)
    packed = np.zeros((len(targets), max(1, fullest), 5), np.float32)
    for row, target in zip(packed, targets, strict=True):
        row[: len(target["labels"]), :4] = target["boxes"].numpy()
        row[: len(target["labels"]), 4] = target["labels"].numpy()
    there = upload(torch.from_numpy(packed), device)
    return PaddedTargets(there[..., :4].contiguous(), there[..., 4].long())


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on ``device``; from pinned memory, as a GPU finishes all it has to do before any other transfer."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def match(
    boxes: Tensor, targets: PaddedTargets, high: float, low: float, *, keeps_best: bool = False
) -> tuple[Tensor, Tensor]:
    """Rows int64 [B, N] of the object that each candidate overlaps most, and whether it is one: int64 [B, N].

    boxes: [B, N, 4], or [1, N, 4] for the same in all images. 1 from an IoU of ``high``, 0 (background) below ``low``,
    IGNORED between; with ``keeps_best`` 1 also for the candidates that overlap an object more than all others do.
    Ren et al., https://arxiv.org/abs/1506.01497, section 3.1.2; torchvision's Matcher gives the same, image by image.
    """
    size = max(1, MAX_CELLS // max(1, targets.boxes.shape[1] * boxes.shape[1]))
    parts = []
    for start in range(0, len(targets.boxes), size):
        here = slice(start, start + size)
        own = boxes if len(boxes) == 1 else boxes[here]
        parts.append(_match(own, targets.boxes[here], targets.labels[here] > 0, high, low, keeps_best))
    rows, kinds = zip(*parts, strict=True)
    return torch.cat(rows), torch.cat(kinds)


def _match(
    boxes: Tensor, truth: Tensor, is_object: Tensor, high: float, low: float, keeps_best: bool
) -> tuple[Tensor, Tensor]:
    overlaps = box_overlaps(truth, boxes).masked_fill_(~is_object[..., None], -1.0)
    best, rows = overlaps.max(dim=1)
    is_found = best >= high
    if keeps_best:
        # Of an empty place nothing is best: no overlap is as large as 2.
        highest = overlaps.amax(dim=2, keepdim=True).masked_fill_(~is_object[..., None], 2.0)
        is_found |= (overlaps == highest).any(dim=1)
    return rows, torch.where(is_found, 1, torch.where(best < low, 0, IGNORED))


def box_overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU [B, G, N] of boxes [B, G, 4] and others [B, N, 4]; a first dimension of 1 stands for all images."""
    x1, y1, x2, y2 = (side[..., None] for side in boxes.unbind(-1))
    others_x1, others_y1, others_x2, others_y2 = others.transpose(1, 2).contiguous()[:, :, None].unbind(1)
    shared = (torch.minimum(x2, others_x2) - torch.maximum(x1, others_x1)).clamp_(min=0)
    shared.mul_((torch.minimum(y2, others_y2) - torch.maximum(y1, others_y1)).clamp_(min=0))
    areas = (x2 - x1) * (y2 - y1) + (others_x2 - others_x1) * (others_y2 - others_y1)
    return shared.div_(areas.sub_(shared))


def sample(labels: Tensor, size: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Candidates to learn from: rows int64 [B, S], those on objects first, and which of them are one: bool [B, S].

    labels: [B, N], 1 or more on objects, 0 on background, IGNORED. At most ``size * positive_fraction`` are on objects
    and the others on background, each drawn uniformly without replacement, as by torchvision's sampler; S is ``size``,
    or N if that is less. Draws B x N numbers from the global generator of the device.
    """
    draws = torch.rand(labels.shape, device=labels.device)
    num_positive = min(int(size * positive_fraction), labels.shape[1])
    drawn, rows = torch.where(labels > 0, draws, -1.0).topk(num_positive, dim=1)
    keys = torch.where(labels == 0, draws, -1.0)
    keys = keys.scatter(1, rows, torch.where(drawn >= 0, 2.0, keys.gather(1, rows)))
    keys, rows = keys.topk(min(size, labels.shape[1]), dim=1)
    return rows, keys >= 0


def pick(values: Tensor, rows: Tensor) -> Tensor:
    """``values[b, rows[b]]`` for each image b: [B, N, ...] and [B, S] to [B, S, ...]."""
    if values.dim() == 2:
        return values.gather(1, rows)
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[2]))
