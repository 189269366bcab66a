"""The images of two sides beside each other, those first on which they differ most."""

from functools import lru_cache
from typing import Any

import numpy as np

from app.errors import BadRequest
from app.pipeline.data.snapshot import Sample
from app.pipeline.evaluate.columns import DetectionColumns
from app.pipeline.evaluate.matching import match_columns
from app.pipeline.types import Detections
from app.services.comparing import choose_two
from app.services.comparison_sides import Side
from app.services.context import Services
from app.services.image_entries import detections_entry, image_entry
from app.services.pair_figures import Pair, judge_pair, load_pair
from app.store import predictions

MAX_PAGE = 500
SORT_IOU = 0.5


def list_images(
    services: Services,
    slug: str,
    first: Side,
    second: Side,
    wanted_split: str = "",
    *,
    after: int = 0,
    limit: int = 50,
) -> dict[str, Any]:
    """A page of the images that both sides have: by the labelled boxes that only one of them found, plus how far their
    numbers of false alarms are apart, at IoU .5 and each side's score of the best F1; most first.

    Each image has id, file_name, width, height, truth (boxes, labels, is_crowd), first and second (boxes, scores,
    labels); boxes are flat [4 N] xyxy pixels. ``next`` is the ``after`` of the following page, or None. Raises as
    :func:`comparing.find_figures`, and BadRequest for a page that cannot be.
    """
    if after < 0 or not 1 <= limit <= MAX_PAGE:
        raise BadRequest(f"A page has 1 to {MAX_PAGE} images and begins at 0 or later; got {limit} from {after}.")
    _, records = choose_two(services, slug, first, second, wanted_split)
    pair = load_pair(services, slug, *records)
    figures = judge_pair(services, slug, *records)
    order = _order_by_difference(pair, figures["first"]["f1_threshold"], figures["second"]["f1_threshold"])
    end = after + limit
    samples = [pair.samples[index] for index in order[after:end]]
    image_ids = [sample.image_id for sample in samples]
    found = [predictions.read_detections(services.database(slug), record.id, image_ids) for record in records]
    return {
        "images": [_entry(sample, *(each.get(sample.image_id) for each in found)) for sample in samples],
        "total": len(order),
        "next": end if end < len(order) else None,
    }


def _entry(sample: Sample, first: Detections | None, second: Detections | None) -> dict[str, Any]:
    return {**image_entry(sample), "first": detections_entry(first), "second": detections_entry(second)}


@lru_cache(maxsize=1)
def _order_by_difference(pair: Pair, first_score: float, second_score: float) -> np.ndarray:
    """Places of the samples, int64 [I]."""
    found, false_alarms = zip(
        _outcomes(pair, pair.first, first_score), _outcomes(pair, pair.second, second_score), strict=True
    )
    by_one = np.bincount(pair.truth.image_index[found[0] != found[1]], minlength=pair.truth.num_images)
    return np.argsort(-(by_one + np.abs(false_alarms[0] - false_alarms[1])), kind="stable")


def _outcomes(pair: Pair, columns: DetectionColumns, score: float) -> tuple[np.ndarray, np.ndarray]:
    """bool [M], which labelled boxes are found, and int64 [I], how many false alarms each image has."""
    matches = match_columns(pair.truth, columns, SORT_IOU)
    is_shown = columns.scores >= score
    is_found = np.zeros(len(pair.truth.labels), bool)
    is_found[matches.truth_of[matches.is_true_positive & is_shown]] = True
    is_false = is_shown & ~matches.is_true_positive & ~matches.is_ignored
    return is_found, np.bincount(columns.image_index[is_false], minlength=pair.truth.num_images)
