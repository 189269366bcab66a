"""The catalogue's entries as Albumentations transforms, with some of them mended for boxes and small images.

Legend: N boxes, H holes. Albumentations hands boxes on as [N, 4 + extra], xyxy as shares of width and height; extra
columns travel untouched. Holes are [H, 4] xyxy whole pixels.
"""

import os
from collections.abc import Callable
from typing import Any

# Its import asks the package index for a newer version unless told not to; nothing here may leave the machine.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A  # noqa: E402
import cv2  # noqa: E402
import numpy as np  # noqa: E402
from albumentations.core.transforms_interface import BaseTransformInitSchema  # noqa: E402

from app.pipeline.augment.visibility import hide_boxes  # noqa: E402

MIN_CROP_PX = 8

Strengths = dict[str, float]
Transform = A.BasicTransform | A.OneOf


class _ExactBoxes:
    """Mixin for dropouts: boxes by :func:`hide_boxes`."""

    def apply_to_bboxes(self, bboxes: np.ndarray, holes: np.ndarray, **params: Any) -> np.ndarray:
        height, width = params["shape"][:2]
        scale = np.array([width, height, width, height], bboxes.dtype)
        pixels = bboxes.copy()
        pixels[:, :4] *= scale
        pixels = hide_boxes(pixels, holes.reshape(-1, 4).astype(int), width, height)
        pixels[:, :4] /= scale
        return pixels


class CoarseDropout(_ExactBoxes, A.CoarseDropout):
    """Albumentations' CoarseDropout with exact boxes."""


class XYMasking(_ExactBoxes, A.XYMasking):
    """Albumentations' XYMasking with exact boxes and stripe widths given as a share of the side.

    The original takes pixels and raises on images smaller than the widest stripe.
    """

    class InitSchema(BaseTransformInitSchema):
        num_masks: int
        max_share: float

    def __init__(self, num_masks: int, max_share: float, p: float = 0.5) -> None:
        super().__init__((1, num_masks), (1, num_masks), mask_x_length=1, mask_y_length=1, p=p)
        self.num_masks = num_masks
        self.max_share = max_share

    def _validate_mask_length(self, mask_length: Any, dimension_size: int, dimension_name: str) -> None:
        """Nothing to check: the lengths follow from the image."""

    def _generate_masks(
        self, num_masks: tuple[int, int], image_shape: tuple[int, int], max_length: Any, axis: str
    ) -> list[tuple[int, int, int, int]]:
        side = image_shape[1] if axis == "x" else image_shape[0]
        longest = max(1, int(side * self.max_share))
        return super()._generate_masks(num_masks, image_shape, (max(1, longest // 4), longest), axis)


class BBoxSafeRandomCrop(A.BBoxSafeRandomCrop):
    """Albumentations' BBoxSafeRandomCrop, enlarged back to the size it came with.

    The original rounds the far edges down, which cuts a pixel off the boxes, and can ask for an empty crop.
    """

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = params["shape"][:2]
        x1, y1, x2, y2 = super().get_params_dependent_on_data(params, data)["crop_coords"]
        x1, x2 = _widen(x1, x2, width)
        y1, y2 = _widen(y1, y2, height)
        return {"crop_coords": (x1, y1, x2, y2)}

    def apply(self, img: np.ndarray, crop_coords: tuple[int, int, int, int], **params: Any) -> np.ndarray:
        height, width = img.shape[:2]
        return cv2.resize(super().apply(img, crop_coords, **params), (width, height), interpolation=cv2.INTER_LINEAR)


class ToGray(A.ToGray):
    """Albumentations' ToGray (weighted average), which loses a side that is one pixel long."""

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        gray = cv2.cvtColor(img, cv2.COLOR_RGB2GRAY).reshape(img.shape[:2])
        return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)


def _widen(low: int, high: int, side: int) -> tuple[int, int]:
    """The range low..high+1, at least MIN_CROP_PX long where the side allows, inside 0..side."""
    high = min(high + 1, side)
    missing = max(0, min(MIN_CROP_PX, side) - (high - low))
    low = max(0, low - missing // 2)
    high = min(side, max(high, low + min(MIN_CROP_PX, side)))
    return max(0, min(low, high - min(MIN_CROP_PX, side))), high


def _symmetric(limit: float) -> tuple[float, float]:
    return (-limit, limit)


def _motion_blur(kernel: float) -> Transform:
    return A.MotionBlur(blur_limit=(3, int(kernel) | 1), p=1)


def _gaussian_blur(sigma: float) -> Transform:
    return A.GaussianBlur(blur_limit=0, sigma_limit=(0.5, sigma), p=1)


# Probabilities are the chain's business: it calls a transform only when its step fires.
BUILDERS: dict[str, Callable[[Strengths], Transform]] = {
    "HorizontalFlip": lambda s: A.HorizontalFlip(),
    "VerticalFlip": lambda s: A.VerticalFlip(),
    "Rotate": lambda s: A.Rotate(limit=_symmetric(s["limit"])),
    "BBoxSafeRandomCrop": lambda s: BBoxSafeRandomCrop(erosion_rate=s["erosion_rate"]),
    "RandomBrightnessContrast": lambda s: A.RandomBrightnessContrast(
        brightness_limit=_symmetric(s["brightness"]), contrast_limit=_symmetric(s["contrast"])
    ),
    "HueSaturationValue": lambda s: A.HueSaturationValue(
        hue_shift_limit=_symmetric(s["hue"]),
        sat_shift_limit=_symmetric(s["saturation"]),
        val_shift_limit=_symmetric(s["value"]),
    ),
    "RGBShift": lambda s: A.RGBShift(*[_symmetric(s["shift"])] * 3),
    "CLAHE": lambda s: A.CLAHE(clip_limit=(1, s["clip_limit"]), tile_grid_size=(int(s["tiles"]),) * 2),
    "ToGray": lambda s: ToGray(),
    "ChannelShuffle": lambda s: A.ChannelShuffle(),
    "ChannelDropout": lambda s: A.ChannelDropout(channel_drop_range=(1, int(s["channels"]))),
    "RandomSnow": lambda s: A.RandomSnow(brightness_coeff=s["brightness"], snow_point_range=(0.1, s["snow_point"])),
    "RandomGravel": lambda s: A.RandomGravel(number_of_patches=int(s["patches"])),
    "MotionBlur": lambda s: _motion_blur(s["kernel"]),
    "GaussianBlur": lambda s: _gaussian_blur(s["sigma"]),
    "OneOfBlurs": lambda s: A.OneOf([_motion_blur(s["kernel"]), _gaussian_blur(s["sigma"])]),
    "CoarseDropout": lambda s: CoarseDropout(
        num_holes_range=(1, int(s["holes"])),
        hole_height_range=(s["size"] / 4, s["size"]),
        hole_width_range=(s["size"] / 4, s["size"]),
    ),
    "XYMasking": lambda s: XYMasking(num_masks=int(s["masks"]), max_share=s["size"]),
}
