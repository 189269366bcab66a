"""Batches for training: read, augmented and checked in threads, in an order that follows from the seed.

N boxes of an image, xyxy pixels of the resized image; labels 1..K.
"""

import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch

from app.pipeline.augment.chain import Chain
from app.pipeline.augment.curve import strong_share
from app.pipeline.augment.mixing import Partner, Partners
from app.pipeline.config import RunConfig
from app.pipeline.data.pixels import ResizedImages, UnreadableImage
from app.pipeline.data.resize import STRIDE, Resize, canvas_for, image_size_at
from app.pipeline.data.sampler import Sampler
from app.pipeline.data.snapshot import Sample
from app.pipeline.faults import is_short_of_resources
from app.pipeline.models.forward import Batch
from app.pipeline.train.ranks import Ranks
from app.pipeline.train.unreadable import DatasetError, UnreadableImages
from app.pipeline.train.workers import BLOCKED_AFTER_S, Workers
from app.pipeline.types import RunContext

NUM_AHEAD = 3  # batches that are ready or in the making


@dataclass(frozen=True, eq=False)
class Item:
    """A prepared image: uint8 [H, W, 3], boxes float32 [N, 4] within it, labels int64 [N]."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    sample: Sample


class TrainLoader:
    """The training images, batch by batch. Images whose boxes all vanish stay, as images without objects.

    Which images an epoch has follows from the sampling options (see :class:`Sampler`), their size from
    ``progressive_sizes``. Threads prepare NUM_AHEAD batches, past the end of an epoch too: the next one begins while
    this one is judged. They end with the ``with`` block around the loader. Order and pixels are the same for any number
    of threads. With ``is_pinned`` pixels lie in pinned memory, for a GPU. Of several ``ranks`` each prepares its share
    of the batches of every step. ``unreadable`` counts the images that are skipped. Raises DatasetError when nothing is
    left to train on.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        num_categories: int,
        config: RunConfig,
        images: ResizedImages,
        context: RunContext,
        is_pinned: bool = False,
        ranks: Ranks | None = None,
        unreadable: UnreadableImages | None = None,
    ) -> None:
        self._ranks = ranks or Ranks()
        self._samples = samples
        self._sampler = Sampler([sample.labels for sample in self._samples], config)
        if not len(self._sampler):
            raise DatasetError("there are no images to train on: put some into the train split")
        self._sizes = sorted({(samples[index].width, samples[index].height) for index in self._sampler.images})
        self._num_categories = num_categories
        self._config = config
        self._images = self._stage_images = images
        self._chain = Chain.build(config.augmentation)
        self._context = context
        self._is_pinned = is_pinned
        self._unreadable = unreadable or UnreadableImages(len(self._sampler.images), context)
        self._num_threads = config.num_workers or min(4, torch.get_num_threads())
        self._workers: Workers | None = None
        self._ahead: deque[_Coming] = deque()
        self._coming: Iterator[_Coming] = iter(())
        self.num_taken = 0

    def __enter__(self) -> "TrainLoader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._workers is not None:
            self._workers.close(wait=not isinstance(error, TimeoutError))  # blocked threads never come back
            self._workers = None
            self._ahead.clear()

    @property
    def batches_per_epoch(self) -> int:
        """The same for every epoch, also where rare images are repeated."""
        return -(-len(self._sampler) // self._config.batch_size)

    def epoch(self, number: int, first_batch: int = 0) -> Iterator[Batch]:
        """The images of an epoch in an order made of (seed, epoch); the next batches are prepared meanwhile.

        The first ``first_batch`` batches are left out. ``num_taken`` tells how many of the epoch are behind, those
        included; a batch whose images all cannot be read counts and is not given.
        """
        yield from (batch for batch in self._taken(number, first_batch) if batch is not None)

    def steps(self, number: int, first_batch: int = 0) -> Iterator[list[Batch | None]]:
        """As :meth:`epoch`, by optimizer steps: the batches of this rank in each, None for one that cannot be read."""
        size, rank, count = self._config.accumulate_batches, self._ranks.rank, self._ranks.count
        taken = self._taken(number, first_batch)
        for first in range(first_batch, self.batches_per_epoch, size):
            end = min(first + size, self.batches_per_epoch)
            step = [next(taken) for _ in range(first + rank, end, count)]
            self.num_taken = end
            yield step

    def _taken(self, number: int, first_batch: int) -> Iterator[Batch | None]:
        """The batches of this rank one by one."""
        self.num_taken = first_batch
        self._begin_at(number, first_batch)
        while self._ahead and self._ahead[0].epoch == number:
            batch = self._wait_for(self._ahead[0])
            self.num_taken = self._ahead.popleft().index + 1
            self._fill_up()
            yield batch

    def _wait_for(self, coming: "_Coming") -> Batch | None:
        """A batch; where preparing it failed for want of resources, made again by fewer threads."""
        while True:
            try:
                return coming.batch.result(BLOCKED_AFTER_S)
            except Exception as error:
                failure = error
            self.give_way(failure)  # not in the clause: errors to come would be taken for consequences of this one
            del failure
            coming = self._ahead[0]

    def give_way(self, error: Exception) -> None:
        """Go on with fewer threads after ``error``, here or elsewhere; raises it when that would be no help."""
        self._start_workers().shrink(error)
        if self._ahead:
            self._begin_again_at(self._ahead[0].epoch, self._ahead[0].index)

    def _begin_at(self, epoch: int, first_batch: int) -> None:
        """Prepare from a batch of an epoch on; what is prepared already stays if it begins there."""
        if self._ahead:
            head, index = self._ahead[0], next(self._own_batches(first_batch), None)
            if (head.epoch, head.index) == (epoch, index) or (index is None and head.epoch == epoch + 1):
                return
        self._begin_again_at(epoch, first_batch)

    def _start_workers(self) -> Workers:
        """The threads, started where there are none."""
        if self._workers is None:
            may_shrink = self._config.fewer_workers_when_reading_fails
            self._workers = Workers(self._num_threads, self._context, may_shrink)
            weakref.finalize(self, self._workers.close, wait=False)  # of one that nobody left by ``with``
        return self._workers

    def _begin_again_at(self, epoch: int, first_batch: int) -> None:
        self._num_threads = self._start_workers().num
        for coming in self._ahead:
            coming.cancel()
        self._ahead.clear()
        self._coming = self._all_from(epoch, first_batch)
        self._fill_up()

    def _own_batches(self, first: int) -> Iterator[int]:
        """The batches of an epoch, from ``first`` on, that this rank takes: those of a step go round."""
        for index in range(first, self.batches_per_epoch):
            if index % self._config.accumulate_batches % self._ranks.count == self._ranks.rank:
                yield index

    def _fill_up(self) -> None:
        while len(self._ahead) < NUM_AHEAD and (coming := next(self._coming, None)) is not None:
            self._ahead.append(coming)

    def _all_from(self, epoch: int, first_batch: int) -> "Iterator[_Coming]":
        """Start to prepare one batch after the other, up to the end of the run."""
        size = self._config.batch_size
        for number in range(epoch, max(epoch, self._config.epochs) + 1):
            order, images = self._sampler.order(number), self._images_of(number)
            canvas = self._canvas(images.image_size)
            for index in self._own_batches(first_batch if number == epoch else 0):
                samples = [self._samples[at] for at in order[index * size : (index + 1) * size]]
                items = [self._workers.submit(self._prepare, sample, number, images) for sample in samples]
                # Behind its images in the queue: when its turn comes, others are at work on the last of them.
                yield _Coming(number, index, items, self._workers.submit(self._put_together, items, canvas))

    def _put_together(self, items: "list[Future[Item | None]]", canvas: tuple[int, int]) -> Batch | None:
        readable = [item for item in (future.result() for future in items) if item is not None]
        items.clear()  # the batch is a copy: it need not lie in memory twice
        return make_batch(readable, canvas, self._is_pinned) if readable else None

    def _images_of(self, epoch: int) -> ResizedImages:
        """The images at the size of this epoch; those of the size before are let go of."""
        config = self._config
        size = image_size_at(epoch, config.epochs, config.image_size, config.progressive_sizes)
        if size != self._stage_images.image_size:
            if self._stage_images is not self._images:
                self._stage_images.forget()
            is_last = size == self._images.image_size
            self._stage_images = self._images if is_last else self._images.at_size(size)
        return self._stage_images

    def _canvas(self, image_size: int) -> tuple[int, int]:
        return canvas_for(self._sizes, image_size, self._config.resize)

    def _prepare(self, sample: Sample, epoch: int, images: ResizedImages) -> Item | None:
        """An augmented image with its boxes; None for an image that cannot be read."""
        try:
            image = self._read(sample, images)
            return None if image is None else self._augment(sample, image, epoch, images)
        except Exception as error:  # whatever it is, the image that it happened on must be known
            error.add_note(f"This happened while image {sample.image_id} ({sample.file_name}) was prepared.")
            raise

    def _augment(self, sample: Sample, image: np.ndarray, epoch: int, images: ResizedImages) -> Item:
        config = self._config
        boxes, labels = boxes_in_resized_frame(sample, image.shape[:2], self._num_categories)
        made = self._chain.apply(
            image,
            boxes,
            labels,
            seed=config.seed,
            epoch=epoch,
            image_id=sample.image_id,
            partners=Partners(len(self._samples), lambda index: self._partner(index, images)),
            strong_share=strong_share(epoch, config.epochs, config.augmentation_curve, config.augmentation_off_epochs),
        )
        return _checked_item(made.image, made.boxes, made.labels, sample)

    def _read(self, sample: Sample, images: ResizedImages) -> np.ndarray | None:
        try:
            return images.read(sample)
        except UnreadableImage as error:
            if is_short_of_resources(error):
                raise  # nothing is wrong with the image
            self._unreadable.note(sample, str(error))
            return None

    def _partner(self, index: int, images: ResizedImages) -> Partner | None:
        """A training image for a step that mixes images; None when it cannot be read."""
        sample = self._samples[index]
        image = self._read(sample, images)
        if image is None:
            return None
        return Partner(image, *boxes_in_resized_frame(sample, image.shape[:2], self._num_categories))


@dataclass(frozen=True, eq=False)
class _Coming:
    """A batch in the making: its place in the run, its images, and itself."""

    epoch: int
    index: int
    items: list[Future[Item | None]]
    batch: Future[Batch | None]

    def cancel(self) -> None:
        for future in (*self.items, self.batch):
            future.cancel()


def boxes_in_resized_frame(
    sample: Sample, shape: tuple[int, int], num_categories: int
) -> tuple[np.ndarray, np.ndarray]:
    """A sample's boxes scaled to an image of ``shape`` (height, width), clipped, with their labels; without crowds.

    Raises DatasetError naming the image: torchvision would train on wrong labels without a word, and an infinite
    coordinate ends the process.
    """
    where = f"image {sample.image_id} ({sample.file_name})"
    if not len(sample.boxes) == len(sample.labels) == len(sample.is_crowd):
        raise DatasetError(f"{where} has {len(sample.boxes)} boxes but {len(sample.labels)} labels")
    boxes, labels = sample.boxes[~sample.is_crowd], sample.labels[~sample.is_crowd]
    if not np.isfinite(boxes).all():
        raise DatasetError(f"{where} has a box whose coordinates are not finite")
    if len(labels) and (labels.min() < 1 or labels.max() > num_categories):
        wrong = labels.min() if labels.min() < 1 else labels.max()
        raise DatasetError(f"{where} has label {wrong}; labels must be 1..{num_categories}")
    height, width = shape
    boxes = boxes * np.array([width / sample.width, height / sample.height] * 2)
    boxes = boxes.clip(0, [width, height] * 2)
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return boxes[has_area], labels[has_area]


def _checked_item(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, sample: Sample) -> Item:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    labels = np.asarray(labels, np.int64).reshape(-1)
    if len(boxes) != len(labels):
        raise DatasetError(
            f"image {sample.image_id} ({sample.file_name}): augmentation gave {len(boxes)} boxes, {len(labels)} labels"
        )
    # In float32 a box can lose its last bit of width, and one that is not finite would end the process.
    keep = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return Item(image, boxes[keep], labels[keep], sample)


def make_batch(items: Sequence[Item], canvas: tuple[int, int], is_pinned: bool = False) -> Batch:
    """A training batch on a ``canvas`` (height, width)."""
    pixels, sizes = _side_by_side([item.image for item in items], canvas, is_pinned)
    return Batch(
        pixels=pixels,
        sizes=sizes,
        targets=[{"boxes": torch.from_numpy(item.boxes), "labels": torch.from_numpy(item.labels)} for item in items],
        names=[item.sample.file_name for item in items],
    )


def make_batch_of_images(images: Sequence[np.ndarray], resize: Resize = "longest") -> Batch:
    """A batch to predict on, from uint8 [H, W, 3] images that came out of ``resize``."""
    side = max(max(image.shape[:2]) for image in images) if resize == "letterbox" else 0
    pixels, sizes = _side_by_side(images, (side, side))
    return Batch(pixels, sizes)


def _side_by_side(
    images: Sequence[np.ndarray], canvas: tuple[int, int], is_pinned: bool = False
) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """uint8 [B, H, W, 3], H and W multiples of the stride that hold every image and ``canvas``; and each one's size."""
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    height, width = (max(canvas[axis], *(-(-size[axis] // STRIDE) * STRIDE for size in sizes)) for axis in (0, 1))
    pixels = torch.zeros((len(images), height, width, 3), dtype=torch.uint8, pin_memory=is_pinned)
    for row, image in zip(pixels.numpy(), images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    return pixels, sizes
