"""The four ways to fuse, compiled: one call fuses all images. Loads numba, so import it where it is called.

The arithmetic is that of ensemble_boxes 1.0.9 to the last bit: sums in the order in which boxes join, the sums of
corners rounded to float32 after each, a lone box of weighted fusion not rounded at all. Equal scores take their turn
from the last row to the first, which is what the library does wherever its unstable sort happens to keep order.

Everything compiled is in this file: numba looks at the file of a function, and not at those of the functions it calls,
to see whether what it keeps on disk is still true.

Legend: I images, D rows (boxes), T members, C fused boxes. Boxes are float64 xyxy, 0..1 of the image. The rows of an
image are ``first[i]`` to ``first[i + 1]``; those of one label, best score first, make a group.
"""

import numpy as np

from app.pipeline.fusion.compiled import compiled, kept_on_disk

WBF, NMS, SOFT_NMS, NMW = range(4)
AVERAGE, MAXIMUM, BOX_AND_MODEL, ABSENT_AWARE = range(4)
SOFT_NMS_SIGMA = 0.5
SOFT_NMS_SMALLEST_SCORE = 0.001
_RUN = 64  # that many are sorted by counting, longer lists by merging
_OUTSIDE = 2.0  # of the image


@kept_on_disk
def fuse_rows(
    first: np.ndarray,
    members: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    weight_sum: float,
    skip_threshold: float,
    iou_threshold: float,
    method: int,
    conf_type: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fuse every image: (first, boxes, scores, labels) of the C fused boxes, best score first within an image.

    first: int64 [I + 1]. members: int32 [D], 0..T-1. boxes: float64 [D, 4] with an area. scores: float64 [D], above 0.
    labels: int32 [D], at least 1. weights: float64 [T]; ``weight_sum`` is numpy's sum of them. method and conf_type:
    the constants above.
    """
    num_rows, num_images = len(scores), len(first) - 1
    most = 0
    for image in range(num_images):
        most = max(most, first[image + 1] - first[image])
    factor = weights.copy()
    if method != WBF:
        factor /= weights.max()
    weighted = np.empty(num_rows, np.float64)
    for row in range(num_rows):
        weighted[row] = scores[row] * factor[members[row]]
    order, scratch = np.empty(most, np.int64), np.empty(most, np.int64)
    count = np.zeros((labels.max() if num_rows else 0) + 2, np.int64)
    out_first = np.zeros(num_images + 1, np.int64)
    out_boxes = np.empty((num_rows, 4), np.float64)
    out_scores = np.empty(num_rows, np.float64)
    out_labels = np.empty(num_rows, np.int32)
    num_out = 0
    for image in range(num_images):
        length = _order_by_label(first[image], first[image + 1], labels, scores, skip_threshold, count, order)
        begin = 0
        while begin < length:
            label = labels[order[begin]]
            end = begin + 1
            while end < length and labels[order[end]] == label:
                end += 1
            _sort_falling(order, begin, end, weighted, scratch)
            rows = order[begin:end]
            if method == WBF:
                made = _fuse_weighted(
                    rows, members, boxes, weighted, weights, weight_sum, iou_threshold, conf_type,
                    out_boxes[num_out:], out_scores[num_out:],
                )  # fmt: skip
            elif method == NMW:
                made = _merge_weighted(rows, boxes, weighted, iou_threshold, out_boxes[num_out:], out_scores[num_out:])
            elif method == NMS:
                made = _suppress(rows, boxes, weighted, iou_threshold, out_boxes[num_out:], out_scores[num_out:])
            else:
                made = _suppress_softly(rows, boxes, weighted, out_boxes[num_out:], out_scores[num_out:])
            out_labels[num_out : num_out + made] = label
            num_out += made
            begin = end
        out_first[image + 1] = num_out
        _sort_output(out_first[image], num_out, out_boxes, out_scores, out_labels, order, scratch)
    return out_first, out_boxes[:num_out].copy(), out_scores[:num_out].copy(), out_labels[:num_out].copy()


@compiled
def _order_by_label(
    begin: int,
    end: int,
    labels: np.ndarray,
    scores: np.ndarray,
    skip_threshold: float,
    count: np.ndarray,
    order: np.ndarray,
) -> int:
    """Rows whose score reaches the threshold into ``order``, by label, the last row first; how many there are."""
    count[:] = 0
    for row in range(begin, end):
        if scores[row] >= skip_threshold:
            count[labels[row] + 1] += 1
    for label in range(1, len(count)):
        count[label] += count[label - 1]
    length = count[-1]
    for row in range(end - 1, begin - 1, -1):
        if scores[row] >= skip_threshold:
            order[count[labels[row]]] = row
            count[labels[row]] += 1
    return length


@compiled
def _sort_falling(order: np.ndarray, begin: int, end: int, scores: np.ndarray, scratch: np.ndarray) -> None:
    """Sort ``order[begin:end]`` by falling score; equal ones keep their order."""
    run, keys = np.empty(_RUN, np.int64), np.empty(_RUN, np.float64)
    for low in range(begin, end, _RUN):
        length = min(_RUN, end - low)
        for place in range(length):
            run[place] = order[low + place]
            keys[place] = scores[run[place]]
            order[low + place] = -1
        for place in range(length):
            rank, key = low, keys[place]
            for other in range(length):  # without branches, so that the compiler makes vectors of it
                rank += keys[other] > key
            while order[rank] >= 0:  # taken by an equal one
                rank += 1
            order[rank] = run[place]
    width = _RUN
    while width < end - begin:
        for low in range(begin, end - width, 2 * width):
            middle, high = low + width, min(low + 2 * width, end)
            if scores[order[middle - 1]] >= scores[order[middle]]:
                continue
            scratch[low:middle] = order[low:middle]
            left, right, place = low, middle, low
            while left < middle:
                if right < high and scores[order[right]] > scores[scratch[left]]:
                    order[place] = order[right]
                    right += 1
                else:
                    order[place] = scratch[left]
                    left += 1
                place += 1
        width *= 2


@compiled
def _sort_output(
    begin: int,
    end: int,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    order: np.ndarray,
    scratch: np.ndarray,
) -> None:
    """Bring the fused rows of an image into falling order of score, in place."""
    length = end - begin
    for place in range(length):
        order[place] = place
    old_boxes, old_scores, old_labels = boxes[begin:end].copy(), scores[begin:end].copy(), labels[begin:end].copy()
    _sort_falling(order, 0, length, old_scores, scratch)
    for place in range(length):
        row = order[place]
        for side in range(4):
            boxes[begin + place, side] = old_boxes[row, side]
        scores[begin + place] = old_scores[row]
        labels[begin + place] = old_labels[row]


@compiled
def _area(box: np.ndarray) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


@compiled
def _iou(first: np.ndarray, first_area: float, second: np.ndarray, second_area: float) -> float:
    width = max(min(first[2], second[2]) - max(first[0], second[0]), 0.0)
    height = max(min(first[3], second[3]) - max(first[1], second[1]), 0.0)
    intersection = width * height
    return intersection / (first_area + second_area - intersection)


@compiled
def _closest(
    box: np.ndarray, area: float, others: np.ndarray, areas: np.ndarray, length: int, least: float
) -> tuple[int, float]:
    """The first of those that overlap ``box`` most, by an IoU of more than ``least``, and that IoU; -1 without."""
    best, best_iou = -1, least
    for index in range(length):
        iou = _iou(others[index], areas[index], box, area)
        if iou > best_iou:
            best, best_iou = index, iou
    return best, best_iou


@compiled
def _fuse_weighted(
    rows: np.ndarray,
    members: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    weights: np.ndarray,
    weight_sum: float,
    iou_threshold: float,
    conf_type: int,
    out_boxes: np.ndarray,
    out_scores: np.ndarray,
) -> int:
    """Weighted boxes fusion of a group; how many boxes it made."""
    most = len(rows)
    areas = np.empty(most, np.float64)
    corners = np.empty((most, 4), np.float32)  # sums of score times corner, rounded as they grow
    total = np.empty(most, np.float64)  # of scores
    highest = np.empty(most, np.float64)
    weight = np.empty(most, np.float64)  # of the members of the boxes, one by one
    size = np.empty(most, np.int64)
    has_member = np.zeros((most, len(weights)), np.bool_)
    made = 0
    for row in rows:
        box, score, area = boxes[row], scores[row], _area(boxes[row])
        cluster, _ = _closest(box, area, out_boxes, areas, made, iou_threshold)
        if cluster < 0:
            cluster = made
            made += 1
            total[cluster] = highest[cluster] = score
            weight[cluster] = weights[members[row]]
            size[cluster] = 1
            areas[cluster] = area
            for side in range(4):
                out_boxes[cluster, side] = box[side]
                corners[cluster, side] = np.float32(score * box[side])
        else:
            total[cluster] += score
            highest[cluster] = max(highest[cluster], score)
            weight[cluster] += weights[members[row]]
            size[cluster] += 1
            for side in range(4):
                corners[cluster, side] = np.float32(np.float64(corners[cluster, side]) + score * box[side])
                out_boxes[cluster, side] = np.float32(np.float64(corners[cluster, side]) / total[cluster])
            areas[cluster] = _area(out_boxes[cluster])
        has_member[cluster, members[row]] = True
    largest = weights.max()
    for cluster in range(made):
        score, of_members = total[cluster], weight[cluster]
        if size[cluster] > 1:
            score = highest[cluster] if conf_type == MAXIMUM else score / size[cluster]
            score, of_members = np.float64(np.float32(score)), np.float64(np.float32(of_members))
        if conf_type == MAXIMUM:
            score = score / largest
        elif conf_type == BOX_AND_MODEL:
            score = score * size[cluster] / of_members
            score = score * _sum_of(weights, has_member[cluster], True) / weight_sum
        elif conf_type == ABSENT_AWARE:
            score = score * size[cluster] / (of_members + _sum_of(weights, has_member[cluster], False))
        else:
            score = score * min(len(weights), size[cluster]) / weight_sum
        out_scores[cluster] = score
    return made


@compiled
def _sum_of(weights: np.ndarray, has_member: np.ndarray, wanted: bool) -> float:
    """The sum of some members' weights, added up as numpy adds up to 128 numbers: in eight columns from eight on."""
    chosen = weights[has_member == wanted]
    length = len(chosen)
    if length < 8:
        result, place = 0.0, 0
    else:
        part = chosen[:8].copy()
        place = 8
        while place + 8 <= length:
            part += chosen[place : place + 8]
            place += 8
        result = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]))
    for index in range(place, length):
        result += chosen[index]
    return result


