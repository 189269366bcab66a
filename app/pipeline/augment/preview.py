"""What training will see of one image: the chain of the training loader applied to the same resized pixels.

Runs in the warm helper, which stays alive between calls: arguments and results are plain values, and the last resized
images are kept. Legend: N boxes of the image; boxes are xyxy float pixels.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.pipeline.augment.catalogue import CATALOGUE, Step
from app.pipeline.augment.chain import Augmented, Chain
from app.pipeline.data.image import encode_jpeg, read_image, resize_longest

JPEG_QUALITY = 90
CACHE_BYTES = 256 * 2**20
NUM_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, eq=False)
class Resized:
    """A resized image, uint8 [H, W, 3], as pixels and as JPEG; ``width`` and ``height`` are the original's."""

    image: np.ndarray
    jpeg: bytes
    width: int
    height: int


class ResizedCache:
    """The resized images used last, up to ``budget_bytes``; safe to use from several threads."""

    def __init__(self, budget_bytes: int = CACHE_BYTES) -> None:
        self._budget_bytes = budget_bytes
        self._images: OrderedDict[tuple[str, int, int], Resized] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: str, rotation: int, size: int) -> Resized:
        """The image with ``size`` pixels on the longer side; raises BadImage and OSError."""
        key = (path, rotation, size)
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
                return self._images[key]
        original = read_image(path, rotation)
        image, _ = resize_longest(original, size)
        entry = Resized(image, encode_jpeg(image, JPEG_QUALITY), original.shape[1], original.shape[0])
        with self._lock:
            self._images[key] = entry
            while (
                len(self._images) > 1 and sum(kept.image.nbytes for kept in self._images.values()) > self._budget_bytes
            ):
                self._images.popitem(last=False)
        return entry


_cache = ResizedCache()
_threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="preview")
_last_chain = Chain.build([])


def warm_up() -> None:
    """Run every transform once, so that the first preview does not pay for it."""
    image = np.zeros((64, 64, 3), np.uint8)
    chain = Chain.build([Step(name=name, probability=1) for name in CATALOGUE])
    chain.apply(image, np.array([[8.0, 8.0, 56.0, 56.0]]), np.array([1]), seed=0, epoch=0, image_id=0)
    encode_jpeg(image, JPEG_QUALITY)


def render(
    *,
    path: str,
    rotation: int,
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    image_id: int,
    steps: Sequence[dict[str, Any]],
    seed: int,
    count: int,
    size: int,
) -> dict[str, Any]:
    """An image and ``count`` variants of it: those that epochs 1 to ``count`` of a training with ``seed`` would see.

    boxes: N boxes of the upright original with N labels (any whole numbers). Returns ``original`` and ``variants``,
    each with ``jpeg`` (bytes), ``width``, ``height``, ``boxes`` ([M][4] in its own pixels), ``labels`` ([M]) and
    ``lost`` (N - M). Raises BadImage, OSError and ValueError.
    """
    resized = _cache.read(path, rotation, size)
    image = resized.image
    scale = np.array([image.shape[1] / resized.width, image.shape[0] / resized.height] * 2)
    resized_boxes = np.asarray(boxes, np.float64).reshape(-1, 4) * scale
    label_array = np.asarray(labels, np.int64)
    chain = _chain_of(steps)

    def variant(epoch: int) -> dict[str, Any]:
        made = chain.apply(image, resized_boxes, label_array, seed=seed, epoch=epoch, image_id=image_id)
        return _packed(made, encode_jpeg(made.image, JPEG_QUALITY))

    original = Chain.build([]).apply(image, resized_boxes, label_array, seed=seed, epoch=0, image_id=image_id)
    return {"original": _packed(original, resized.jpeg), "variants": list(_threads.map(variant, range(1, count + 1)))}


def _chain_of(steps: Sequence[dict[str, Any]]) -> Chain:
    """The chain of these steps; the last one is kept, because building its transforms takes longer than using them."""
    global _last_chain
    wanted = tuple(Step.model_validate(step) for step in steps)
    if _last_chain.steps != wanted:
        _last_chain = Chain.build(wanted)
    return _last_chain


def _packed(made: Augmented, jpeg: bytes) -> dict[str, Any]:
    return {
        "jpeg": jpeg,
        "width": made.image.shape[1],
        "height": made.image.shape[0],
        "boxes": made.boxes.round(2).tolist(),
        "labels": made.labels.tolist(),
        "lost": made.num_lost,
    }
