"""What training will see of one image: the chain of the training loader applied to the same resized pixels.

Runs in the warm helper, which stays alive between calls: arguments and results are plain values, and the last resized
images are kept. Legend: N boxes of the image, T images to mix in; boxes are xyxy float pixels.
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.pipeline.augment.catalogue import CATALOGUE, Step
from app.pipeline.augment.chain import Augmented, Chain
from app.pipeline.augment.mixing import Partner, Partners
from app.pipeline.data.image import BadImage, Window, encode_jpeg, read_image
from app.pipeline.data.resize import Resize, resize_image

JPEG_QUALITY = 90
CACHE_BYTES = 256 * 2**20
NUM_THREADS = min(4, os.cpu_count() or 1)
PACE_S = 0.05  # spent on measuring how fast the chain is
NUM_MEASURED_WITH = 3
PACE_FIRST_EPOCH = 1_000_000  # other dice than those shown, so that rare steps count as often as they happen


@dataclass(frozen=True, eq=False)
class Resized:
    """A resized image, uint8 [H, W, 3]; ``width`` and ``height`` are the original's."""

    image: np.ndarray
    width: int
    height: int

    def to_resized(self, boxes: Any) -> np.ndarray:  # noqa: ANN401 - whatever makes an array
        """Boxes [N, 4] of the original as float64 pixels of the resized image."""
        scale = [self.image.shape[1] / self.width, self.image.shape[0] / self.height] * 2
        return np.asarray(boxes, np.float64).reshape(-1, 4) * np.array(scale)


@dataclass(frozen=True, slots=True)
class View:
    """How images are brought to the size of training: see ``data.resize`` and ``data.image.Window``."""

    size: int
    resize: Resize = "longest"
    window: Window | None = None


class ResizedCache:
    """The resized images used last, up to ``budget_bytes``; safe to use from several threads."""

    def __init__(self, budget_bytes: int = CACHE_BYTES) -> None:
        self._budget_bytes = budget_bytes
        self._images: OrderedDict[tuple[str, int, View], Resized] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: str, rotation: int, view: View) -> Resized:
        """The image as ``view`` says; raises BadImage and OSError."""
        key = (path, rotation, view)
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
                return self._images[key]
        original = read_image(path, rotation, view.window)
        image = resize_image(original, view.size, view.resize)
        entry = Resized(image, original.shape[1], original.shape[0])
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
    boxes, labels = np.array([[8.0, 8.0, 56.0, 56.0]]), np.array([1])
    partners = Partners(1, lambda index: Partner(image, boxes, labels))
    chain = Chain.build([Step(name=name, probability=1) for name in CATALOGUE])
    chain.apply(image, boxes, labels, seed=0, epoch=0, image_id=0, partners=partners)
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
    resize: Resize = "longest",
    window: tuple[float, float] = (0.0, 0.0),
    partners: Sequence[tuple[str, int, np.ndarray, np.ndarray]] = (),
    first_epoch: int = 1,
    strong_shares: Sequence[float] = (),
) -> dict[str, Any]:
    """An image and ``count`` variants of it: those that ``count`` epochs of a training with ``seed`` would see.

    boxes: N boxes of the upright original with N labels (any whole numbers). ``window``: center and width.
    ``partners``: path, rotation, boxes [K, 4] and labels [K] of the T images of the train split, in the order of the
    database. The epochs begin with ``first_epoch``; ``strong_shares`` (``count`` of them, or none: 1 each) scale the
    probabilities of the strong steps in them.

    Returns ``original`` and ``variants``, each with ``jpeg`` (bytes), ``width``, ``height``, ``boxes`` ([M][4] in its
    own pixels), ``labels`` ([M]), ``lost`` (how many of the N are gone) and ``epoch``; and ``images_per_s``, what one
    core augments of this image. Raises BadImage, OSError and ValueError.
    """
    view = View(size, resize, Window.of(*window))
    resized = _cache.read(path, rotation, view)
    original_boxes, label_array = resized.to_resized(boxes), np.asarray(labels, np.int64)
    chain = _chain_of(steps)
    read: list[Partner] = []

    def read_partner(index: int) -> Partner | None:
        partner = _partner(partners[index], view)
        if partner is not None:
            read.append(partner)
        return partner

    def apply(epoch: int, strong_share: float, mates: Partners) -> Augmented:
        return chain.apply(
            resized.image,
            original_boxes,
            label_array,
            seed=seed,
            epoch=epoch,
            image_id=image_id,
            partners=mates,
            strong_share=strong_share,
        )

    def variant(number: int) -> dict[str, Any]:
        share = strong_shares[number] if strong_shares else 1.0
        made = apply(first_epoch + number, share, Partners(len(partners), read_partner))
        return _packed(made, first_epoch + number)

    original = Chain.build([]).apply(resized.image, original_boxes, label_array, seed=seed, epoch=0, image_id=image_id)
    variants = list(_threads.map(variant, range(count)))
    for index in range(0 if read else min(NUM_MEASURED_WITH, len(partners))):
        read_partner(index)  # where the dice mixed none in, to know what mixing costs
    in_memory = Partners(len(read), read.__getitem__)
    pace = _measure_pace(lambda epoch: apply(epoch, 1.0, in_memory))
    return {"original": _packed(original, 0), "variants": variants, "images_per_s": pace}


def _partner(listed: tuple[str, int, np.ndarray, np.ndarray], view: View) -> Partner | None:
    """An image to mix in, as the training loader makes it; None when it cannot be read."""
    path, rotation, boxes, labels = listed
    try:
        resized = _cache.read(path, rotation, view)
    except (BadImage, OSError):
        return None
    height, width = resized.image.shape[:2]
    fitted = resized.to_resized(boxes).clip(0, [width, height] * 2)
    has_area = (fitted[:, 2:] > fitted[:, :2]).all(axis=1)
    return Partner(resized.image, fitted[has_area], np.asarray(labels, np.int64)[has_area])


def _measure_pace(apply: Callable[[int], Augmented]) -> float:
    """Images a second that one core augments; ``apply`` is given the number of an epoch.

    Counted in processor time, so that what else the machine does makes no difference.
    """
    began, began_busy, num_applied = time.perf_counter(), time.process_time(), 0
    while num_applied == 0 or time.perf_counter() - began < PACE_S:
        apply(PACE_FIRST_EPOCH + num_applied)
        num_applied += 1
    busy_s = time.process_time() - began_busy  # on Windows its ticks are 16 ms: it may not have moved
    return num_applied / (busy_s or time.perf_counter() - began)


def _chain_of(steps: Sequence[dict[str, Any]]) -> Chain:
    """The chain of these steps; the last one is kept, because building its transforms takes longer than using them."""
    global _last_chain
    wanted = tuple(Step.model_validate(step) for step in steps)
    if _last_chain.steps != wanted:
        _last_chain = Chain.build(wanted)
    return _last_chain


def _packed(made: Augmented, epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "jpeg": encode_jpeg(made.image, JPEG_QUALITY),
        "width": made.image.shape[1],
        "height": made.image.shape[0],
        "boxes": made.boxes.round(2).tolist(),
        "labels": made.labels.tolist(),
        "lost": made.num_lost,
    }