@compiled
def _merge_weighted(
    rows: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    iou_threshold: float,
    out_boxes: np.ndarray,
    out_scores: np.ndarray,
) -> int:
    """Non-maximum weighted of a group: a cluster's box is the mean by score times IoU with its best box."""
    most = len(rows)
    best = np.empty((most, 4), np.float64)
    areas = np.empty(most, np.float64)
    corners = np.empty((most, 4), np.float32)
    total = np.empty(most, np.float64)
    made = 0
    for row in rows:
        box, area = boxes[row], _area(boxes[row])
        cluster, iou = _closest(box, area, best, areas, made, iou_threshold)
        if cluster < 0:
            cluster, iou = made, 1.0
            made += 1
            areas[cluster] = area
            total[cluster] = 0.0
            out_scores[cluster] = np.float32(scores[row])
            for side in range(4):
                best[cluster, side] = box[side]
                corners[cluster, side] = 0.0
        share = scores[row] * iou
        total[cluster] += share
        for side in range(4):
            corners[cluster, side] = np.float32(np.float64(corners[cluster, side]) + share * box[side])
    for cluster in range(made):
        for side in range(4):
            out_boxes[cluster, side] = np.float32(np.float64(corners[cluster, side]) / total[cluster])
    return made


@compiled
def _suppress(
    rows: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    iou_threshold: float,
    out_boxes: np.ndarray,
    out_scores: np.ndarray,
) -> int:
    """Non-maximum suppression of a group: a box stays unless it overlaps one that stayed before it."""
    length, made = len(rows), 0
    corners, areas = _in_columns(rows, boxes)
    shared, is_free = np.empty(length, np.float64), np.ones(length, np.bool_)
    for place in range(length):
        if not is_free[place]:
            continue
        for side in range(4):
            out_boxes[made, side] = corners[side, place]
        out_scores[made] = scores[rows[place]]
        made += 1
        _intersect(corners, place, shared)
        for other in range(length):
            is_free[other] &= shared[other] / (areas[place] + areas[other] - shared[other]) <= iou_threshold
    return made


