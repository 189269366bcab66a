"""What goes wrong in a stored set: the price of each kind of error, which class is taken for which, and where."""

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np

from app.errors import BadRequest
from app.pipeline.evaluate.columns import position_in_image
from app.pipeline.evaluate.confusion import ConfusionMatrix, confuse
from app.pipeline.evaluate.error_budget import KINDS, TOTALS, ErrorBudget, spend_errors
from app.services import review, truths
from app.services.context import Services
from app.services.lru_cache import LruCache
from app.services.stored_sets import StoredSet, load_set
from app.store import predictions

MAX_PAGE = 500
# The columns of a large set are some 30 MB, and its matrices hold on to them.
_sets = LruCache(2)
_budgets = LruCache(8)
_matrices = LruCache(8)


class Thresholds(NamedTuple):
    """Where confusions are counted, each 0..1: score (None: that of the best F1), IoU, and NMS (1: off)."""

    score: float | None = None
    iou: float = 0.5
    nms: float = 1.0


BEST_F1 = Thresholds()


def diagnose(services: Services, slug: str, set_id: int, at: Thresholds = BEST_F1) -> dict[str, Any]:
    """``error_budget`` of a set, whatever the thresholds, and its ``confusion`` at these.

    The budget takes seconds for a large set; both are remembered as long as neither the set nor its truth changes.
    Raises NotFound, BadRequest.
    """
    confusion = count_confusions(services, slug, set_id, at)
    return {"error_budget": _budget(services, slug, set_id).to_json(), "confusion": confusion}


def count_confusions(services: Services, slug: str, set_id: int, at: Thresholds = BEST_F1) -> dict[str, Any]:
    """The confusion matrix alone, without pricing errors: what follows the sliders. Raises NotFound, BadRequest."""
    return _matrix(services, slug, set_id, at).to_json()


def list_errors(
    services: Services, slug: str, set_id: int, kind: str, after: int = 0, limit: int = 50
) -> dict[str, Any]:
    """A page of the errors of one kind or total, the surest first, those of missed boxes image by image.

    Each has image_id, file_name, box (xyxy pixels), label, detection and truth (places among the image's detections
    and labelled boxes, None without), truth_label (None without) and score (None for a missed box).
    """
    if kind not in KINDS + TOTALS:
        raise BadRequest(f"A kind of error is one of {', '.join(KINDS + TOTALS)}; got {kind!r}.")
    _check_page(after, limit)
    stored = _stored(services, slug, set_id)
    rows, truth_rows = _budget(services, slug, set_id).rows(kind)
    if kind not in ("missed", "false_negatives"):
        order = np.argsort(-stored.detections.scores[rows], kind="stable")
        rows, truth_rows = rows[order], truth_rows[order]
    return {"kind": kind, "errors": _page(stored, rows, truth_rows, after, limit), **_place(len(rows), after, limit)}


def list_confused(
    services: Services,
    slug: str,
    set_id: int,
    truth_label: int,
    predicted_label: int,
    at: Thresholds = BEST_F1,
    after: int = 0,
    limit: int = 50,
) -> dict[str, Any]:
    """A page of the pairs in one cell of the confusion matrix; label 0 is the background. Raises BadRequest."""
    _check_page(after, limit)
    stored = _stored(services, slug, set_id)
    num_classes = len(stored.truth.categories)
    if not 0 <= truth_label <= num_classes or not 0 <= predicted_label <= num_classes:
        raise BadRequest(f"Labels are 0 (background) to {num_classes}; got {truth_label} and {predicted_label}.")
    matrix = _matrix(services, slug, set_id, at)
    truth_rows, rows = matrix.cell(truth_label, predicted_label)
    return {"pairs": _page(stored, rows, truth_rows, after, limit), **_place(len(rows), after, limit)}


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
                "truth_label": int(truth.labels[truth_row]) if truth_row >= 0 else None,
            }
        )
    return entries


def _page(stored: StoredSet, rows: np.ndarray, truth_rows: np.ndarray, after: int, limit: int) -> list[dict[str, Any]]:
    return describe_pairs(stored, rows[after : after + limit], truth_rows[after : after + limit])


def _place(total: int, after: int, limit: int) -> dict[str, Any]:
    """``total``, and where the ``next`` page begins (None on the last)."""
    return {"total": total, "next": after + limit if after + limit < total else None}


def _check_page(after: int, limit: int) -> None:
    if after < 0 or not 1 <= limit <= MAX_PAGE:
        raise BadRequest(f"A page has 1 to {MAX_PAGE} entries and begins at 0 or later; got {limit} from {after}.")


def _key(services: Services, slug: str, set_id: int) -> tuple[Hashable, ...]:
    database = services.database(slug)
    record = predictions.get_set(database, set_id)
    return review.set_key(database, record, truths.load_truth(services, slug, record.run_id))


def _stored(services: Services, slug: str, set_id: int) -> StoredSet:
    return _sets.get(_key(services, slug, set_id), lambda: load_set(services, slug, set_id))


def _budget(services: Services, slug: str, set_id: int) -> ErrorBudget:
    def spend() -> ErrorBudget:
        stored = _stored(services, slug, set_id)
        return spend_errors(stored.truth, stored.detections)

    return _budgets.get(_key(services, slug, set_id), spend)


def _matrix(services: Services, slug: str, set_id: int, at: Thresholds) -> ConfusionMatrix:
    for name, value in (("score", at.score or 0), ("IoU", at.iou), ("NMS", at.nms)):
        if not 0 <= value <= 1:
            raise BadRequest(f"The {name} threshold must lie in 0..1, got {value}.")
    if at.score is None:
        at = at._replace(score=review.judge(services, slug, set_id).evaluation.f1_threshold)

    def count() -> ConfusionMatrix:
        stored = _stored(services, slug, set_id)
        return confuse(stored.truth, stored.detections, *at)

    return _matrices.get((_key(services, slug, set_id), at), count)
