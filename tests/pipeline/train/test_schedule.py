"""The learning rate: linear warmup, cosine, a floor; and the pace of a run."""

import pytest

from app.pipeline.config import parse_config
from app.pipeline.train.pace import Pace
from app.pipeline.train.schedule import learning_rate_at

CONFIG = parse_config(
    {"learning_rate": 0.01, "final_learning_rate": 1e-5, "warmup_steps": 10, "warmup_factor": 0.1, "epochs": 1}
)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.001), (5, 0.0055), (10, 0.01), (99, 1e-5)],
    ids=["starts at the factor", "half of the warmup", "peak after the warmup", "ends at the floor"],
)
def test_learning_rate_at_the_corners(step, expected):
    assert learning_rate_at(step, 100, CONFIG) == pytest.approx(expected)


def test_half_of_the_cosine_is_half_way_down():
    assert learning_rate_at(10 + 45, 101, CONFIG) == pytest.approx((0.01 + 1e-5) / 2, rel=1e-6)


def test_short_run_warms_up_for_a_fifth_of_it():
    rates = [learning_rate_at(step, 20, CONFIG) for step in range(20)]
    assert rates.index(max(rates)) == 4


def test_single_step_run_has_a_learning_rate():
    assert learning_rate_at(0, 1, CONFIG) == pytest.approx(0.01)


def test_pace_counts_images_without_the_time_of_validation():
    now = [0.0]
    pace = Pace(num_steps=10, clock=lambda: now[0])
    pace.add(8)
    now[0] = 2.0
    with pace.paused():
        now[0] = 10.0
    assert pace.images_per_s() == pytest.approx(4)
    assert pace.eta_s(5) == pytest.approx(10)
    assert pace.eta_s(0) is None
