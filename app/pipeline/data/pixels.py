"""Images read once, resized once, and kept in memory as bytes while a budget lasts. Imports no torch."""

import threading

import numpy as np
import psutil

from app.pipeline.data.image import BadImage, read_image, resize_longest
from app.pipeline.data.snapshot import Sample


class UnreadableImage(ValueError):
    """An image of the dataset that cannot be read; the message names it."""


class ResizedImages:
    """Upright images with ``image_size`` pixels on the longer side; safe to use from several threads.

    What fits into ``budget_bytes`` is kept and never evicted: in shuffled epochs every image is as likely to be asked
    for next as any other, so replacing one by another gains nothing.
    """

    def __init__(self, image_size: int, budget_bytes: int | None = None) -> None:
        self.image_size = image_size
        self._left_bytes = default_budget_bytes() if budget_bytes is None else budget_bytes
        self._kept: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def read(self, sample: Sample) -> np.ndarray:
        """uint8 [H, W, 3] RGB, not to be written to; raises UnreadableImage."""
        image = self._kept.get(sample.image_id)
        if image is not None:
            return image
        try:
            image, _ = resize_longest(read_image(sample.path, sample.rotation), self.image_size)
        except (BadImage, OSError) as error:
            raise UnreadableImage(f"image {sample.image_id} ({sample.file_name}) cannot be read: {error}") from error
        self._keep(sample.image_id, image)
        return image

    def _keep(self, image_id: int, image: np.ndarray) -> None:
        with self._lock:
            if image_id not in self._kept and image.nbytes <= self._left_bytes:
                self._kept[image_id] = image
                self._left_bytes -= image.nbytes


def default_budget_bytes() -> int:
    """A quarter of the memory that is free now."""
    return psutil.virtual_memory().available // 4


def resized_shape(sample: Sample, image_size: int) -> tuple[int, int]:
    """(height, width) that ``resize_longest`` gives for a sample of the size written in the snapshot."""
    scale = image_size / max(sample.width, sample.height)
    return max(1, round(sample.height * scale)), max(1, round(sample.width * scale))
