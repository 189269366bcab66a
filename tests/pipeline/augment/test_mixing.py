"""MixUp, Mosaic and Copy-Paste: what they draw, and that boxes lie on their pixels with their labels."""

import numpy as np
import pytest

from app.pipeline.augment.catalogue import Step
from app.pipeline.augment.chain import Chain
from app.pipeline.augment.mixing import Partner, Partners

NO_BOXES, NO_LABELS = np.zeros((0, 4)), np.zeros(0, np.int64)


def flat(value, width=64, height=48):
    return np.full((height, width, 3), value, np.uint8)


def partners(*members):
    return Partners(len(members), members.__getitem__)


def apply(name, image, boxes, labels, mates, epoch=0, **strength):
    chain = Chain.build([Step(name=name, probability=1, strength=strength)])
    return chain.apply(image, boxes, labels, seed=3, epoch=epoch, image_id=1, partners=mates)


def kolmogorov_smirnov(values, distribution):
    """The largest distance between the share of values below x and ``distribution(x)``."""
    ordered, count = np.sort(values), len(values)
    expected = distribution(ordered)
    steps = np.arange(count + 1) / count
    return max((steps[1:] - expected).max(), (expected - steps[:-1]).max())


@pytest.mark.parametrize(
    ("strength", "distribution"),
    [
        ({}, lambda x: 3 * x**2 - 2 * x**3),  # Beta(2, 2) is the default
        ({"alpha": 1, "beta": 1}, lambda x: x),
        ({"alpha": 1, "beta": 3}, lambda x: 1 - (1 - x) ** 3),  # alpha weighs this image, beta the other
    ],
)
def test_weight_of_mixup_follows_its_beta_distribution(strength, distribution):
    """Read off the pixels: white under black. 1.63 / sqrt(n) is the 1 % limit of Kolmogorov and Smirnov."""
    white, mates = flat(255, 8, 8), partners(Partner(flat(0, 8, 8), NO_BOXES, NO_LABELS))
    chain = Chain.build([Step(name="MixUp", probability=1, strength=strength)])
    weights = [
        chain.apply(white, NO_BOXES, [], seed=0, epoch=n, image_id=1, partners=mates).image[0, 0, 0] / 255
        for n in range(2000)
    ]
    assert kolmogorov_smirnov(weights, distribution) < 1.63 / np.sqrt(2000)


def test_mixup_keeps_the_boxes_of_both_with_their_labels():
    own, others = np.array([[5, 5, 30, 40.0]]), np.array([[10, 20, 50, 60], [0, 0, 96, 128.0]])
    mate = Partner(flat(0, 96, 128), others, np.array([7, 8]))  # taller: fitted into the frame, 36 x 48
    result = apply("MixUp", flat(200), own, [1], partners(mate))
    assert result.labels.tolist() == [1, 7, 8]
    assert result.kept.tolist() == [0, -1, -1]
    np.testing.assert_allclose(result.boxes, [own[0], others[0] * 0.375, [0, 0, 36, 48]], atol=1e-4)
    assert (result.image[:, 36:] == 200).all()  # where the partner does not reach
    assert (result.image[:, :36] < 200).all()


def test_image_that_mixup_hides_loses_its_boxes():
    own, others = np.array([[5, 5, 30, 40.0], [50, 5, 60, 40]]), np.array([[1, 1, 20, 20.0]])
    mate = Partner(flat(0, 36, 48), others, np.array([7]))
    found = {}
    for epoch in range(200):
        result = apply("MixUp", flat(250), own, [1, 2], partners(mate), epoch, alpha=0.3, beta=0.3)
        weight = result.image[0, 0, 0] / 250
        kind = "own" if weight > 0.91 else "other" if weight < 0.09 else "both" if 0.11 < weight < 0.89 else "edge"
        found.setdefault(kind, set()).add(tuple(result.labels.tolist()))
    # The second box lies where the partner does not reach, and is always seen.
    assert found["own"] == {(1, 2)}
    assert found["other"] == {(2, 7)}
    assert found["both"] == {(1, 2, 7)}


def find_center(image):
    """Where the four parts of a mosaic of flat images of different colors meet."""
    gray = image[..., 0].astype(int)
    (x,), (y,) = (np.unique(np.nonzero(np.diff(gray, axis=axis))[axis]) for axis in (1, 0))
    return x + 1, y + 1


def test_center_of_the_mosaic_moves_within_its_range_and_every_place_is_ours_at_times():
    mates = [Partner(flat(100 + n), NO_BOXES, NO_LABELS) for n in range(50)]
    centers, places = [], set()
    for epoch in range(400):
        result = apply("Mosaic", flat(10), NO_BOXES, [], partners(*mates), epoch, center=0.25)
        corners = [int(result.image[y, x, 0]) for y in (0, -1) for x in (0, -1)]
        if len(set(corners)) < 4:
            continue  # one partner twice
        centers.append(find_center(result.image))
        places.add(corners.index(10))
    centers = np.array(centers) / [64, 48]
    assert centers.min() >= 0.24
    assert centers.max() <= 0.76
    for axis in (0, 1):
        assert (
            kolmogorov_smirnov(centers[:, axis], lambda x: ((x - 0.25) * 2).clip(0, 1)) < 0.1
        )  # even, in whole pixels
    assert places == {0, 1, 2, 3}
    still = {
        find_center(apply("Mosaic", flat(10), NO_BOXES, [], partners(*mates[:3]), n, center=0).image) for n in (0, 8)
    }
    assert still == {(32, 24)}


