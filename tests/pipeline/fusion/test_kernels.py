"""The compiled methods against ensemble_boxes, bit by bit.

The library sorts unstably, so rows with equal scores have no order of their own in it. Where no two scores are equal,
rows are compared one by one after sorting both sides by all their numbers; where some are, the library is given a
stable sort first.
"""

from importlib import import_module
from types import SimpleNamespace

import ensemble_boxes
import numpy as np
import pytest
from ensemble_boxes.ensemble_boxes_nms import cpu_soft_nms_float

from app.pipeline.ensemble import CONF_TYPES, METHODS, FusionOptions, fuse_columns
from app.pipeline.fusion import kernels
from app.pipeline.fusion.columns import MemberColumns
from app.pipeline.types import Detections

WEIGHTED = [("wbf", conf_type) for conf_type in CONF_TYPES]
SORTING = ("ensemble_boxes_wbf", "ensemble_boxes_nmw")


def make_columns(seed, num_members=3, num_images=6, num_boxes=40, num_objects=12, num_classes=3, decimals=None):
    """Members that see the same objects, each a little elsewhere; ``decimals`` rounds scores and makes some equal."""
    rng = np.random.default_rng(seed)
    rows = {name: [] for name in ("boxes", "scores", "labels", "members")}
    first = [0]
    for _ in range(num_images):
        corner = rng.uniform(0, 0.8, (num_objects, 2))
        objects = np.concatenate([corner, corner + rng.uniform(0.02, 0.3, (num_objects, 2))], axis=1)
        classes = rng.integers(1, num_classes + 1, num_objects)
        for member in range(num_members):
            count = int(rng.integers(0, num_boxes + 1))
            seen = rng.integers(0, num_objects, count)
            boxes = np.clip(objects[seen] + rng.normal(0, 0.02, (count, 4)), 0, 1).astype(np.float32)
            keep = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            scores = rng.random(count) if decimals is None else rng.random(count).round(decimals) + 0.01
            rows["boxes"].append(boxes[keep].astype(np.float64))
            rows["scores"].append(scores[keep].astype(np.float32).astype(np.float64))
            rows["labels"].append(classes[seen][keep].astype(np.int32))
            rows["members"].append(np.full(keep.sum(), member, np.int32))
        first.append(sum(len(part) for part in rows["scores"]))
    joined = {name: np.concatenate(parts) for name, parts in rows.items()}
    return MemberColumns(np.array(first), sizes=np.ones((num_images, 2)), num_members=num_members, **joined)


def lists_of(columns, image):
    """An image as the library wants it: lists of boxes, scores and labels, one entry a member."""
    rows = slice(columns.first[image], columns.first[image + 1])
    of_member = [columns.members[rows] == member for member in range(columns.num_members)]
    return [
        [values[rows][mask].copy() for mask in of_member]
        for values in (columns.boxes, columns.scores, columns.labels.astype(np.int64))
    ]


def by_library(columns, image, options):
    """boxes, scores and labels of one image as the library fuses them."""
    boxes, scores, labels = lists_of(columns, image)
    weights = list(options.weights) or [1.0] * columns.num_members
    given = {"iou_thr": options.iou_threshold, "skip_box_thr": options.skip_threshold}
    if options.method == "wbf":
        return ensemble_boxes.weighted_boxes_fusion(
            boxes, scores, labels, weights=weights, conf_type=options.conf_type, **given
        )
    if options.method == "nmw":
        return ensemble_boxes.non_maximum_weighted(boxes, scores, labels, weights=weights, **given)
    # Its own weights divide by their sum, and write into the caller's scores.
    keep = [score >= options.skip_threshold for score in scores]
    scores = [score * (weight / max(weights)) for score, weight in zip(scores, weights, strict=True)]
    boxes, scores, labels = ([part[k] for part, k in zip(each, keep, strict=True)] for each in (boxes, scores, labels))
    function = ensemble_boxes.nms if options.method == "nms" else ensemble_boxes.soft_nms
    return function(boxes, scores, labels, iou_thr=options.iou_threshold)


