"""Losses of the RPN and of the box head, by name.

P boxes, R sampled regions, K classes (0 is the background). A label of IGNORED marks a place without a region: batches
are padded, so that their shapes do not depend on how many could be sampled.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

SMOOTH_L1_BETA = 1 / 9  # torchvision's, in both heads
IGNORED = -1  # label of what is neither object nor background, and of an empty place
MIN_SIDE_PX = 1e-2  # thinner boxes have ratios and gradients that float32 cannot hold

# (offsets [P, 4], boxes that they start from [P, 4], true boxes [P, 4], their coder) -> the loss of each, [P].
BoxLoss = Callable[[Tensor, Tensor, Tensor, BoxCoder], Tensor]
# (logits [R, K + 1], labels [R], weights of the classes [K + 1] or None) -> the mean over labelled regions, a scalar.
ClassLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def box_loss(name: str) -> BoxLoss:
    """The loss called ``name`` (see config.BOX_LOSSES); raises ValueError for another.

    ``smooth_l1`` and ``l1`` compare offsets, the others the boxes that these lead to. Their sum is to be divided by the
    number of samples, objects or not (see :func:`sum_where`): so torchvision does it for smooth L1, and Detectron2 for
    the others too.
    """
    if name == "smooth_l1":
        return _smooth_l1
    if name == "l1":
        return _l1
    if name in _OVERLAP_LOSSES:
        return _of_boxes(_OVERLAP_LOSSES[name])
    raise ValueError(f"a box loss must be one of smooth_l1, l1, {', '.join(_OVERLAP_LOSSES)}; got {name!r}")


def _smooth_l1(offsets: Tensor, starts: Tensor, truth: Tensor, coder: BoxCoder) -> Tensor:
    target = coder.encode_single(truth, starts)
    return F.smooth_l1_loss(offsets, target, beta=SMOOTH_L1_BETA, reduction="none").sum(dim=1)


def _l1(offsets: Tensor, starts: Tensor, truth: Tensor, coder: BoxCoder) -> Tensor:
    return F.l1_loss(offsets, coder.encode_single(truth, starts), reduction="none").sum(dim=1)


def _of_boxes(loss: Callable[..., Tensor]) -> BoxLoss:
    def of_boxes(offsets: Tensor, starts: Tensor, truth: Tensor, coder: BoxCoder) -> Tensor:
        found = coder.decode_single(offsets.float(), starts.float())  # in half precision areas overflow
        return loss(_with_sides(found), _with_sides(truth.float()), reduction="none")

    return of_boxes


def _with_sides(boxes: Tensor) -> Tensor:
    """The boxes, each side at least MIN_SIDE_PX: without height CIoU's ratio has no gradient, and a step gives NaN."""
    corners, opposite = boxes[:, :2], boxes[:, 2:]
    return torch.cat([corners, torch.maximum(opposite, corners + MIN_SIDE_PX)], dim=1)


def sum_where(
    is_used: Tensor, loss: BoxLoss, offsets: Tensor, starts: Tensor, truth: Tensor, coder: BoxCoder
) -> Tensor:
    """The sum of a box loss over the rows that ``is_used`` [P] marks, a scalar; the others have no gradient either.

    Their places are taken by a box that every loss can be computed for: nothing times infinity would be NaN.
    """
    used = is_used[:, None]
    unit = starts.new_zeros(4)
    unit[2:] = 1
    starts, truth = torch.where(used, starts, unit), torch.where(used, truth, unit)
    losses = loss(torch.where(used, offsets, 0.0), starts, truth, coder)
    return torch.where(is_used, losses, 0.0).sum()


def iou_loss(boxes: Tensor, truth: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - IoU of boxes [P, 4] and their true boxes [P, 4] (xyxy), like torchvision's losses beside it.

    Boxes that do not overlap have no gradient (Rezatofighi et al., https://arxiv.org/abs/1902.09630, section 3, which
    is why GIoU exists). ``reduction``: "none" or "sum".
    """
    overlap = (torch.minimum(boxes[:, 2:], truth[:, 2:]) - torch.maximum(boxes[:, :2], truth[:, :2])).clamp(min=0)
    shared = overlap.prod(dim=1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) + (truth[:, 2:] - truth[:, :2]).prod(dim=1) - shared
    loss = 1 - shared / (union + eps)
    return loss.sum() if reduction == "sum" else loss


_OVERLAP_LOSSES: dict[str, Callable[..., Tensor]] = {
    "iou": iou_loss,
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}


def class_loss(name: str, gamma: float = 2.0) -> ClassLoss:
    """``cross_entropy`` or ``focal``; raises ValueError for another.

    Focal loss (Lin et al., https://arxiv.org/abs/1708.02002, equation 4) over a softmax; gamma 0 is cross-entropy. The
    mean is over the regions, each counted by the weight of its class, as torch does it for cross-entropy.
    """
    if name == "cross_entropy":
        return _cross_entropy
    if name == "focal":
        return partial(_focal, gamma=gamma)
    raise ValueError(f"a class loss must be cross_entropy or focal, got {name!r}")


def _cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    return _mean(F.cross_entropy(logits, labels.clamp(min=0), reduction="none"), labels, weights)


def _focal(logits: Tensor, labels: Tensor, weights: Tensor | None = None, *, gamma: float) -> Tensor:
    log_share = -F.cross_entropy(logits, labels.clamp(min=0), reduction="none")
    # Of what is surely right, the power of exactly 0 would have an infinite gradient for gamma below 1.
    missing = (-torch.expm1(log_share)).clamp(min=1e-7)
    return _mean(-(missing**gamma) * log_share, labels, weights)


def _mean(losses: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """The mean over labelled rows, each counted by the weight of its class; 0 where there is none."""
    counted = (labels != IGNORED).to(losses.dtype)
    if weights is not None:
        counted = counted * weights[labels.clamp(min=0)]
    total = counted.sum()
    return (counted * losses).sum() / torch.where(total > 0, total, 1.0)


def inverse_frequency_weights(counts: Sequence[int]) -> Tensor:
    """float32 [K + 1] from the number of training boxes of each class: 1 for the background, more for rare classes.

    A class weighs (boxes of all) / (classes that occur * its boxes), so the mean over all boxes is 1; a class without
    a box weighs 1.
    """
    present = [count for count in counts if count > 0]
    total = sum(present)
    of_classes = [total / (len(present) * count) if count > 0 else 1.0 for count in counts]
    return torch.tensor([1.0, *of_classes])
