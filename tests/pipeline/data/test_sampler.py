"""Which images an epoch has: pure functions of (seed, epoch), with the shares that were asked for."""

from collections import Counter

import numpy as np
import pytest

from app.pipeline.config import parse_config
from app.pipeline.data.sampler import Sampler, inverse_frequency_weights, repeat_factors


def sampler(labels, **values):
    return Sampler([np.array(one, np.int64) for one in labels], parse_config(values))


EMPTY, COMMON, RARE, BOTH = [], [1, 1], [2], [1, 2]
LABELS = [EMPTY] * 6 + [COMMON] * 12 + [RARE] + [BOTH]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"sampling": "inverse_frequency"},
        {"sampling": "repeat_factor", "repeat_threshold": 0.7},
        {"max_empty_share": 0.1},
        {"sampling": "repeat_factor", "max_empty_share": 0.1},
    ],
)
def test_order_follows_from_seed_and_epoch_and_its_length_is_always_the_same(values):
    one, two, other = (sampler(LABELS, seed=seed, **values) for seed in (1, 1, 2))
    orders = [one.order(epoch) for epoch in (1, 2, 3)]
    assert [order.tolist() for order in orders] == [two.order(epoch).tolist() for epoch in (1, 2, 3)]
    assert orders[0].tolist() != orders[1].tolist()
    assert orders[0].tolist() != other.order(1).tolist()
    assert {len(one.order(epoch)) for epoch in range(1, 50)} == {len(one)}


def test_uniform_order_is_each_image_once_and_as_it_always_was():
    order = sampler(LABELS, seed=5).order(3)
    assert (order == np.random.default_rng((5, 3)).permutation(len(LABELS))).all()


@pytest.mark.parametrize(
    ("share", "num_empty"),
    [(1.0, 6), (0.3, 6), (0.2, 3), (0.5, 6), (0.0, 0), (0.125, 2)],
    ids=["no cap", "all fit", "3 of 17", "more than there are", "none", "exactly an eighth"],
)
@pytest.mark.parametrize("sampling", ["uniform", "inverse_frequency"])
def test_images_without_objects_are_capped_and_take_turns(share, num_empty, sampling):
    drawn = sampler(LABELS, max_empty_share=share, sampling=sampling)
    seen = set()
    for epoch in range(1, 40):
        empty = [index for index in drawn.order(epoch).tolist() if index < 6]
        assert len(empty) == len(set(empty)) == num_empty
        seen.update(empty)
    assert seen == (set(range(6)) if num_empty else set())
    assert len(drawn) == 14 + num_empty


def test_images_without_objects_are_left_out_when_told_so():
    drawn = sampler(LABELS, keep_empty_images=False)
    assert sorted(drawn.order(1).tolist()) == list(range(6, 20)) == drawn.images.tolist()
    assert len(sampler([EMPTY], keep_empty_images=False)) == 0
    assert len(sampler([EMPTY, EMPTY], max_empty_share=0.5)) == 0  # half of nothing
    assert len(sampler([])) == 0


def test_inverse_frequency_weighs_the_mean_over_the_classes_of_an_image():
    """There are 25 objects of class 1 and two of class 2."""
    weights = inverse_frequency_weights([np.array(one) for one in LABELS if one])
    common, rare = 1 / 25, 1 / 2
    expected = np.array([common] * 12 + [rare] + [(common + rare) / 2])
    np.testing.assert_allclose(weights, expected / expected.sum())


def test_inverse_frequency_draws_in_that_proportion_with_replacement():
    drawn = sampler(LABELS, sampling="inverse_frequency", keep_empty_images=False)
    counts = Counter(index for epoch in range(1, 401) for index in drawn.order(epoch).tolist())
    weights = inverse_frequency_weights([np.array(one) for one in LABELS if one])
    shares = np.array([counts[index] for index in range(6, 20)]) / (14 * 400)
    np.testing.assert_allclose(shares, weights, atol=4 * np.sqrt(0.25 / 5600))
    assert len(drawn) == 14  # the epoch is as long as before


def test_repeat_factors_are_those_of_lvis():
    """Class 1 is in 13 of 20 images, class 2 in 2: sqrt(.4 / .1) = 2."""
    factors = repeat_factors([np.array(one) for one in LABELS if one], 20, 0.4)
    np.testing.assert_allclose(factors, [1] * 12 + [2, 2])
    assert (repeat_factors([np.array(one) for one in LABELS if one], 20, 0.1) == 1).all()


def test_repeat_factor_draws_every_image_and_its_fraction_by_chance():
    labels = [COMMON] * 18 + [RARE] * 2  # class 2 in a tenth: sqrt(.25 / .1) = 1.58
    drawn = sampler(labels, sampling="repeat_factor", repeat_threshold=0.25)
    assert len(drawn) == 22  # 18 + 3.16, rounded up
    counts = [Counter(drawn.order(epoch).tolist()) for epoch in range(1, 501)]
    assert all(min(count[index] for index in range(20)) >= 1 for count in counts)
    rare = np.array([count[18] + count[19] for count in counts])
    assert set(rare.tolist()) >= {3, 4}
    assert 3.1 < rare.mean() < 3.4  # 3.16, and now and then the one that rounds the epoch up
    assert max(count[0] for count in counts) <= 2


def test_labels_need_not_be_right_to_be_counted():
    """The loader refuses wrong labels itself, naming the image."""
    for sampling in ("uniform", "inverse_frequency", "repeat_factor"):
        assert len(sampler([[-1], [0, 7]], sampling=sampling).order(1)) >= 2
