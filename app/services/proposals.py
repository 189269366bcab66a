"""What a checkpoint's first stage proposes on one image, and which labelled boxes its proposals and anchors reach."""

from pathlib import Path
from typing import Any

import numpy as np

from app.errors import BadRequest, NotFound
from app.jobs.helper import shared_helper
from app.pipeline.data.snapshot import Sample
from app.pipeline.evaluate.matching import box_ious
from app.records import Checkpoint
from app.services import review, truths
from app.services.context import Services
from app.services.lru_cache import LruCache
from app.store import runs

LOOK = "app.pipeline.first_stage:look_at"
COVERS_IOU = 0.5
MAX_TOP = 300
HELPER_TIMEOUT_S = 180.0  # the first call loads the weights: seconds, minutes on a busy machine
_looks = LruCache(16)


def propose(
    services: Services, slug: str, run_id: int, checkpoint_id: int, image_id: int, top: int = 50
) -> dict[str, Any]:
    """The surest ``top`` proposals of a checkpoint on an image of its run, and the labelled boxes they cover.

    ``proposals``: box (xyxy pixels of the upright original), score (objectness) and iou (the best with a labelled
    box) of each, the surest first, after the RPN's own NMS. ``num_proposals``: how many the box head gets in all.
    ``objects``, one for each labelled box but crowds, in the run's frozen dataset: truth (its place there), box,
    label, iou (the best with those shown), iou_all (with all), anchor (the box of its best anchor) and anchor_iou.
    ``covered`` and ``covered_all`` count those with an IoU of .5 or more. Raises NotFound (the image, the checkpoint or
    its file is gone), BadRequest, HelperFailed.
    """
    if not 1 <= top <= MAX_TOP:
        raise BadRequest(f"1 to {MAX_TOP} proposals can be shown, got {top}.")
    checkpoint, path = _find_weights(services, slug, run_id, checkpoint_id)
    sample = _find_sample(services, slug, run_id, image_id)
    key = (path, checkpoint.sha256, image_id, sample.sha256)
    look = _looks.get(key, lambda: _look(path, checkpoint, sample))
    rows = np.flatnonzero(~sample.is_crowd)
    ious = _ious(sample.boxes[rows], look["proposals"])
    best, best_of_all = ious[:, :top].max(axis=1, initial=0), ious.max(axis=1, initial=0)
    objects = [
        {
            "truth": row,
            "box": sample.boxes[row].tolist(),
            "label": int(sample.labels[row]),
            "iou": float(best[number]),
            "iou_all": float(best_of_all[number]),
            "anchor": look["anchors"][row].tolist(),
            "anchor_iou": float(look["anchor_ious"][row]),
        }
        for number, row in enumerate(rows.tolist())
    ]
    columns = (look["proposals"], look["scores"], ious.max(axis=0, initial=0))
    shown = zip(*(column[:top].tolist() for column in columns), strict=True)
    return {
        "proposals": [{"box": box, "score": score, "iou": iou} for box, score, iou in shown],
        "num_proposals": len(look["proposals"]),
        "objects": objects,
        "covered": int((best >= COVERS_IOU).sum()),
        "covered_all": int((best_of_all >= COVERS_IOU).sum()),
    }


def _find_weights(services: Services, slug: str, run_id: int, checkpoint_id: int) -> tuple[Checkpoint, Path]:
    checkpoint = runs.get_checkpoint(services.database(slug), checkpoint_id)
    if checkpoint.run_id != run_id:
        raise NotFound(f"Checkpoint {checkpoint_id} is one of run {checkpoint.run_id}, not of run {run_id}.")
    path = services.files(slug).run(run_id) / checkpoint.file_name
    if not path.is_file():
        name = review.checkpoint_name(checkpoint)
        raise NotFound(
            f"The weights of {name} are gone ({path.name} in the folder of run {run_id}).",
            "Its stored predictions can still be looked at; for proposals choose another checkpoint.",
        )
    return checkpoint, path


def _find_sample(services: Services, slug: str, run_id: int, image_id: int) -> Sample:
    sample = truths.load_truth(services, slug, run_id).samples.find(image_id)
    if sample is None:
        raise NotFound(f"Run {run_id} knows no image {image_id}.", "It was added after the run had started.")
    if not sample.path.is_file():
        raise NotFound(
            f"{sample.file_name} was deleted since the run started, so nothing can be proposed on it.",
            "Choose another image.",
        )
    return sample


def _look(path: Path, checkpoint: Checkpoint, sample: Sample) -> dict[str, np.ndarray]:
    try:
        return shared_helper().call(LOOK, timeout_s=HELPER_TIMEOUT_S, checkpoint_path=str(path), sample=sample)
    except (ValueError, OSError, RuntimeError) as error:
        raise BadRequest(
            f"{review.checkpoint_name(checkpoint)} cannot look at {sample.file_name}: {error}",
            "Choose another checkpoint or image; the app's log says more.",
        ) from error


def _ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """float64 [N, P] of boxes [N, 4] and others [P, 4]."""
    first = np.repeat(boxes, len(others), axis=0)
    second = np.tile(others.astype(np.float64), (len(boxes), 1))
    return box_ious(first, second, np.zeros(len(first), bool)).reshape(len(boxes), len(others))
