"""RoIAlign as sums of weighted pixels: torchvision's numbers from one lookup for all images and levels.

Each bin of a region is the mean of a few samples, each sample a bilinear mix of four pixels: a bin is the weighted sum
of 16 rows of a table that holds one row of C channels for each pixel of all maps. `embedding_bag` computes such sums on
all cores, forward and backward. torchvision's RoIAlign runs on one core, and asks a GPU for the number of regions of
each level. 1,024 regions of two images of 512 pixels, forward and backward on two cores: 1,090 ms by torchvision, 1,020
with a thread for each image, 1,320 by products of matrices, 110 so.

R regions, C channels, P the output size, T the pixels of all maps of all images.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper


class BagRoIAlign(nn.Module):
    """Pools regions from the pyramid level that fits their size, as ``pooler`` does; no parameters."""

    def __init__(self, pooler: MultiScaleRoIAlign) -> None:
        super().__init__()
        self.featmap_names = pooler.featmap_names
        self.output_size = pooler.output_size
        self.sampling_ratio = pooler.sampling_ratio
        self.canonical_scale = pooler.canonical_scale
        self.canonical_level = pooler.canonical_level

    def forward(self, features: dict[str, Tensor], boxes: Tensor, images: Tensor, canvas: tuple[int, int]) -> Tensor:
        """[R, C, P, P] in the dtype of the features, for ``boxes`` [R, 4] (xyxy pixels) on maps [B, C, H, W].

        images: int64 [R], the row of the batch that each region is of. ``canvas``: (height, width) of the padded
        images. torchvision guesses the scales of the maps from the images without their padding, and doubles them when
        these fill half the canvas.
        """
        maps = [features[name] for name in self.featmap_names if name in features]
        channels = maps[0].shape[1]
        rows, weights = self._weighted_pixels(maps, boxes.float(), images, canvas)
        with torch.autocast(boxes.device.type, enabled=False):
            table = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, channels) for level in maps]).float()
            pooled = F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")
        pooled = pooled.to(maps[0].dtype).view(len(boxes), *self.output_size, channels)
        return pooled.permute(0, 3, 1, 2)

    @torch.no_grad()
    def _weighted_pixels(
        self, maps: Sequence[Tensor], boxes: Tensor, images: Tensor, canvas: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Rows of the table and their weights [R P P, samples and corners] of each bin: int64 and float32."""
        layout = _lay_out(tuple(tuple(level.shape) for level in maps), canvas, boxes.device)
        # Two maps may share a scale, as MobileNet's do: then the first serves all regions, as in torchvision.
        mapper = LevelMapper(layout.finest, layout.coarsest, self.canonical_scale, self.canonical_level)
        levels = mapper([boxes])
        height, width, first = (part[levels] for part in (layout.heights, layout.widths, layout.firsts))
        boxes = boxes * layout.scales[levels][:, None]
        size, num = self.output_size, self.sampling_ratio
        y, y_weights = _taps(boxes[:, 1], boxes[:, 3], height, size[0], num)
        x, x_weights = _taps(boxes[:, 0], boxes[:, 2], width, size[1], num)
        lines = (first + images * height * width)[:, None, None] + y * width[:, None, None]
        rows = lines[:, :, None, :, None] + x[:, None, :, None, :]
        weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :]
        num_pixels = y.shape[2] * x.shape[2]
        return rows.reshape(-1, num_pixels), weights.reshape(-1, num_pixels)


class _Layout(NamedTuple):
    """Where the maps lie in the table: of each level [L] its rows and columns, its first pixel, and its scale."""

    heights: Tensor
    widths: Tensor
    firsts: Tensor
    scales: Tensor
    finest: int
    coarsest: int


@lru_cache(maxsize=64)
def _lay_out(shapes: tuple[tuple[int, ...], ...], canvas: tuple[int, int], device: torch.device) -> _Layout:
    """The layout of maps [B, C, H, W] of these shapes; kept, so that a GPU gets it once."""
    exponents = [round(math.log2(canvas[0] / shape[2])) for shape in shapes]
    counts = [shape[0] * shape[2] * shape[3] for shape in shapes]
    with torch.inference_mode(False):
        heights, widths, firsts = (
            torch.tensor(values, device=device)
            for values in (
                [shape[2] for shape in shapes],
                [shape[3] for shape in shapes],
                [sum(counts[:level]) for level in range(len(counts))],
            )
        )
        scales = torch.tensor([2.0**-exponent for exponent in exponents], device=device)
    return _Layout(heights, widths, firsts, scales, exponents[0], exponents[-1])


def _taps(starts: Tensor, ends: Tensor, lengths: Tensor, num_bins: int, num_samples: int) -> tuple[Tensor, Tensor]:
    """Pixels along one axis that each bin takes, and their weights: [R, num_bins, 2 num_samples].

    A sample at position s takes 1 - |s - i| of the pixels i on both sides; beyond one pixel outside it takes none.
    """
    sizes = (ends - starts).clamp(min=1.0)
    steps = (torch.arange(num_bins * num_samples, device=starts.device) + 0.5) / num_samples
    samples = starts[:, None] + steps * (sizes / num_bins)[:, None]
    lengths = lengths[:, None]
    share = ((samples >= -1) & (samples <= lengths)) / num_samples
    samples = torch.minimum(samples.clamp(min=0), lengths - 1.0)
    lower = samples.floor()
    upper_weight = samples - lower
    pixels = torch.stack([lower.long(), torch.minimum(lower.long() + 1, lengths - 1)], dim=-1)
    weights = torch.stack([(1 - upper_weight) * share, upper_weight * share], dim=-1)
    shape = (len(starts), num_bins, 2 * num_samples)
    return pixels.view(shape), weights.view(shape)
