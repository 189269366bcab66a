"""RoIAlign: torchvision's pooler told its scales, and a drop-in for the CPU with the same numbers.

RoIAlign as two matrix products: its samples lie on a grid and bilinear weights are a product of one weight by row and
one by column, so for each region the result is Ay F Ax^T, with Ay [P, H] and Ax [P, W]. torchvision's backward pass on
CPU adds sample by sample on one thread and takes a third of a training step; matrix products use all cores.

R regions, C channels, H x W the feature map, P the output size.
"""

import math

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

MAX_ROWS = 64 * 7  # R P at a time: bounds the memory of the intermediate [R, P, W, C]


def use_matrix_roi_align(model: FasterRCNN) -> None:
    """Let ``model`` pool its regions by matrix products; it has no parameters, so the state dict stays the same."""
    model.roi_heads.box_roi_pool = MatrixRoIAlign(model.roi_heads.box_roi_pool)


def set_scales(pooler: nn.Module, features: dict[str, Tensor], canvas: tuple[int, int]) -> None:
    """Tell ``pooler`` the scale of each map, once; ``canvas`` is the (height, width) of the padded images.

    torchvision guesses them from the images without their padding, and doubles them when these fill half the canvas.
    """
    if pooler.scales is not None:
        return
    maps = [features[name] for name in pooler.featmap_names if name in features]
    levels = [round(math.log2(canvas[0] / level.shape[-2])) for level in maps]
    pooler.scales = [2.0**-level for level in levels]
    # Two maps may share a scale, as MobileNet's do: then the first serves all regions, as in torchvision.
    pooler.map_levels = LevelMapper(levels[0], levels[-1], pooler.canonical_scale, pooler.canonical_level)


class MatrixRoIAlign(nn.Module):
    """Pools regions from the pyramid level that fits their size, as ``pooler`` does."""

    def __init__(self, pooler: MultiScaleRoIAlign) -> None:
        super().__init__()
        self.featmap_names = pooler.featmap_names
        self.output_size = pooler.output_size
        self.sampling_ratio = pooler.sampling_ratio
        self.canonical_scale = pooler.canonical_scale
        self.canonical_level = pooler.canonical_level
        self.scales: list[float] | None = None
        self.map_levels: LevelMapper | None = None

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """float32 [R, C, P, P] for ``boxes`` (xyxy pixels, one [R_i, 4] an image) on features [B, C, H, W].

        ``image_shapes`` is not needed: see :func:`set_scales`, which must have been called.
        """
        maps = [features[name] for name in self.featmap_names if name in features]
        levels = self.map_levels(boxes)
        images = torch.cat([torch.full((len(own),), i) for i, own in enumerate(boxes)])
        regions = torch.cat(boxes).float()
        order, pooled = [], []
        with torch.autocast(regions.device.type, enabled=False):
            for level, (features_at_level, scale) in enumerate(zip(maps, self.scales, strict=True)):
                for image in range(len(boxes)):
                    rows = torch.where((levels == level) & (images == image))[0]
                    for part in rows.split(max(1, MAX_ROWS // self.output_size[0])) if len(rows) else ():
                        order.append(part)
                        pooled.append(self._pool(features_at_level[image].float(), regions[part] * scale))
        if not pooled:
            return maps[0].new_zeros((0, maps[0].shape[1], *self.output_size), dtype=torch.float32)
        result = torch.cat(pooled)[torch.argsort(torch.cat(order))]
        return result.permute(0, 3, 1, 2)

    def _pool(self, features: Tensor, regions: Tensor) -> Tensor:
        """[R, P, P, C] of one image's features [C, H, W]; regions [R, 4] in feature pixels."""
        channels, height, width = features.shape
        rows = _weights(regions[:, 1], regions[:, 3], height, self.output_size[0], self.sampling_ratio)
        columns = _weights(regions[:, 0], regions[:, 2], width, self.output_size[1], self.sampling_ratio)
        by_row = rows.flatten(0, 1) @ features.permute(1, 2, 0).reshape(height, width * channels)
        by_row = by_row.view(len(regions), -1, width, channels)
        return columns[:, None] @ by_row


def _weights(starts: Tensor, ends: Tensor, length: int, num_bins: int, num_samples: int) -> Tensor:
    """Bilinear weights [R, num_bins, length] along one axis, averaged over the samples of each bin.

    A sample at position s takes 1 - |s - i| of the pixels i on both sides; beyond one pixel outside it takes none.
    """
    sizes = (ends - starts).clamp(min=1.0)
    steps = (torch.arange(num_bins * num_samples, device=starts.device) + 0.5) / num_samples
    samples = starts[:, None] + steps * (sizes / num_bins)[:, None]
    share = ((samples >= -1) & (samples <= length)).float() / num_samples
    samples = samples.clamp(0, length - 1)
    lower = samples.floor()
    upper_weight = samples - lower
    row = torch.arange(num_bins, device=starts.device).repeat_interleave(num_samples) * length
    at_lower = lower.long() + row
    at_upper = (lower.long() + 1).clamp(max=length - 1) + row
    weights = torch.zeros(len(starts), num_bins * length, device=starts.device)
    # Few entries differ from zero: putting them in place is cheaper than computing the whole hat function.
    weights.scatter_add_(1, at_lower, (1 - upper_weight) * share)
    weights.scatter_add_(1, at_upper, upper_weight * share)
    return weights.view(len(starts), num_bins, length)