def square(value, x, y, side=12, width=64, height=48):
    image = flat(value // 2, width, height)
    image[y : y + side, x : x + side] = value
    return image, np.array([[x, y, x + side, y + side]], float)


def test_boxes_of_a_mosaic_lie_on_their_pixels_clipped_or_lost_with_their_labels():
    image, boxes = square(240, 26, 18)
    mates = [Partner(*square(value, x, 10), np.array([value])) for value, x in ((60, 4), (100, 30), (160, 50))]
    (first, first_box), (second, second_box) = square(200, 2, 2), square(220, 48, 30)
    both = np.where(first == 200, first, second)  # two in one, told apart by their labels
    mates.append(Partner(both, np.concatenate([first_box, second_box]), np.array([200, 220])))
    num_clipped = num_lost = 0
    for epoch in range(300):
        result = apply("Mosaic", image, boxes, [240], partners(*mates), epoch)
        num_lost += result.num_lost
        for box, label in zip(result.boxes, result.labels, strict=True):
            x1, y1, x2, y2 = box
            inner = result.image[round(y1 + 1) : round(y2 - 1), round(x1 + 1) : round(x2 - 1), 0]
            assert abs(inner.astype(int) - label).max(initial=0) <= 1, (epoch, label)
            num_clipped += not 0.9 < (x2 - x1) / (y2 - y1) < 1.1
        for value in {240, 60, 100, 160, 200, 220} - set(result.labels.tolist()):
            is_there = (abs(result.image[..., 0].astype(int) - value) <= 1).sum()
            assert is_there < 0.2 * 12 * 12  # what lost its box is nearly gone
    assert num_clipped > 20
    assert num_lost > 20


def test_pasted_objects_bring_their_pixels_and_labels_at_their_own_size():
    source, box = square(240, 40, 20, 15, 90, 70)
    box = box + [0.25, 0.5, -0.5, -0.25]
    places = set()
    for epoch in range(50):
        result = apply(
            "CopyPaste", flat(10), np.array([[1, 1, 5, 5.0]]), [1], partners(Partner(source, box, np.array([9]))), epoch
        )
        assert result.labels.tolist() == [1, 9]
        x1, y1, x2, y2 = result.boxes[1]
        assert (x2 - x1, y2 - y1) == (14.25, 14.25)  # fractions stay
        rows, columns = np.nonzero(result.image[..., 0] == 240)
        np.testing.assert_allclose(
            [x1, y1, x2, y2], [columns.min() + 0.25, rows.min() + 0.5, columns.max() + 0.5, rows.max() + 0.75]
        )
        assert len(rows) == 15 * 15
        places.add((x1, y1))
    assert len(places) > 40


def test_boxes_under_pasted_ones_are_shrunk_or_lost_with_their_labels():
    """The pasted object is as wide as the image, so it hides stripes of what is there."""
    source, mate_box = flat(240, 64, 20), np.array([[0, 0, 64, 20.0]])
    own = np.array([[10, 0, 20, 48], [30, 24, 40, 28], [50, 2, 60, 10.0]])
    kinds = set()
    for epoch in range(100):
        result = apply("CopyPaste", flat(10), own, [1, 2, 3], partners(Partner(source, mate_box, np.array([9]))), epoch)
        top = int(result.boxes[-1, 1])
        kept = dict(zip(result.labels.tolist(), result.boxes.tolist(), strict=True))
        assert kept[1][1::2] == ([20, 48] if top == 0 else [0, 28] if top == 28 else [0, 48])
        for label, (low, high) in ((2, (24, 28)), (3, (2, 10))):
            seen = [y for y in range(low, high) if not top <= y < top + 20]
            assert kept.get(label, [0, 0, 0, 0])[1::2] == ([seen[0], seen[-1] + 1] if seen else [0, 0])
            kinds.add((label, len(seen)))
    assert (2, 0) in kinds or (3, 0) in kinds


def test_objects_are_pasted_where_they_hide_least_and_never_on_each_other():
    source, boxes = flat(200, 64, 48), np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 20, 50, 30.0]])
    mates = partners(Partner(source, boxes, np.array([7, 8, 9])))
    own = np.array([[0, 0, 32, 48.0]])
    hidden = []
    for epoch in range(100):
        result = apply("CopyPaste", flat(10), own, [1], mates, epoch, objects=3)
        pasted = result.boxes[result.labels > 1]
        assert (result.image == 200).all(axis=2).sum() == 100 * len(pasted)  # none over another
        hidden.append((result.image[:, :32] == 200).any())
    assert np.mean(hidden) < 0.2  # at random places it would be in nine of ten


def test_object_larger_than_the_image_is_not_pasted():
    mates = partners(Partner(flat(200, 128, 96), np.array([[0, 0, 100, 90.0]]), np.array([7])))
    image = flat(10)
    assert apply("CopyPaste", image, NO_BOXES, [], mates).image is image


def test_parts_of_other_objects_come_along_with_their_labels():
    boxes = np.array([[0, 0, 20, 20], [5, 5, 15, 15], [10, 10, 30, 30], [19, 19, 60, 40.0]])
    mates = partners(Partner(flat(200), boxes, np.array([6, 7, 8, 9])))
    for epoch in range(100):
        result = apply("CopyPaste", flat(10), NO_BOXES, [], mates, epoch, objects=1)
        if result.labels.tolist()[:1] == [6] and np.ptp(result.boxes[0, ::2]) == 20:
            moved = result.boxes - np.tile(result.boxes[0, :2], 2)
            assert result.labels.tolist() == [6, 7, 8]  # the fourth has only a corner inside
            np.testing.assert_allclose(moved[1:], [[5, 5, 15, 15], [10, 10, 20, 20]], atol=1e-4)
            return
    pytest.fail("the first object was never pasted")
