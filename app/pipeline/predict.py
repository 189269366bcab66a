"""A trained detector at work: checkpoint in, detections in pixels of the upright original images out."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.ops import batched_nms

from app.pipeline.config import RunConfig, TestTimeAugmentation
from app.pipeline.data.categories import CategoryMap
from app.pipeline.data.image import read_image
from app.pipeline.data.pixels import ResizedImages, UnreadableImage
from app.pipeline.data.snapshot import Sample
from app.pipeline.faults import is_short_of_resources
from app.pipeline.machine import Machine, choose_machine
from app.pipeline.models.build import build_model
from app.pipeline.models.forward import Batch, detect, place_model
from app.pipeline.train.checkpoint import load_checkpoint
from app.pipeline.train.loader import make_batch_of_images
from app.pipeline.types import Detections, Log, PredictionTime, Progress, RunContext
from app.pipeline.views import View, show, unflip, views_of

MAX_BATCH = 8


def images_at_once(batch_size: int) -> int:
    """How many images are predicted together by a model that learns from ``batch_size``: each takes less memory."""
    return min(2 * batch_size, MAX_BATCH)


class Detector:
    """A model with its classes. Nothing is cut off by score; detections come highest score first."""

    def __init__(self, model: FasterRCNN, categories: CategoryMap, config: RunConfig, machine: Machine) -> None:
        self.model = model
        self.categories = categories
        self.config = config
        self.machine = machine
        self.batch_size = images_at_once(config.batch_size)
        self._images = ResizedImages.for_config(config, budget_bytes=0)
        self._batches: list[tuple[float, int]] = []  # seconds and images of each, of the last predict_samples

    @property
    def took(self) -> PredictionTime | None:
        """What an image of the last :meth:`predict_samples` took; None before there was one.

        The first batch, which warms up, counts only where there is no other.
        """
        batches = self._batches[1:] or self._batches
        if not batches:
            return None
        seconds, count = (sum(column) for column in zip(*batches, strict=True))
        return PredictionTime(1000 * seconds / count, self.machine.describe())

    def predict_samples(
        self,
        samples: Sequence[Sample],
        context: RunContext | None = None,
        images: ResizedImages | None = None,
        augmentation: TestTimeAugmentation = "off",
        skip: Callable[[Sample, str], None] | None = None,
    ) -> Iterator[tuple[int, Detections]]:
        """Yield (image id, detections) of each readable sample, in order.

        ``images`` keeps what was read, for predicting again; it serves views as learned, not those of an
        ``augmentation``. Emits Progress; an image that cannot be read is left out and told to ``skip`` or the log. Ends
        early when asked to stop. Raises UnreadableImage when the machine is short of files or memory to read it.
        """
        context = context or RunContext()
        skip = skip or (lambda _, reason: context.emit(Log(f"Skipped: {reason}", "warning")))
        images = images or self._images
        read = images.read if augmentation == "off" else images.read_upright
        self._batches = []
        for start in range(0, len(samples), self.batch_size):
            if context.should_stop():
                return
            group = _read_all(samples[start : start + self.batch_size], read, skip)
            found = self._detect_timed(group, augmentation) if group else []
            yield from ((sample.image_id, one) for (sample, _), one in zip(group, found, strict=True))
            context.emit(Progress(min(start + self.batch_size, len(samples)), len(samples), "predicting"))

    def read(self, source: bytes | Path) -> np.ndarray:
        """A picture as this detector learned to see it: upright uint8 [H, W, 3] RGB through its window.

        Raises BadImage and OSError.
        """
        return read_image(source, window=self._images.window)

    def predict_image(self, image: np.ndarray, augmentation: TestTimeAugmentation = "off") -> Detections:
        """Detections of one upright image, uint8 [H, W, 3] RGB, in its pixels."""
        return self._detect_views([image], [(image.shape[1], image.shape[0])], augmentation)[0]

    def _detect_timed(
        self, group: list[tuple[Sample, np.ndarray]], augmentation: TestTimeAugmentation
    ) -> list[Detections]:
        """Detections of a batch as it was read; the time until they are in memory is noted."""
        pixels, sizes = [image for _, image in group], [(sample.width, sample.height) for sample, _ in group]
        began = time.perf_counter()
        if augmentation == "off":
            found = self._detect(pixels, sizes)
        else:
            found = self._detect_views(pixels, sizes, augmentation)
        self._batches.append((time.perf_counter() - began, len(group)))
        return found

    def _detect_views(
        self, images: list[np.ndarray], sizes: list[tuple[int, int]], augmentation: TestTimeAugmentation
    ) -> list[Detections]:
        """Detections of upright images of ``sizes`` (width, height), merged from all views."""
        found = [self._detect_view(images, sizes, view) for view in views_of(augmentation)]
        if len(found) == 1:
            return found[0]
        heads = self.model.roi_heads
        return [merge(each, heads.nms_thresh, heads.detections_per_img) for each in zip(*found, strict=True)]

    def _detect_view(self, images: list[np.ndarray], sizes: list[tuple[int, int]], view: View) -> list[Detections]:
        seen = [show(image, view, self.config.image_size, self.config.resize) for image in images]
        found = self._detect(seen, sizes)
        if not view.is_flipped:
            return found
        return [unflip(one, width) for one, (width, _) in zip(found, sizes, strict=True)]

    def _detect(self, images: list[np.ndarray], originals: list[tuple[int, int]]) -> list[Detections]:
        """Detections of resized images, brought back to their ``originals`` (width, height)."""
        batch: Batch = make_batch_of_images(images, self.config.resize)
        was_training = self.model.training
        self.model.eval()
        try:
            found = detect(self.model, batch, self.machine)
        finally:
            self.model.train(was_training)
        return [
            _to_original(one, size, original) for one, size, original in zip(found, batch.sizes, originals, strict=True)
        ]


def load_detector(checkpoint_path: Path, device: str = "auto") -> Detector:
    """The detector of a checkpoint, ready to predict.

    Raises CheckpointError for a file that is none, MachineError for a device that is not there.
    """
    checkpoint = load_checkpoint(Path(checkpoint_path))
    machine = choose_machine(device, "auto")
    model = build_model(checkpoint.config, len(checkpoint.categories))
    model.load_state_dict(checkpoint.tensors)
    return Detector(place_model(model, machine), checkpoint.categories, checkpoint.config, machine)


def merge(views: Sequence[Detections], nms_threshold: float, max_detections: int) -> Detections:
    """One list out of the views' detections of an image: per class, of boxes overlapping more the surest stays.

    As Detectron2's ``GeneralizedRCNNWithTTA``: NMS of each class at the detector's own threshold, the best of the
    boxes up to its own cap.
    """
    boxes = np.concatenate([found.boxes for found in views])
    scores = np.concatenate([found.scores for found in views])
    labels = np.concatenate([found.labels for found in views])
    keep = batched_nms(
        torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels.astype(np.int64)), nms_threshold
    )
    return Detections(boxes, scores, labels).select(keep[:max_detections].numpy())


def _read_all(
    samples: Sequence[Sample], read: Callable[[Sample], np.ndarray], skip: Callable[[Sample, str], None]
) -> list[tuple[Sample, np.ndarray]]:
    group = []
    for sample in samples:
        try:
            group.append((sample, read(sample)))
        except UnreadableImage as error:
            if is_short_of_resources(error):
                raise  # nothing is wrong with the image
            skip(sample, str(error))
    return group


def _to_original(found: dict[str, Tensor], size: tuple[int, int], original: tuple[int, int]) -> Detections:
    """Detections in a resized image of ``size`` (height, width) to pixels of the ``original`` (width, height).

    Each side has its own scale (see ``data.resize``); padding lies right and below and moves nothing.
    """
    height, width = size
    boxes = found["boxes"].float().cpu().numpy()
    boxes = boxes * np.array([original[0] / width, original[1] / height] * 2, np.float32)
    boxes = boxes.clip(0, np.array([*original, *original], np.float32))
    return Detections(boxes, found["scores"].float().cpu().numpy(), found["labels"].cpu().numpy())
