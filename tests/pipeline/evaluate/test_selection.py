"""The verdict on what was tried: by which metric, and what else moved."""

import pytest

from app.pipeline.evaluate.selection import explain_gain, is_gain

BEFORE = {"map": 0.300, "map50": 0.600, "map75": 0.250, "f1": 0.600}


@pytest.mark.parametrize(
    ("metric", "change", "expected"),
    [
        (
            "map50_f1",
            {"map": 0.355, "f1": 0.597},
            "No gain: 0.599 fused, 0.600 alone, by the run's selection metric, 0.5 mAP50 + 0.5 F1. mAP rose by 0.055.",
        ),
        (
            "map",
            {"map": 0.355, "f1": 0.580, "map75": 0.262},
            "Gain: 0.355 fused, 0.300 alone, by the run's selection metric, mAP. "
            "mAP75 rose by 0.012 and F1 fell by 0.020.",
        ),
        ("map50", {}, "No gain: 0.600 fused, 0.600 alone, by the run's selection metric, mAP50."),
    ],
    ids=["another figure rose", "the metric itself is not told twice", "nothing moved"],
)
def test_verdict_names_its_metric_and_the_other_figures_that_moved(metric, change, expected):
    after = {**BEFORE, **change}
    assert explain_gain(metric, BEFORE, after, "alone", "fused") == expected
    assert is_gain(metric, BEFORE, after) == expected.startswith("Gain")


def test_less_than_three_decimals_show_is_no_gain():
    assert not is_gain("map", BEFORE, {**BEFORE, "map": 0.3009})
    assert is_gain("map", BEFORE, {**BEFORE, "map": 0.3011})
