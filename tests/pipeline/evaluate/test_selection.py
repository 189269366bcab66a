"""The verdict on what was tried: by which metric, what the noise says, and what else moved."""

import pytest

from app.pipeline.evaluate.difference import Difference
from app.pipeline.evaluate.selection import explain_gain

BEFORE = {"map": 0.300, "map50": 0.600, "map75": 0.250, "f1": 0.600}


@pytest.mark.parametrize(
    ("metric", "change", "bounds", "expected"),
    [
        (
            "map50_f1",
            {"map": 0.355, "f1": 0.597},
            None,
            "0.599 fused, 0.600 alone, by the run's selection metric, 0.5 mAP50 + 0.5 F1. mAP rose by 0.055.",
        ),
        (
            "map",
            {"map": 0.355, "f1": 0.580, "map75": 0.262},
            (0.055, 0.010, 0.090),
            "Gain: 0.355 fused, 0.300 alone, by the run's selection metric, mAP. "
            "The difference is +0.055, 95 % interval +0.010 to +0.090. mAP75 rose by 0.012 and F1 fell by 0.020.",
        ),
        (
            "map50",
            {"map50": 0.610},
            (0.010, -0.010, 0.030),
            "Within the noise: 0.610 fused, 0.600 alone, by the run's selection metric, mAP50. The difference is "
            "+0.010, 95 % interval -0.010 to +0.030; these images would show one of 0.020 or more.",
        ),
    ],
    ids=["not measured", "gain", "noise"],
)
def test_verdict_names_its_metric_the_noise_and_the_other_figures_that_moved(metric, change, bounds, expected):
    noise = bounds and Difference(0.6, 0.5, 0.7, 0.6, 0.5, 0.7, *bounds, 0.9, 0.02).to_json()
    assert explain_gain(metric, BEFORE, {**BEFORE, **change}, "alone", "fused", noise) == expected
