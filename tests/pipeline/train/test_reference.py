"""The plain loop that ours is compared with: torchvision's own steps, by the recipe of the run beside it."""

import pytest
import torch

from app.pipeline.config import parse_config
from app.pipeline.machine import Machine
from app.pipeline.models import build
from app.pipeline.models.build import build_model
from app.pipeline.models.forward import Batch, compute_losses
from app.pipeline.train import reference
from app.pipeline.train.optim import Updater
from app.pipeline.train.reference import ReferenceLoop, as_float_images
from benchmarks.first_run import Point, seconds_to_reach
from tests.pipeline.train.tiny_dataset import TINY, construct_tiny

CPU = Machine(torch.device("cpu"), torch.float32)
# All that may be sampled is sampled, so that chance has no part in it. A norm this small clips every step.
RECIPE = {"rpn_batch_size": 4096, "roi_batch_size": 4096, "max_detections": 20, "clip_gradient_norm": 0.1}


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [({}, 3e-4), ({"optimizer": "sgd", "weight_decay": 0.5}, 1e-6)],
    ids=["adamw, which makes much of gradients near zero", "sgd"],
)
def test_plain_loop_with_the_recipe_of_a_run_comes_to_its_weights(monkeypatch, changes, tolerance):
    for module in (build, reference):
        monkeypatch.setattr(module, "construct", construct_tiny)
    config = parse_config({**TINY, **RECIPE, **changes})
    torch.manual_seed(0)
    ours = build_model(config, 2).train()
    updater, plain = Updater(ours, config, CPU), ReferenceLoop(config, 2, CPU, max_norm=config.clip_gradient_norm)
    frozen = next(iter(ours.parameters())).requires_grad_(False)
    plain.start_from(ours)
    batch = Batch(
        torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)),
        [(64, 64)] * 2,
        [{"boxes": torch.tensor([[4.0, 4, 36, 30]]), "labels": torch.tensor([label])} for label in (1, 2)],
        ["a.png", "b.png"],
    )
    for rate in (0.01, 0.002):
        updater.set_learning_rate(rate)
        plain.set_learning_rate(rate)
        updater.add(sum(compute_losses(ours, batch, CPU).values()))
        updater.apply(batch.names)
        plain.step(as_float_images(batch), batch.targets)
    assert torch.equal(frozen, next(iter(plain.model.parameters())))
    for own, other in zip(ours.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize(
    ("level", "expected"),
    [(0.1, (5, 10)), (0.2, (10, 20)), (0.25, (32.5, 60)), (0.3, (35, 64)), (0.4, (40, 72))],
    ids=["before the first validation", "at one", "the best so far counts", "half way", "at the last"],
)
def test_seconds_to_an_accuracy_lie_between_validations(level, expected):
    curve = [Point(10, 20, 0.2), Point(30, 56, 0.15), Point(40, 72, 0.4)]
    assert seconds_to_reach(curve, level) == pytest.approx(expected)


def test_accuracy_that_was_never_reached_has_no_seconds():
    with pytest.raises(ValueError, match=r"0\.500 was never reached"):
        seconds_to_reach([Point(10, 20, 0.2)], 0.5)
