"""Labels that a sure model disagrees with: objects nobody boxed, boxes of another class, boxes that lie loosely.

Among hundreds of labels some are wrong, and a trained model finds many of them (Northcutt, Athalye and Mueller 2021).
What it says is a hint for a person, never a correction. A model that learned an image learned its faults too, so hints
on images it has not seen are worth more.

Legend: S suspects; rows as in ``columns``.
"""

from dataclasses import dataclass

import numpy as np

from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.matching import box_ious, match_columns
from app.pipeline.evaluate.overlaps import best_overlaps

KINDS = ("missing_box", "wrong_class", "loose_box")
_MISSING, _WRONG, _LOOSE = range(len(KINDS))

EMPTY_IOU = 0.1  # less overlap than this with every box: the object has none
SAME_OBJECT_IOU = 0.5
LOOSE_FROM_IOU, LOOSE_TO_IOU = 0.3, 0.7  # the same object, but one of the two boxes lies badly


@dataclass(frozen=True, eq=False)
class Suspects:
    """kind: int8 [S], index into KINDS. detection, truth: int64 [S], rows; truth is -1 for a missing box. iou: float64
    [S], of the two boxes. The surest first."""

    kind: np.ndarray
    detection: np.ndarray
    truth: np.ndarray
    iou: np.ndarray


def find_suspects(truth: GroundTruth, detections: DetectionColumns, min_score: float) -> Suspects:
    """Where detections with a score of at least ``min_score`` disagree with the labels; one suspect per object.

    - missing_box: overlaps every labelled box, crowds too, by less than EMPTY_IOU.
    - wrong_class: overlaps a box of another class by SAME_OBJECT_IOU or more, which no detection of the box's own
      class that is as sure does.
    - loose_box: took a box of its class with an IoU from LOOSE_FROM_IOU to LOOSE_TO_IOU.
    """
    shown = np.flatnonzero(detections.scores >= min_score)
    kept = detections.select(shown)
    everything = GroundTruth(
        truth.categories,
        truth.image_ids,
        truth.image_index,
        truth.boxes,
        truth.labels,
        np.zeros(len(truth.labels), bool),
    )
    overlaps = best_overlaps(everything, kept)
    matches = match_columns(truth, kept, LOOSE_FROM_IOU)
    own_iou = np.zeros(len(shown))
    took = np.flatnonzero(matches.is_true_positive)
    boxes = truth.boxes[matches.truth_of[took]]
    own_iou[took] = box_ious(kept.boxes[took], boxes, np.zeros(len(took), bool))
    is_loose = matches.is_true_positive & (own_iou < LOOSE_TO_IOU)
    is_wrong = _is_wrong_class(truth, kept, overlaps.other_iou, overlaps.other, overlaps.own_iou)
    is_missing = (np.maximum(overlaps.own_iou, overlaps.other_iou) < EMPTY_IOU) & (matches.truth_of < 0)
    kind = np.select([is_missing, is_wrong, is_loose], [_MISSING, _WRONG, _LOOSE], -1).astype(np.int8)
    box = np.select([is_wrong, is_loose], [overlaps.other, matches.truth_of], -1)
    iou = np.select([is_wrong, is_loose], [overlaps.other_iou, own_iou], 0.0)
    rows = np.flatnonzero(kind >= 0)
    rows = rows[np.argsort(-kept.scores[rows], kind="stable")]
    rows = rows[_first_of_each_object(kept, rows, kind, box)]
    return Suspects(kind[rows], shown[rows], box[rows], iou[rows])


def _is_wrong_class(
    truth: GroundTruth, kept: DetectionColumns, other_iou: np.ndarray, other: np.ndarray, own_iou: np.ndarray
) -> np.ndarray:
    """bool [D]: it lies on a box of another class, and the model is not as sure of the box's own class there."""
    surest_own = np.full(len(truth.labels), -1.0)
    matches = match_columns(truth, kept, SAME_OBJECT_IOU)
    took = np.flatnonzero(matches.is_true_positive)
    surest_own[matches.truth_of[took]] = kept.scores[took]
    lies_on_other = (other_iou >= SAME_OBJECT_IOU) & (own_iou < SAME_OBJECT_IOU)
    box = np.where(lies_on_other, other, 0)
    if not len(truth.labels):
        return lies_on_other
    return lies_on_other & ~truth.is_crowd[box] & (kept.scores > surest_own[box])


def _first_of_each_object(kept: DetectionColumns, rows: np.ndarray, kind: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Places in ``rows`` (the surest first) without those that lie on the same labelled box, or on the same empty place
    (SAME_OBJECT_IOU or more), as a surer one of their kind."""
    first, boxes_seen, places_seen = [], set(), {}
    for place, row in enumerate(rows.tolist()):
        if kind[row] != _MISSING:
            key = (int(kind[row]), int(box[row]))
            if key not in boxes_seen:
                boxes_seen.add(key)
                first.append(place)
            continue
        surer = places_seen.setdefault(int(kept.image_index[row]), [])
        here = kept.boxes[[row]].repeat(len(surer), axis=0)
        if not (box_ious(here, kept.boxes[surer], np.zeros(len(surer), bool)) >= SAME_OBJECT_IOU).any():
            surer.append(row)
            first.append(place)
    return np.array(first, np.int64)
