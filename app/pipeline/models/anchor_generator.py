"""Anchors for torchvision's detectors, from the shapes that a config describes.

They are set when the detector is built: cell anchors that are changed afterwards leave an RPN head with another number
of outputs, or, where torchvision keeps its own copies, have no effect at all.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from app.pipeline.anchors import Shapes, level_shapes
from app.pipeline.config import RunConfig

MAX_SIZES = 16  # sizes of batches whose anchors are kept: a megabyte each at 512 pixels


class ShapedAnchorGenerator(AnchorGenerator):
    """torchvision's anchors, from any shapes: ``shapes`` has (width, height) [A, 2] for each level, the finest first.

    It has no state, so that state dicts stay torchvision's. Raises ValueError unless all levels have as many shapes.
    """

    def __init__(self, shapes: Shapes) -> None:
        counts = [len(of_level) for of_level in shapes]
        if len(set(counts)) != 1 or not counts[0]:
            raise ValueError(f"every level must have the same number of anchor shapes, one or more; got {counts}")
        sides = [torch.as_tensor(of_level, dtype=torch.float32, device="cpu") for of_level in shapes]
        sizes = tuple(tuple(of_level.prod(1).sqrt().tolist()) for of_level in sides)  # for the number of anchors
        super().__init__(sizes, aspect_ratios=((1.0,),) * len(sides))
        self.cell_anchors = [torch.cat([-of_level, of_level], dim=1) / 2 for of_level in sides]
        self._made: OrderedDict[tuple, Tensor] = OrderedDict()

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Anchors of each image, float32 [sum of H_l W_l A, 4], xyxy pixels of the padded image: not to be written to.

        They are the same for all images, and for the next batch of that size.
        """
        canvas, device = tuple(image_list.tensors.shape[-2:]), feature_maps[0].device
        grids = tuple(tuple(level.shape[-2:]) for level in feature_maps)
        key = (canvas, grids, device)
        anchors = self._made.pop(key, None)
        if anchors is None:
            with torch.inference_mode(False):  # training may go on with what a prediction made
                anchors = self._make(canvas, grids).to(device)
        self._made[key] = anchors
        if len(self._made) > MAX_SIZES:
            self._made.popitem(last=False)
        return [anchors] * len(image_list.image_sizes)

    def _make(self, canvas: tuple[int, int], grids: Sequence[tuple[int, int]]) -> Tensor:
        """All anchors on a canvas (height, width) for grids of so many (rows, columns), on the CPU.

        float32 even in mixed precision, where torchvision takes the dtype of the features: bfloat16 has 8 bits, and
        places beyond 256 pixels would then be multiples of 2, beyond 512 of 4.
        """
        self.set_cell_anchors(torch.float32, torch.device("cpu"))
        strides = [[torch.tensor(canvas[axis] // grid[axis]) for axis in (0, 1)] for grid in grids]
        return torch.cat(self.grid_anchors(grids, strides))


def build_anchor_generator(config: RunConfig, strides: Sequence[int]) -> ShapedAnchorGenerator:
    """The anchors of a detector whose feature maps have ``strides``; KMeans shapes must be in the config already."""
    return ShapedAnchorGenerator(level_shapes(config, strides))
