"""How often strong augmentations happen over a run."""

import pytest

from app.pipeline.augment.curve import strong_share


@pytest.mark.parametrize(
    ("curve", "off", "shares"),
    [
        ("constant", 0, [1, 1, 1, 1, 1]),
        ("constant", 2, [1, 1, 1, 0, 0]),
        ("linear", 0, [1, 0.75, 0.5, 0.25, 0]),  # zero in the last epoch
        ("linear", 1, [1, 0.75, 0.5, 0.25, 0]),  # the same: zero in the first that is off
        ("linear", 3, [1, 0.5, 0, 0, 0]),
        ("cosine", 0, [1, 0.853553, 0.5, 0.146447, 0]),
        ("linear", 5, [0, 0, 0, 0, 0]),
        ("cosine", 9, [0, 0, 0, 0, 0]),  # more epochs off than there are
        ("linear", 4, [1, 0, 0, 0, 0]),
    ],
)
def test_share_falls_from_one_to_zero_and_is_off_at_the_end(curve, off, shares):
    assert [strong_share(epoch, 5, curve, off) for epoch in range(1, 6)] == pytest.approx(shares, abs=1e-6)


@pytest.mark.parametrize("curve", ["constant", "linear", "cosine"])
def test_run_of_one_epoch_has_them_all(curve):
    assert strong_share(1, 1, curve) == 1
