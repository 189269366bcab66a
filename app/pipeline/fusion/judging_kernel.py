"""COCO's matching and average precision, compiled for judging one trial after another. Loads numba.

Legend: D detections, M labelled boxes, G groups (one for each image and label), K classes, S IoU thresholds. Boxes are
float64 xyxy pixels.
"""

import numpy as np

from app.pipeline.fusion.compiled import compiled, kept_on_disk

FALSE, TRUE, IGNORED = range(3)
NUM_RECALLS = 101
_SMALLEST = 2.220446049250313e-16  # np.spacing(1), which COCO adds to a denominator


@kept_on_disk
def judge_rows(
    order: np.ndarray,
    group: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray,
    first: np.ndarray,
    truth_boxes: np.ndarray,
    is_crowd: np.ndarray,
    num_truth: np.ndarray,
    thresholds: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(average precision float64 [S, K], outcome int8 [S, D] in the order of ``order``) of all detections.

    order: int64 [D], rows by falling score. group: int64 [D], 0..G-1. labels: int64 [D], 1..K. boxes: float64 [D, 4].
    first: int64 [G + 1]: the labelled boxes of a group are ``first[g]`` to ``first[g + 1]``. num_truth: int64 [K],
    without crowds; a class with none has -1. thresholds: float64 [S], ascending.
    """
    outcome = np.zeros((len(thresholds), len(order)), np.int8)
    is_taken = np.zeros((len(thresholds), len(truth_boxes)), np.bool_)
    overlap = np.empty(len(truth_boxes), np.float64)
    for place in range(len(order)):
        row = order[place]
        begin, end = first[group[row]], first[group[row] + 1]
        highest = 0.0
        for index in range(begin, end):
            overlap[index] = _overlap(boxes[row], truth_boxes[index], is_crowd[index])
            highest = max(highest, overlap[index])
        for step in range(len(thresholds)):
            if highest < thresholds[step]:
                break
            outcome[step, place] = _take(begin, end, overlap, is_crowd, is_taken[step], thresholds[step])
    precision = np.empty((len(thresholds), len(num_truth)), np.float64)
    places, label_first = _places_by_label(order, labels, len(num_truth))
    for index in range(len(num_truth)):
        of_label = places[label_first[index] : label_first[index + 1]]
        for step in range(len(thresholds)):
            precision[step, index] = _average_precision(outcome[step], of_label, num_truth[index])
    return precision, outcome


@compiled
def _overlap(box: np.ndarray, truth: np.ndarray, is_crowd: bool) -> float:
    width = min(box[2], truth[2]) - max(box[0], truth[0])
    height = min(box[3], truth[3]) - max(box[1], truth[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = (box[2] - box[0]) * (box[3] - box[1])
    if is_crowd:
        return width * height / area
    return width * height / (area + (truth[2] - truth[0]) * (truth[3] - truth[1]) - width * height)


@compiled
def _take(
    begin: int, end: int, overlap: np.ndarray, is_crowd: np.ndarray, is_taken: np.ndarray, threshold: float
) -> int:
    """The free box with the largest overlap (of equal ones the last) is taken; without one, a crowd box ignores it."""
    best, most, is_in_crowd = -1, threshold, False
    for index in range(begin, end):
        if is_crowd[index]:
            is_in_crowd |= overlap[index] >= threshold
        elif not is_taken[index] and overlap[index] >= most:
            best, most = index, overlap[index]
    if best >= 0:
        is_taken[best] = True
        return TRUE
    return IGNORED if is_in_crowd else FALSE


@compiled
def _places_by_label(order: np.ndarray, labels: np.ndarray, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Places in ``order`` label by label, in order within one; and where each label begins."""
    first = np.zeros(num_labels + 1, np.int64)
    for row in order:
        first[labels[row]] += 1
    for label in range(num_labels):
        first[label + 1] += first[label]
    free, places = first.copy(), np.empty(len(order), np.int64)
    for place in range(len(order)):
        label = labels[order[place]] - 1
        places[free[label]] = place
        free[label] += 1
    return places, first


@compiled
def _average_precision(outcome: np.ndarray, places: np.ndarray, num_truth: int) -> float:
    """The mean of the best precision at 101 recalls or beyond; -1 without labelled boxes."""
    if num_truth == 0:
        return -1.0
    precision, found = np.empty(len(places), np.float64), np.empty(len(places), np.int64)
    num_true = num_false = length = 0
    for place in places:
        if outcome[place] == IGNORED:
            continue
        if outcome[place] == TRUE:
            num_true += 1
        else:
            num_false += 1
        precision[length] = num_true / (num_true + num_false + _SMALLEST)
        found[length] = num_true
        length += 1
    for index in range(length - 2, -1, -1):
        precision[index] = max(precision[index], precision[index + 1])
    total, index = 0.0, 0
    for step in range(NUM_RECALLS):
        while index < length and found[index] / num_truth < step * 0.01:  # as np.linspace(0, 1, 101)
            index += 1
        if index < length:
            total += precision[index]
    return total / NUM_RECALLS


def warm_up() -> None:
    """Compile, or load from disk, what :func:`judge_rows` needs for the one set of types it is called with."""
    one, box = np.array([1]), np.array([[0.0, 0.0, 1.0, 1.0]])
    judge_rows(one - 1, one, one, box, np.array([0, 0, 1]), box, np.array([False]), one, np.array([0.5]))