@compiled
def _in_columns(rows: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners [4, N] of some rows, each side in a column of its own, and their areas [N]."""
    corners, areas = np.empty((4, len(rows)), np.float64), np.empty(len(rows), np.float64)
    for place in range(len(rows)):
        for side in range(4):
            corners[side, place] = boxes[rows[place], side]
        areas[place] = _area(boxes[rows[place]])
    return corners, areas


@compiled
def _intersect(corners: np.ndarray, place: int, shared: np.ndarray) -> None:
    """The area that each box has in common with one of them; without branches, so that it is compiled to vectors."""
    x1, y1, x2, y2 = corners[0, place], corners[1, place], corners[2, place], corners[3, place]
    for other in range(len(shared)):
        width = max(min(x2, corners[2, other]) - max(x1, corners[0, other]), 0.0)
        height = max(min(y2, corners[3, other]) - max(y1, corners[1, other]), 0.0)
        shared[other] = width * height


@compiled
def _highest(values: np.ndarray) -> int:
    """Where the first of the highest is; one of them at least is not negative."""
    bits = values.view(np.int64)  # in the same order, and only of integers does the compiler make vectors here
    highest = bits[0]
    for place in range(len(bits)):
        highest = max(highest, bits[place])
    place = 0
    while bits[place] != highest:
        place += 1
    return place


@compiled
def _suppress_softly(
    rows: np.ndarray, boxes: np.ndarray, scores: np.ndarray, out_boxes: np.ndarray, out_scores: np.ndarray
) -> int:
    """Gaussian soft-NMS of a group (Bodla et al. 2017, eq. 6): s becomes s exp(-IoU² / sigma) for each better box."""
    length = len(rows)
    corners, areas = _in_columns(rows, boxes)
    value, shared, near = scores[rows], np.empty(length, np.float64), np.empty(length, np.int64)
    for made in range(length):
        best = _highest(value)
        if value[best] < SOFT_NMS_SMALLEST_SCORE:
            return made
        for side in range(4):
            out_boxes[made, side] = corners[side, best]
        out_scores[made] = value[best]
        value[best] = -1.0
        _intersect(corners, best, shared)
        corners[0, best] = _OUTSIDE  # so that nothing overlaps it from now on
        shared[best] = 0.0
        num_near = 0
        for place in range(length):  # few overlap, and exp takes long
            near[num_near] = place
            num_near += shared[place] > 0
        for place in near[:num_near]:
            overlap = shared[place] / (areas[best] + areas[place] - shared[place])
            value[place] *= np.exp(-(overlap * overlap) / SOFT_NMS_SIGMA)
    return length


def warm_up() -> None:
    """Compile, or load from disk, what :func:`fuse_rows` needs for the one set of types it is called with."""
    one = np.array([0], np.int32)
    boxes = np.array([[0.0, 0.0, 1.0, 1.0]])
    fuse_rows(np.array([0, 1]), one, boxes, np.ones(1), one + np.int32(1), np.ones(1), 1.0, 0.0, 0.5, WBF, AVERAGE)
