"""The largest batch that fits: real steps on the most crowded image at the largest size, then predictions.

On a processor the machine is never driven into its swap: every next step is made only when those before it tell that
there is room. On a GPU running out is harmless, and is caught. Legend: bytes are those of the whole process.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from app.pipeline.config import RunConfig
from app.pipeline.data.pixels import ResizedImages, UnreadableImage
from app.pipeline.data.resize import STRIDE, canvas_for, resized_size
from app.pipeline.data.snapshot import Sample, Snapshot
from app.pipeline.models.catalogue import find_detector
from app.pipeline.predict import images_at_once
from app.pipeline.preflight.memory import PeakMemory, room_bytes
from app.pipeline.preflight.verdict import Fix, Verdict, smaller_models, trouble, working_fix
from app.pipeline.train.loader import DatasetError, Item, boxes_in_resized_frame, make_batch
from app.pipeline.train.loop import train_step
from app.pipeline.train.run import Run

logger = logging.getLogger(__name__)

SAFE_SHARE = 0.7  # of the room: a quarter may go to images that are kept in memory
LARGEST_BATCH = 256
SEARCH_S = 10.0  # for batches above the run's own, which only a GPU tries
SLOW_BATCH_S = 10.0  # a batch that takes longer is estimated from smaller ones


@dataclass(frozen=True, slots=True)
class BatchFit:
    """Bytes that the run's batch needs and may use, the largest batch that fits (0: none), and whether it was run.

    A batch that would take too long is not run; its need is extrapolated. ``image_s``: seconds an image of a step;
    ``side_px``: the longer side of what the network sees.
    """

    need: int
    room: int
    largest: int
    was_run: bool
    image_s: float = 0.0
    side_px: int = 0


class BatchTrial:
    """Steps of a run, and predictions, with growing batches; each at the padded size that all images fit into.

    ``num_sharing``: processes of the run that the memory is for.
    """

    def __init__(self, run: Run, snapshot: Snapshot, num_sharing: int = 1) -> None:
        self._run = run
        self._num_sharing = num_sharing
        self._image_s = 0.0  # of the last step
        train = snapshot.split("train")
        self._canvas = canvas_for([(one.width, one.height) for one in train], run.config.image_size, run.config.resize)
        self._item = _most_crowded(train, len(snapshot.categories), run.config)
        self._largest_valid = max(
            snapshot.split("valid") or (self._item.sample,), key=lambda sample: _resized_area(sample, run.config)
        )

    def fit(self) -> BatchFit:
        """Find the largest batch that fits."""
        is_cuda = self._run.machine.device.type == "cuda"
        fit = self._fit_on_gpu() if is_cuda else self._fit_on_host()
        return replace(fit, image_s=self._image_s, side_px=max(self._canvas))

    def _fit_on_host(self) -> BatchFit:
        wanted, room = self._run.config.batch_size, room_bytes(self._run.machine) // self._num_sharing
        limit = int(room * SAFE_SHARE)
        with PeakMemory(self._run.machine) as idle:
            pass
        small = self._peak(1, is_half=True)
        need_of_one = idle.num_bytes + 4 * (small - idle.num_bytes)
        if need_of_one > limit:
            return BatchFit(need_of_one + (wanted - 1) * 4 * (small - idle.num_bytes), room, 0, False)
        peaks = {1: self._peak(1)}
        for batch_size in sorted({2, wanted} - {1}):
            is_slow = self._image_s * batch_size > SLOW_BATCH_S
            if is_slow or _extrapolate(idle.num_bytes, peaks, batch_size) > limit:
                break
            peaks[batch_size] = self._peak(batch_size)
        if wanted in peaks:
            peaks[wanted] = max(peaks[wanted], self._peak_of_predicting(wanted))
        need = peaks.get(wanted) or _extrapolate(idle.num_bytes, peaks, wanted)
        largest = max(size for size in range(1, LARGEST_BATCH + 1) if _fits(idle.num_bytes, peaks, size, limit))
        return BatchFit(need, room, largest, wanted in peaks)

    def _fit_on_gpu(self) -> BatchFit:
        wanted, room = self._run.config.batch_size, room_bytes(self._run.machine)
        began, peaks = time.monotonic(), {}
        for batch_size in sorted({1, wanted, *(1 << power for power in range(1, 9))}):
            if batch_size > wanted and time.monotonic() - began > SEARCH_S:
                break
            try:
                peaks[batch_size] = max(self._peak(batch_size), self._peak_of_predicting(batch_size))
            except torch.OutOfMemoryError as error:
                logger.info("a batch of %d does not fit: %s", batch_size, error)
                self._run.learner.undo_step()
                torch.cuda.empty_cache()
                break
        need = peaks.get(wanted) or (_extrapolate(0, peaks, wanted) if peaks else room + 1)
        return BatchFit(need, room, max(peaks, default=0), wanted in peaks)

    def _peak(self, batch_size: int, is_half: bool = False) -> int:
        """Bytes at the peak of a step; at half the size along both sides when ``is_half``."""
        item, canvas = self._item, self._canvas
        if is_half:
            item = Item(item.image[::2, ::2], item.boxes / 2, item.labels, item.sample)
            canvas = tuple(-(-side // 2 // STRIDE) * STRIDE for side in canvas)
        began = time.perf_counter()
        with PeakMemory(self._run.machine) as memory:
            train_step(self._run, [make_batch([item] * batch_size, canvas)], 1)
        self._image_s = (time.perf_counter() - began) / batch_size
        return memory.num_bytes

    def _peak_of_predicting(self, batch_size: int) -> int:
        detector, num_images = self._run.detector, images_at_once(batch_size)
        own, detector.batch_size = detector.batch_size, num_images
        try:
            with PeakMemory(self._run.machine) as memory:
                for _ in detector.predict_samples([self._largest_valid] * num_images):
                    pass
        finally:
            detector.batch_size = own
        return memory.num_bytes


def _extrapolate(idle: int, peaks: dict[int, int], batch_size: int) -> int:
    """Bytes of a batch, on the straight line through the smallest and the largest one known (or what is idle)."""
    first, last = min(peaks), max(peaks)
    low, start = (idle, 0) if first == last else (peaks[first], first)
    slope = max(1, (peaks[last] - low) // (last - start))
    return peaks[last] + slope * (batch_size - last)


def _fits(idle: int, peaks: dict[int, int], batch_size: int, limit: int) -> bool:
    return batch_size == 1 or _extrapolate(idle, peaks, batch_size) <= limit


def _most_crowded(samples: tuple[Sample, ...], num_categories: int, config: RunConfig) -> Item:
    """The readable training image with the most boxes, as the network sees it. Raises DatasetError without one."""
    images = ResizedImages.for_config(config, budget_bytes=0)
    for sample in sorted(samples, key=lambda one: -len(one.boxes)):
        try:
            image = images.read(sample)
        except UnreadableImage as error:
            logger.warning("%s", error)
            continue
        boxes, labels = boxes_in_resized_frame(sample, image.shape[:2], num_categories)
        return Item(image, boxes.astype("float32"), labels, sample)
    raise DatasetError("no image of the train split can be read: check the disk, or import the dataset again")


def _resized_area(sample: Sample, config: RunConfig) -> int:
    width, height = resized_size(sample.width, sample.height, config.image_size, config.resize)
    return width * height


def judge_fit(fit: BatchFit, config: RunConfig, num_sharing: int = 1) -> Verdict:
    """What the measurement means for the run, and what fits in place of what does not."""
    wanted = f"{config.batch_size} images" if config.batch_size > 1 else "one image"
    takes = "takes" if fit.was_run else "would take about"
    text = f"A batch of {wanted} {takes} {_gigabytes(fit.need)} of {_gigabytes(fit.room)}"
    text += f" (what each of {num_sharing} processes has)" if num_sharing > 1 else ""
    if fit.need <= SAFE_SHARE * fit.room:
        return Verdict("memory", "green", f"{text} to train and predict; {_words_for(fit.largest)}.")
    fix = _smaller_batch(fit, config) or _smaller_images(fit, config) or next(_fixes_of_models(config), {})
    if fit.was_run and fit.need <= 0.9 * fit.room:
        return trouble("memory", "amber", f"{text}: little is left for other programs.", fix, "check_again")
    if not fit.largest:
        text += " at least: not even one image fits at this size."
    else:
        text += f", which is too much; {_words_for(fit.largest)}."
    if not fix:
        text += " Close other programs."
    return trouble("memory", "red", text, fix, "check_again")


def _smaller_batch(fit: BatchFit, config: RunConfig) -> Fix:
    """A batch that fits, or half of one that hardly does, accumulated to about as many images a step as before."""
    size = fit.largest if fit.largest < config.batch_size else config.batch_size // 2
    if size < 1:
        return {}
    ranks = max(1, config.processes)
    batches = -(-config.batch_size * config.accumulate_batches // (size * ranks)) * ranks
    return working_fix(config, batch_size=size, accumulate_batches=min(256 // ranks * ranks, batches))


def _smaller_images(fit: BatchFit, config: RunConfig) -> Fix:
    """Images of which one fits, by the pixels; those that are not resized are from then on."""
    resize = "longest" if config.resize == "as_is" else config.resize
    side = fit.side_px if config.resize == "as_is" else config.image_size
    wanted = int(side * min(0.95, 0.9 * (SAFE_SHARE * fit.room / fit.need) ** 0.5)) // STRIDE * STRIDE
    size = min(2048, max(64, wanted))
    return working_fix(config, image_size=size, resize=resize, progressive_sizes=()) if size < side else {}


def _fixes_of_models(config: RunConfig) -> Iterator[Fix]:
    """Models of fewer than three quarters of the parameters."""
    own = find_detector(config.model)
    return (fix for fix, _ in smaller_models(config, 0.75 * own.num_parameters)) if own else iter(())


def _words_for(largest: int) -> str:
    if largest >= LARGEST_BATCH:
        return f"{LARGEST_BATCH} and more fit"
    return f"about {largest} fit" if largest > 1 else "only one fits"


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
