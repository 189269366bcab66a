"""Images read once, resized once, and kept in memory as bytes while a budget lasts. Imports no torch."""

import threading

import numpy as np
import psutil

from app.pipeline.config import RunConfig
from app.pipeline.data.image import BadImage, Window, read_image
from app.pipeline.data.resize import Resize, resize_image, resized_size
from app.pipeline.data.snapshot import Sample


class UnreadableImage(ValueError):
    """An image of the dataset that cannot be read; the message names it."""


class _Budget:
    """Bytes that may still be kept, shared by the caches of several sizes; safe to use from several threads."""

    def __init__(self, num_bytes: int) -> None:
        self._left = num_bytes
        self._lock = threading.Lock()

    def take(self, num_bytes: int) -> bool:
        with self._lock:
            if num_bytes > self._left:
                return False
            self._left -= num_bytes
            return True

    def give_back(self, num_bytes: int) -> None:
        with self._lock:
            self._left += num_bytes


class ResizedImages:
    """Upright images at the size and in the mode the network sees; safe to use from several threads.

    ``window`` acts on gray images, which come with three equal channels. What fits into ``budget_bytes`` is kept and
    never evicted: in shuffled epochs every image is as likely to be asked for next as any other, so replacing one by
    another gains nothing.
    """

    def __init__(
        self,
        image_size: int,
        budget_bytes: int | None = None,
        *,
        resize: Resize = "longest",
        window: Window | None = None,
    ) -> None:
        self.image_size = image_size
        self.resize = resize
        self.window = window
        self._budget = _Budget(default_budget_bytes() if budget_bytes is None else budget_bytes)
        self._kept: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    @classmethod
    def for_config(cls, config: RunConfig, budget_bytes: int | None = None) -> "ResizedImages":
        """Images as a run with ``config`` reads them."""
        return cls(
            config.image_size,
            budget_bytes,
            resize=config.resize,
            window=Window.of(config.window_center, config.window_width),
        )

    def at_size(self, image_size: int) -> "ResizedImages":
        """The same images at another size, kept within the same budget; :meth:`forget` gives their part back."""
        other = ResizedImages(image_size, 0, resize=self.resize, window=self.window)
        other._budget = self._budget
        return other

    def read(self, sample: Sample) -> np.ndarray:
        """uint8 [H, W, 3] RGB, not to be written to; raises UnreadableImage."""
        image = self._kept.get(sample.image_id)
        if image is not None:
            return image
        image = self.prepare(self.read_upright(sample))
        self._keep(sample.image_id, image)
        return image

    def read_upright(self, sample: Sample) -> np.ndarray:
        """The image through the window, at its own size: uint8 [H, W, 3] RGB; raises UnreadableImage."""
        try:
            return read_image(sample.path, sample.rotation, self.window)
        except (BadImage, OSError) as error:
            raise UnreadableImage(f"image {sample.image_id} ({sample.file_name}) cannot be read: {error}") from error

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """An upright uint8 [H, W, 3] image as the network sees it; the window has acted when it was read."""
        return resize_image(image, self.image_size, self.resize)

    def forget(self) -> None:
        """Let go of everything kept."""
        with self._lock:
            kept, self._kept = self._kept, {}
        self._budget.give_back(sum(image.nbytes for image in kept.values()))

    def _keep(self, image_id: int, image: np.ndarray) -> None:
        with self._lock:
            if image_id not in self._kept and self._budget.take(image.nbytes):
                self._kept[image_id] = image


def default_budget_bytes() -> int:
    """A quarter of the memory that is free now."""
    return psutil.virtual_memory().available // 4


def resized_shape(sample: Sample, image_size: int, resize: Resize = "longest") -> tuple[int, int]:
    """(height, width) that resizing gives for a sample of the size written in the snapshot."""
    return resized_size(sample.width, sample.height, image_size, resize)[::-1]