def table(boxes, scores, labels):
    """Rows of label, score, x1, y1, x2, y2 in one order; float64 holds what either side computes."""
    rows = np.column_stack([labels, scores, boxes]).astype(np.float64)
    return rows[np.lexsort(rows.T[::-1])]


def image_of(fused, image):
    rows = slice(fused.first[image], fused.first[image + 1])
    return fused.boxes[rows], fused.scores[rows], fused.labels[rows]


def assert_as_library(columns, options):
    fused = fuse_columns(columns, options)
    for image in range(columns.num_images):
        wanted = table(*by_library(columns, image, options))
        found = table(*image_of(fused, image))
        assert found.shape == wanted.shape
        assert found.tobytes() == wanted.tobytes()
    return fused


@pytest.mark.parametrize(("method", "conf_type"), [*WEIGHTED, ("nms", "avg"), ("nmw", "avg")])
@pytest.mark.parametrize("weights", [(), (2.0, 0.3, 1.7)])
@pytest.mark.parametrize(("iou_threshold", "skip_threshold"), [(0.55, 0.0), (0.3, 0.25)])
def test_same_bits_as_the_library(method, conf_type, weights, iou_threshold, skip_threshold):
    options = FusionOptions(
        method=method,
        conf_type=conf_type,
        weights=weights,
        iou_threshold=iou_threshold,
        skip_threshold=skip_threshold,
    )
    fused = assert_as_library(make_columns(seed=len(weights) + len(conf_type)), options)
    assert 0 < len(fused.scores) < 6 * 3 * 40


@pytest.mark.parametrize(("method", "conf_type"), WEIGHTED)
@pytest.mark.parametrize("num_members", [8, 13])
def test_sums_over_eight_members_and_more_round_as_numpy_does(method, conf_type, num_members):
    weights = tuple(np.random.default_rng(num_members).uniform(0.1, 3, num_members).tolist())
    options = FusionOptions(method=method, conf_type=conf_type, weights=weights)
    assert_as_library(make_columns(3, num_members, num_images=3, num_boxes=20, num_classes=1), options)


@pytest.fixture
def stable_library(monkeypatch):
    """The library with arrays whose argsort is stable."""

    class Stable(np.ndarray):
        def argsort(self, *_, **__):
            return np.asarray(self).argsort(kind="stable")

    names = {name: getattr(np, name) for name in dir(np) if not name.startswith("__")}
    numpy = SimpleNamespace(**{**names, "array": lambda *given, **named: np.array(*given, **named).view(Stable)})
    for name in SORTING:
        monkeypatch.setattr(import_module(f"ensemble_boxes.{name}"), "np", numpy)


@pytest.mark.parametrize(("method", "conf_type"), [*WEIGHTED, ("nmw", "avg")])
def test_equal_scores_take_their_turn_as_in_the_library_with_a_stable_sort(stable_library, method, conf_type):
    columns = make_columns(5, decimals=1)
    assert len(np.unique(columns.scores)) < 12
    assert_as_library(columns, FusionOptions(method=method, conf_type=conf_type))


def test_long_lists_are_merged_in_order():
    columns = make_columns(6, num_images=2, num_boxes=700, num_objects=300, num_classes=1)
    assert_as_library(columns, FusionOptions())


@pytest.mark.parametrize("num_boxes", [40, 300])
def test_of_equal_scores_nms_takes_the_last_box_first(num_boxes):
    columns = make_columns(9, num_boxes=num_boxes, decimals=1, num_classes=1)
    options = FusionOptions(method="nms", iou_threshold=0.4)
    fused = fuse_columns(columns, options)
    for image in range(columns.num_images):
        rows = np.arange(columns.first[image], columns.first[image + 1])[::-1]
        left, kept = rows[np.argsort(-columns.scores[rows], kind="stable")].tolist(), []
        while left:
            kept.append(left.pop(0))
            overlap = box_iou(columns.boxes[kept[-1]], columns.boxes[left])
            left = [row for row, value in zip(left, overlap, strict=True) if value <= options.iou_threshold]
        np.testing.assert_array_equal(image_of(fused, image)[0], columns.boxes[kept])


