"""The verdict on what was tried: by which metric, what the noise says, and which has more of other figures."""

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
            "0.599 with the soup, 0.600 with Epoch 4, by the run's selection metric, 0.5 mAP50 + 0.5 F1. "
            "The soup has 0.055 more mAP.",
        ),
        (
            "map",
            {"map": 0.355, "f1": 0.580, "map75": 0.262},
            (0.055, 0.010, 0.090),
            "Gain: 0.355 with the soup, 0.300 with Epoch 4, by the run's selection metric, mAP. "
            "The difference is +0.055, 95 % interval +0.010 to +0.090. "
            "The soup has 0.012 more mAP75; Epoch 4 has 0.020 more F1.",
        ),
        (
            "map50",
            {"map50": 0.610},
            (0.010, -0.010, 0.030),
            "Within the noise: 0.610 with the soup, 0.600 with Epoch 4, by the run's selection metric, mAP50. "
            "The difference is +0.010, 95 % interval -0.010 to +0.030; these images would show one of 0.020 or more.",
        ),
        (
            "map50",
            {"map50": 0.601, "map": 0.271, "map75": 0.228},
            None,
            "0.601 with the soup, 0.600 with Epoch 4, by the run's selection metric, mAP50. "
            "Epoch 4 has 0.029 more mAP and 0.022 more mAP75.",
        ),
    ],
    ids=["not measured", "gain", "noise", "the other has more"],
)
def test_verdict_names_its_metric_the_noise_and_which_has_more_of_the_other_figures(metric, change, bounds, expected):
    noise = bounds and Difference(0.6, 0.5, 0.7, 0.6, 0.5, 0.7, *bounds, 0.9, 0.02).to_json()
    assert explain_gain(metric, BEFORE, {**BEFORE, **change}, "Epoch 4", "the soup", noise) == expected
