"""Images read once, resized once, and kept as bytes: in memory, then in files, while budgets last. Imports no torch."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import PIL
import psutil

from app.pipeline.config import RunConfig
from app.pipeline.data import image as image_module
from app.pipeline.data import resize as resize_module
from app.pipeline.data.image import BadImage, Window, read_image
from app.pipeline.data.pixel_files import PixelFiles
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

    ``window`` acts on gray images, which come with three equal channels. What fits into ``budget_bytes`` is kept in
    memory and never evicted: in shuffled epochs every image is as likely to be asked for next as any other, so
    replacing one by another gains nothing. ``files`` keep those of samples whose ``sha256`` is known between runs;
    pixels are the same to the bit wherever they come from.
    """

    def __init__(
        self,
        image_size: int,
        budget_bytes: int | None = None,
        *,
        resize: Resize = "longest",
        window: Window | None = None,
        files: PixelFiles | None = None,
    ) -> None:
        self.image_size = image_size
        self.resize = resize
        self.window = window
        self._files = files
        self._look = _look(image_size, resize, window)
        self._budget = _Budget(default_budget_bytes() if budget_bytes is None else budget_bytes)
        self._kept: dict[int, np.ndarray] = {}
        self._is_keeping = True
        self._lock = threading.Lock()

    @classmethod
    def for_config(
        cls, config: RunConfig, budget_bytes: int | None = None, folder: Path | None = None
    ) -> "ResizedImages":
        """Images as a run with ``config`` reads them, kept in ``folder`` too if given."""
        return cls(
            config.image_size,
            budget_bytes,
            resize=config.resize,
            window=Window.of(config.window_center, config.window_width),
            files=PixelFiles(folder) if folder else None,
        )

    def at_size(self, image_size: int) -> "ResizedImages":
        """The same images at another size, kept within the same budget; :meth:`forget` gives their part back."""
        other = ResizedImages(image_size, 0, resize=self.resize, window=self.window, files=self._files)
        other._budget = self._budget
        return other

    def read(self, sample: Sample) -> np.ndarray:
        """uint8 [H, W, 3] RGB, not to be written to; raises UnreadableImage."""
        image = self._kept.get(sample.image_id)
        if image is not None:
            return image
        key = f"{self._look}/{sample.sha256[:2]}/{sample.sha256}-{sample.rotation}" if sample.sha256 else ""
        image = self._files.get(key) if self._files and key else None
        if image is None:
            image = self._read_afresh(sample, key)
        self._keep(sample.image_id, image)
        return image

    def _read_afresh(self, sample: Sample, key: str) -> np.ndarray:
        with _named(sample):
            data = sample.path.read_bytes()
            image = self.prepare(read_image(data, sample.rotation, self.window))
        # A file that has changed on the disk must not stay behind under the name of what it was.
        if self._files and key and hashlib.sha256(data).hexdigest() == sample.sha256:
            self._files.put(key, image)
        return image

    def read_upright(self, sample: Sample) -> np.ndarray:
        """The image through the window, at its own size: uint8 [H, W, 3] RGB; raises UnreadableImage."""
        with _named(sample):
            return read_image(sample.path, sample.rotation, self.window)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """An upright uint8 [H, W, 3] image as the network sees it; the window has acted when it was read."""
        return resize_image(image, self.image_size, self.resize)

    def forget(self) -> None:
        """Let go of everything kept, for good: what a thread is still reading is not kept any more."""
        with self._lock:
            self._is_keeping = False
            kept, self._kept = self._kept, {}
        self._budget.give_back(sum(image.nbytes for image in kept.values()))

    def _keep(self, image_id: int, image: np.ndarray) -> None:
        with self._lock:
            if self._is_keeping and image_id not in self._kept and self._budget.take(image.nbytes):
                self._kept[image_id] = image


@contextmanager
def _named(sample: Sample) -> Iterator[None]:
    try:
        yield
    except (BadImage, OSError) as error:
        raise UnreadableImage(f"image {sample.image_id} ({sample.file_name}) cannot be read: {error}") from error


def _look(image_size: int, resize: Resize, window: Window | None) -> str:
    """A folder's name for all that makes the pixels of a file what they are, besides the file."""
    seen = f"-window{window.center!r}-{window.width!r}" if window else ""
    return f"{image_size}-{resize}{seen}-{_makers()}"


@cache
def _makers() -> str:
    """A mark of the code that makes pixels: with another version of it, what was kept is not used any more."""
    sources = [Path(module.__file__).read_bytes() for module in (image_module, resize_module)]
    versions = f"pillow {PIL.__version__}, opencv {cv2.__version__}".encode()
    return hashlib.sha256(b"\0".join([*sources, versions])).hexdigest()[:12]


def default_budget_bytes() -> int:
    """A quarter of the memory that is free now."""
    return psutil.virtual_memory().available // 4


def resized_shape(sample: Sample, image_size: int, resize: Resize = "longest") -> tuple[int, int]:
    """(height, width) that resizing gives for a sample of the size written in the snapshot."""
    return resized_size(sample.width, sample.height, image_size, resize)[::-1]