def box_iou(box, others):
    corner = np.minimum(others[:, 2:], box[2:]) - np.maximum(others[:, :2], box[:2])
    shared = np.prod(np.clip(corner, 0, None), axis=1)
    return shared / (np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - shared)


def soft_nms_by_hand(boxes, scores, labels):
    """Bodla et al. 2017, eq. 6, as one would write it down; of equal scores the last row comes first."""
    scores, found = scores.copy(), []
    left = np.arange(len(scores))[::-1]
    while len(left):
        best = left[np.argmax(scores[left])]
        if scores[best] < 0.001:
            break
        left = left[left != best]
        found.append((labels[best], scores[best], *boxes[best]))
        of_label = left[labels[left] == labels[best]]
        scores[of_label] *= np.exp(-(box_iou(boxes[best], boxes[of_label]) ** 2) / 0.5)
    return np.array(found)


@pytest.mark.parametrize(("num_boxes", "decimals"), [(40, None), (40, 1), (300, 1)])
def test_soft_nms_lowers_scores_as_written_down(num_boxes, decimals):
    """No bits: exp differs by a last digit between compilers."""
    columns = make_columns(7, num_images=3, num_boxes=num_boxes, decimals=decimals)
    fused = fuse_columns(columns, FusionOptions(method="soft_nms"))
    for image in range(columns.num_images):
        boxes, scores, labels = image_of(fused, image)
        wanted = soft_nms_by_hand(*image_of(columns, image))
        wanted = wanted[np.lexsort((wanted[:, 0], -wanted[:, 1]))]
        np.testing.assert_allclose(np.column_stack([labels, scores, boxes]), wanted, rtol=1e-12)


def test_soft_nms_keeps_the_boxes_of_the_library_with_the_scores_that_it_leaves_behind():
    """It gives back the scores from before, but has lowered those of the array that it was given."""
    columns = make_columns(7)
    fused = fuse_columns(columns, FusionOptions(method="soft_nms"))
    for image in range(columns.num_images):
        boxes, scores, labels = image_of(columns, image)
        wanted = []
        for label in np.unique(labels):
            lowered, own = scores[labels == label], boxes[labels == label]
            kept = cpu_soft_nms_float(own, lowered, Nt=None, sigma=0.5, thresh=0.001, method=2)
            lowered = lowered[lowered > 0.001]
            wanted.append(np.column_stack([np.full(len(kept), label), lowered, own[kept]]))
        wanted = np.concatenate(wanted)
        kept = by_library(columns, image, FusionOptions(method="soft_nms"))
        boxes, scores, labels = image_of(fused, image)
        assert table(boxes, 0 * scores, labels).tobytes() == table(kept[0], 0 * kept[1], kept[2]).tobytes()
        found = np.column_stack([labels, scores, boxes])[np.lexsort((-scores, labels))]
        np.testing.assert_array_equal(np.delete(found, 1, axis=1), np.delete(wanted, 1, axis=1))
        np.testing.assert_allclose(found[:, 1], wanted[:, 1], rtol=1e-12)


def test_what_is_compiled_beforehand_serves_every_call():
    kernels.warm_up()
    columns = make_columns(8)
    for method in METHODS:
        fuse_columns(columns.of_members([0, 1]).of_images(np.arange(6) < 3), FusionOptions(method=method))
    stored = {1: Detections(*(np.frombuffer(part) for part in (b"", b"", b"")))}  # arrays that cannot be written
    fuse_columns(
        MemberColumns.from_detections([stored], [SimpleNamespace(image_id=1, width=9, height=9)]), FusionOptions()
    )
    assert len(kernels.fuse_rows.signatures) == 1


def test_without_a_place_to_keep_compiled_code_it_is_compiled_anew(monkeypatch, caplog):
    from numba.core import caching

    from app.pipeline.fusion.compiled import kept_on_disk

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])

    def double(value: float) -> float:
        return 2 * value

    assert kept_on_disk(double)(2.0) == 4.0
    assert "cannot be kept" in caplog.text
