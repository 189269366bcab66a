"""Boxes as offsets from other boxes: torchvision's numbers, for any leading dimensions and without constants to send.

torchvision makes tensors of its weights at every call, and each is a transfer that a GPU waits for.
"""

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder


class BatchedBoxCoder(BoxCoder):
    """torchvision's box coder (Girshick et al., https://arxiv.org/abs/1311.2524, appendix C)."""

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        """Offsets [..., 4] that lead from ``proposals`` to ``reference_boxes``, both [..., 4] xyxy."""
        x, y, width, height = _center_and_size(proposals)
        to_x, to_y, to_width, to_height = _center_and_size(reference_boxes)
        weights = self.weights
        return torch.stack(
            [
                weights[0] * (to_x - x) / width,
                weights[1] * (to_y - y) / height,
                weights[2] * torch.log(to_width / width),
                weights[3] * torch.log(to_height / height),
            ],
            dim=-1,
        )

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Boxes [..., 4 K] that offsets ``rel_codes`` [..., 4 K] lead to from ``boxes`` [..., 4]."""
        x, y, width, height = (part[..., None] for part in _center_and_size(boxes.to(rel_codes.dtype)))
        dx, dy, dw, dh = (rel_codes[..., axis::4] / self.weights[axis] for axis in range(4))
        center_x, center_y = dx * width + x, dy * height + y
        half_width = 0.5 * (torch.exp(dw.clamp(max=self.bbox_xform_clip)) * width)
        half_height = 0.5 * (torch.exp(dh.clamp(max=self.bbox_xform_clip)) * height)
        sides = (center_x - half_width, center_y - half_height, center_x + half_width, center_y + half_height)
        return torch.stack(sides, dim=-1).flatten(-2)


def _center_and_size(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height
