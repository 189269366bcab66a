import pytest

from app.pipeline.ensemble import FusionOptions
from app.pipeline.fusion.tune import num_trials, tune


class Landscape:
    """A score with its peak at IoU .7, skip .05 and a quarter of the weight for the last member; counts its trials."""

    def __init__(self):
        self.trials = []

    def __call__(self, options):
        self.trials.append(options)
        away = abs(options.iou_threshold - 0.7) + 2 * abs(options.skip_threshold - 0.05)
        first, second, third = options.weights
        return 1 - away - abs(third / first - 0.25) - abs(second / first - 1)


def test_the_peak_is_found_and_no_trial_is_made_twice():
    score = Landscape()
    best = tune(FusionOptions(method="nmw", conf_type="max"), 3, score)
    assert (best.iou_threshold, best.skip_threshold, best.weights) == (0.7, 0.05, (1, 1, 0.25))
    assert (best.method, best.conf_type) == ("nmw", "max")
    assert len(score.trials) == len(set(score.trials))
    assert 30 < len(score.trials) <= num_trials("nmw", 3)


def test_options_stay_as_they_were_where_nothing_helps():
    start = FusionOptions()
    assert tune(start, 2, lambda options: 0.5) == start.model_copy(update={"weights": (1.0, 1.0)})
    noise = dict.fromkeys([start.model_copy(update={"iou_threshold": 0.3, "weights": (1.0, 1.0)})], 1e-05)
    assert tune(start, 2, lambda options: noise.get(options, 0)).iou_threshold == start.iou_threshold


def test_soft_nms_has_no_iou_to_tune():
    tried = set()
    tune(FusionOptions(method="soft_nms"), 2, lambda options: tried.add(options.iou_threshold) or 0)
    assert tried == {FusionOptions().iou_threshold}


@pytest.mark.parametrize("scale", [1, 3])
def test_weights_are_shares_of_the_largest(scale):
    best = tune(FusionOptions(), 2, lambda options: scale * options.weights[0])
    assert best.weights[0] == 1
