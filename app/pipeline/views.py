"""Test-time augmentation: the views in which an image is predicted. Merging them: ``predict``. Imports no torch."""

from dataclasses import dataclass

import numpy as np

from app.pipeline.config import TestTimeAugmentation
from app.pipeline.data.resize import STRIDE, Resize, resize_image
from app.pipeline.types import Detections

SCALES = (0.75, 1.0, 1.25)


@dataclass(frozen=True, slots=True)
class View:
    """How an image is looked at: ``scale`` times the size that the detector learned at, mirrored left-right or not."""

    scale: float = 1.0
    is_flipped: bool = False


_VIEWS: dict[TestTimeAugmentation, tuple[View, ...]] = {
    "off": (View(),),
    "flip": (View(), View(is_flipped=True)),
    "flip_scales": tuple(View(scale, is_flipped) for scale in SCALES for is_flipped in (False, True)),
}


def views_of(augmentation: TestTimeAugmentation) -> tuple[View, ...]:
    """The views of a test-time augmentation; that of "off" is the image as the detector learned it."""
    return _VIEWS[augmentation]


def relative_cost(augmentation: TestTimeAugmentation) -> float:
    """How many times the pixels of one view a detector looks at."""
    return sum(view.scale**2 for view in views_of(augmentation))


def show(image: np.ndarray, view: View, image_size: int, resize: Resize) -> np.ndarray:
    """An upright uint8 [H, W, 3] image resized as ``view`` wants it; scaled image sizes are multiples of the stride."""
    if view.scale == 1:
        seen = resize_image(image, image_size, resize)
    elif resize == "as_is":
        seen = resize_image(image, round(max(image.shape[:2]) * view.scale), "longest")
    else:
        seen = resize_image(image, max(STRIDE, round(image_size * view.scale / STRIDE) * STRIDE), resize)
    return np.ascontiguousarray(seen[:, ::-1]) if view.is_flipped else seen


def unflip(found: Detections, width: int) -> Detections:
    """Detections in a mirrored image of ``width`` px as they lie in the image itself."""
    boxes = found.boxes.copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return Detections(boxes, found.scores, found.labels)
