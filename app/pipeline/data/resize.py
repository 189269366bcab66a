"""From an upright image to the size the network sees, by one of four modes. Imports no torch.

Boxes follow by plain scaling: nothing is put left of or above the image. Padding (to the square of ``letterbox``, to
the stride otherwise) lies right and below, so it moves no box; torchvision pads the same way.
"""

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from app.pipeline.data.image import resize_longest

Resize = Literal["longest", "letterbox", "stretch", "as_is"]
STRIDE = 32  # the coarsest level of the backbone: padded sides are its multiples


def resized_size(width: int, height: int, image_size: int, resize: Resize = "longest") -> tuple[int, int]:
    """(width, height) in pixels, without padding, of an image of ``width`` x ``height`` after resizing."""
    if resize == "as_is":
        return width, height
    if resize == "stretch":
        return image_size, image_size
    scale = image_size / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize_image(image: np.ndarray, image_size: int, resize: Resize = "longest") -> np.ndarray:
    """uint8 [H, W, C] at its :func:`resized_size`; may be ``image`` itself. Area averaging when it shrinks."""
    if resize in ("longest", "letterbox"):
        return resize_longest(image, image_size)[0]
    height, width = image.shape[:2]
    target = resized_size(width, height, image_size, resize)
    if target == (width, height):
        return image
    is_smaller = target[0] * target[1] < width * height
    return cv2.resize(image, target, interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR)


def canvas_for(sizes: Sequence[tuple[int, int]], image_size: int, resize: Resize = "longest") -> tuple[int, int]:
    """(height, width) of the padded batch that holds images of ``sizes`` ((width, height), not yet resized).

    The square of ``image_size`` for letterbox and stretch, else the smallest multiples of the stride.
    """
    if resize in ("letterbox", "stretch"):
        side = _padded(image_size)
        return side, side
    resized = [resized_size(width, height, image_size, resize) for width, height in sizes]
    return _padded(max(height for _, height in resized)), _padded(max(width for width, _ in resized))


def image_size_at(epoch: int, num_epochs: int, image_size: int, progressive_sizes: Sequence[int] = ()) -> int:
    """The image size of an epoch (1..num_epochs): the sizes in order, each for an equal part of the epochs.

    Where they do not divide evenly, parts differ by one epoch. Without sizes, ``image_size`` throughout.
    """
    if not progressive_sizes:
        return image_size
    return progressive_sizes[min(len(progressive_sizes) - 1, (epoch - 1) * len(progressive_sizes) // num_epochs)]


def _padded(side: int) -> int:
    return -(-side // STRIDE) * STRIDE
