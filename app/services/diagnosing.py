"""What goes wrong in a stored set: the price of each kind of error, which class is taken for which, and where."""

from typing import Any

import numpy as np

from app.errors import BadRequest
from app.pipeline.evaluate.columns import position_in_image
from app.pipeline.evaluate.confusion import ConfusionMatrix, confuse
from app.pipeline.evaluate.error_budget import ADVICE, KINDS, spend_errors
from app.services import review
from app.services.context import Services
from app.services.stored_sets import StoredSet, load_set

MAX_PAGE = 500


def diagnose(
    services: Services, slug: str, set_id: int, score_threshold: float | None = None, iou_threshold: float = 0.5
) -> dict[str, Any]:
    """``error_budget`` and ``confusion`` of a set; the confusion at the score of the best F1 unless one is given."""
    stored = load_set(services, slug, set_id)
    return {
        "error_budget": spend_errors(stored.truth, stored.detections).to_json(),
        "confusion": _confuse(services, slug, stored, score_threshold, iou_threshold).to_json(),
    }


def list_errors(
    services: Services, slug: str, set_id: int, kind: str, after: int = 0, limit: int = 50
) -> dict[str, Any]:
    """A page of the errors of one kind, the surest first, those of missed boxes image by image.

    Each has image_id, file_name, box (xyxy pixels), label, detection and truth (places among the image's detections
    and labelled boxes, None without) and score (None for a missed box).
    """
    if kind not in KINDS:
        raise BadRequest(f"A kind of error is one of {', '.join(KINDS)}; got {kind!r}.")
    _check_page(after, limit)
    stored = load_set(services, slug, set_id)
    budget = spend_errors(stored.truth, stored.detections)
    if kind == "missed":
        rows, concerns = np.full(len(budget.missed), -1), budget.missed
    else:
        rows = np.flatnonzero(budget.kind_of == KINDS.index(kind))
        rows = rows[np.argsort(-stored.detections.scores[rows], kind="stable")]
        concerns = budget.concerns[rows]
    end = min(after + limit, len(rows))
    return {
        "kind": kind,
        "advice": ADVICE[kind],
        "errors": describe_pairs(stored, rows[after:end], concerns[after:end]),
        "total": len(rows),
        "next": end if end < len(rows) else None,
    }


def list_confused(
    services: Services,
    slug: str,
    set_id: int,
    truth_label: int,
    predicted_label: int,
    *,
    score_threshold: float | None = None,
    iou_threshold: float = 0.5,
    after: int = 0,
    limit: int = 50,
) -> dict[str, Any]:
    """A page of the pairs in one cell of the confusion matrix; label 0 is the background. Raises BadRequest."""
    _check_page(after, limit)
    stored = load_set(services, slug, set_id)
    num_classes = len(stored.truth.categories)
    if not 0 <= truth_label <= num_classes or not 0 <= predicted_label <= num_classes:
        raise BadRequest(f"Labels are 0 (background) to {num_classes}; got {truth_label} and {predicted_label}.")
    matrix = _confuse(services, slug, stored, score_threshold, iou_threshold)
    truth_rows, rows = matrix.cell(truth_label, predicted_label)
    end = min(after + limit, len(rows))
    return {
        "pairs": describe_pairs(stored, rows[after:end], truth_rows[after:end]),
        "total": len(rows),
        "next": end if end < len(rows) else None,
    }


def describe_pairs(stored: StoredSet, rows: np.ndarray, truth_rows: np.ndarray) -> list[dict[str, Any]]:
    """Detections and labelled boxes (rows, -1 for none of it) as a screen opens them; see :func:`list_errors`."""
    truth, detections = stored.truth, stored.detections
    detection_place, truth_place = position_in_image(detections.image_index), position_in_image(truth.image_index)
    entries = []
    for row, truth_row in zip(rows.tolist(), truth_rows.tolist(), strict=True):
        source, at = (detections, row) if row >= 0 else (truth, truth_row)
        sample = stored.samples[int(source.image_index[at])]
        entries.append(
            {
                "image_id": sample.image_id,
                "file_name": sample.file_name,
                "box": source.boxes[at].tolist(),
                "label": int(source.labels[at]),
                "score": float(detections.scores[row]) if row >= 0 else None,
                "detection": int(detection_place[row]) if row >= 0 else None,
                "truth": int(truth_place[truth_row]) if truth_row >= 0 else None,
            }
        )
    return entries


def _confuse(
    services: Services, slug: str, stored: StoredSet, score_threshold: float | None, iou_threshold: float
) -> ConfusionMatrix:
    if score_threshold is None:
        score_threshold = review.judge(services, slug, stored.record.id).evaluation.f1_threshold
    for name, value in (("score", score_threshold), ("IoU", iou_threshold)):
        if not 0 <= value <= 1:
            raise BadRequest(f"The {name} threshold must lie in 0..1, got {value}.")
    return confuse(stored.truth, stored.detections, score_threshold, iou_threshold)


def _check_page(after: int, limit: int) -> None:
    if after < 0 or not 1 <= limit <= MAX_PAGE:
        raise BadRequest(f"A page has 1 to {MAX_PAGE} entries and begins at 0 or later; got {limit} from {after}.")
