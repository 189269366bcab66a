"""The training step as a GPU sees it: how many operations, how many waits. Counted on the CPU, with a GPU's choices."""

import pytest
import torch

from app.pipeline.models import build, proposals
from app.pipeline.models.build import build_model
from app.pipeline.models.forward import compute_losses, place_model
from benchmarks.step_calls import as_on_a_gpu, count_calls
from tests.pipeline.models.test_heads import BOXES, CPU, NAMES, batch_of, config_of
from tests.pipeline.train.tiny_dataset import construct_tiny


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(build, "construct", construct_tiny)


def placed_model():
    torch.manual_seed(0)
    return place_model(build_model(config_of(), 2), CPU).train()


def step_of(model, batch, waits=False):
    def step():
        losses = compute_losses(model, batch, CPU, "all", waits)
        torch.stack(list(losses.values())).sum().backward()
        for parameter in model.parameters():
            parameter.grad = None
        return losses

    return step


def test_a_larger_batch_takes_as_many_operations_and_no_wait():
    """torchvision's step takes 46 waits for two images and 152 for eight."""
    model = placed_model()
    with as_on_a_gpu():
        two, eight = (count_calls(step_of(model, batch_of(*boxes))) for boxes in (BOXES, BOXES * 4))
    assert two.num_kernels == eight.num_kernels > 100
    assert two.waits == eight.waits == []


def test_losses_of_proposals_that_are_not_settled_are_no_numbers(monkeypatch):
    monkeypatch.setattr(proposals, "ROUNDS_AT_ONCE", 1)
    found = []
    for waits in (True, False):
        torch.manual_seed(3)
        with as_on_a_gpu():
            found.append(compute_losses(placed_model(), batch_of(*BOXES), CPU, "all", waits))
    settled, unsettled = found
    of_head = {"loss_classifier", "loss_box_reg"}
    assert {name for name in NAMES if unsettled[name].isnan()} == of_head
    assert all(torch.equal(settled[name], unsettled[name]) for name in set(NAMES) - of_head)
    assert all(settled[name].isfinite() for name in of_head)


def test_padding_takes_no_part_in_what_is_learned():
    """A GPU gets regions of a fixed number, empty places included: the losses and gradients must not know of them."""
    answers = []
    for is_padded in (True, False):
        model = placed_model()
        torch.manual_seed(3)
        if is_padded:
            with as_on_a_gpu():
                losses = compute_losses(model, batch_of([], *BOXES), CPU)
        else:
            losses = compute_losses(model, batch_of([], *BOXES), CPU)
        sum(losses.values()).backward()
        answers.append((losses, {name: parameter.grad for name, parameter in model.named_parameters()}))
    (padded, padded_gradients), (exact, gradients) = answers
    for name in NAMES:
        torch.testing.assert_close(padded[name], exact[name])
    for name, gradient in gradients.items():
        torch.testing.assert_close(padded_gradients[name], gradient, rtol=1e-4, atol=1e-6)


def test_no_place_filled_at_all_costs_nothing():
    model = placed_model()
    model.rpn.head.bbox_pred.bias.data[0::4] = 1e6  # all boxes fall outside
    with as_on_a_gpu():
        losses = compute_losses(model, batch_of([], []), CPU)
    sum(losses.values()).backward()
    assert losses["loss_classifier"] == losses["loss_box_reg"] == 0
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


def test_a_seed_gives_the_same_step_twice():
    found = []
    for seed in (5, 5, 6):
        model = placed_model()
        torch.manual_seed(seed)
        losses = step_of(model, batch_of(*BOXES))()
        found.append([losses[name].item() for name in NAMES])
    assert found[0] == found[1] != found[2]


def test_anchors_are_made_once_and_serve_training_after_predicting():
    model = placed_model()
    with torch.inference_mode():
        compute_losses(model, batch_of(*BOXES), CPU)
    kept = list(model.rpn.anchor_generator._made.values())
    step_of(model, batch_of(*BOXES))()
    assert [id(anchors) for anchors in model.rpn.anchor_generator._made.values()] == [id(kept[0])]
