"""What the first stage of a trained detector does with one image: its proposals, and the anchors nearest to its boxes.

Runs in the warm helper, which keeps the detector used last: arguments and results are plain values. It computes on the
CPU, so that a training keeps its GPU. Legend: N labelled boxes, A anchors, P proposals.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from app.pipeline.data.pixels import ResizedImages
from app.pipeline.data.snapshot import Sample
from app.pipeline.models.forward import propose
from app.pipeline.predict import Detector, load_detector
from app.pipeline.train.loader import make_batch_of_images


def look_at(checkpoint_path: str, sample: Sample) -> dict[str, np.ndarray]:
    """The proposals that the box head gets of an image, and the best anchor of each labelled box.

    ``proposals`` float32 [P, 4], the surest first, with their objectness ``scores`` [P] in 0..1; ``anchors`` float32
    [N, 4] with their ``anchor_ious`` [N]. Boxes are xyxy pixels of the upright original, which anchors may leave. IoUs
    are those of the resized image, where the model learns. Raises CheckpointError, UnreadableImage, OSError.
    """
    path = Path(checkpoint_path)
    detector = _load(path, path.stat().st_mtime_ns)
    image = ResizedImages.for_config(detector.config, budget_bytes=0).read(sample)
    batch = make_batch_of_images([image], detector.config.resize)
    found, anchors = propose(detector.model.eval(), batch, detector.machine)
    height, width = batch.sizes[0]
    to_original = np.array([sample.width / width, sample.height / height] * 2)
    is_kept = found.is_kept[0]
    frame = np.array([sample.width, sample.height] * 2)
    rows, ious = _best_anchors(torch.from_numpy(sample.boxes / to_original), anchors.double())
    return {
        "proposals": (found.boxes[0, is_kept].numpy() * to_original).clip(0, frame).astype(np.float32),
        "scores": found.scores[0, is_kept].float().numpy(),
        "anchors": (anchors[rows].numpy() * to_original).astype(np.float32),
        "anchor_ious": ious.numpy(),
    }


@lru_cache(maxsize=1)
def _load(path: Path, modified_ns: int) -> Detector:
    """The detector of a file as it was at that time."""
    return load_detector(path, "cpu")


def _best_anchors(boxes: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """int64 [N], float64 [N]: the anchor of the highest IoU with each box. Box by box: there are 200,000 anchors."""
    found = [box_iou(box[None], anchors)[0].max(dim=0) for box in boxes]
    rows = torch.tensor([int(one.indices) for one in found], dtype=torch.int64)
    return rows, torch.tensor([float(one.values) for one in found], dtype=torch.float64)
