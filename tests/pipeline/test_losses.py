"""Losses against torchvision's own and against values worked out by hand."""

import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder, _box_loss

from app.pipeline.config import BOX_LOSSES
from app.pipeline.losses import box_loss, class_loss, inverse_frequency_weights

CODERS = {"rpn": BoxCoder((1.0, 1.0, 1.0, 1.0)), "box head": BoxCoder((10.0, 10.0, 5.0, 5.0))}


def loss_of(name, predicted, truth):
    """The loss of one predicted box against its true one."""
    coder = CODERS["box head"]
    starts = torch.tensor([[10.0, 10, 30, 40]])
    offsets = coder.encode_single(torch.tensor([predicted]), starts)
    return float(box_loss(name)(offsets, starts, torch.tensor([truth]), coder).sum())


@pytest.mark.parametrize("coder", CODERS.values(), ids=CODERS.keys())
@pytest.mark.parametrize("name", ["l1", "smooth_l1", "giou", "diou", "ciou"])
def test_box_losses_are_those_that_torchvision_calls_so(name, coder):
    torch.manual_seed(0)
    starts, truth = (torch.cat([corners, corners + 5 + 40 * torch.rand(20, 2)], 1) for corners in torch.rand(2, 20, 2))
    offsets = torch.randn(20, 4)
    theirs = _box_loss(name, coder, starts, truth, offsets, {"beta": 1 / 9})
    torch.testing.assert_close(box_loss(name)(offsets, starts, truth, coder).sum(), theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("iou", 1 - 1 / 3),  # two squares of 10 that share half of one: 50 / 150
        ("giou", 1 - 1 / 3),  # they fill their hull of 15 x 10
        ("diou", 1 - 1 / 3 + 25 / 325),  # centers 5 apart, the hull's diagonal squared is 15^2 + 10^2
        ("ciou", 1 - 1 / 3 + 25 / 325),  # both are square
    ],
)
def test_losses_of_overlap_by_hand(name, expected):
    assert loss_of(name, [0.0, 0, 10, 10], [5.0, 0, 15, 10]) == pytest.approx(expected, abs=1e-5)


def test_ciou_adds_the_difference_in_ratio():
    """10 x 20 against 20 x 10 with one center: IoU 100/300, v = 4/pi^2 (atan 2 - atan 1/2)^2, alpha = v/(1-IoU+v)."""
    ratio = 4 / math.pi**2 * (math.atan(2) - math.atan(0.5)) ** 2
    expected = 2 / 3 + ratio**2 / (2 / 3 + ratio)
    assert loss_of("ciou", [5.0, 0, 15, 20], [0.0, 5, 20, 15]) == pytest.approx(expected, abs=1e-5)


def test_giou_of_boxes_apart_by_hand():
    """Two squares of 10 with 10 between them: the hull of 30 x 10 is a third empty."""
    assert loss_of("giou", [0.0, 0, 10, 10], [20.0, 0, 30, 10]) == pytest.approx(1 + 1 / 3, abs=1e-5)


def test_smooth_l1_by_hand():
    """Offsets wrong by 0.05 (below beta, squared) and by 1 (linear): 0.05^2 * 9 / 2 + 1 - 1/18."""
    coder, starts = CODERS["rpn"], torch.tensor([[0.0, 0, 10, 10]])
    found = box_loss("smooth_l1")(torch.tensor([[0.05, 0, 1, 0]]), starts, starts, coder)
    assert float(found) == pytest.approx(0.05**2 * 4.5 + 1 - 1 / 18)
    assert float(box_loss("l1")(torch.tensor([[0.05, 0, 1, 0]]), starts, starts, coder)) == pytest.approx(1.05)


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_a_right_box_costs_nothing_and_no_box_at_all_neither(name):
    assert loss_of(name, [3.0, 4, 23, 54], [3.0, 4, 23, 54]) == pytest.approx(0, abs=1e-5)
    offsets = torch.zeros(0, 4, requires_grad=True)
    nothing = box_loss(name)(offsets, torch.zeros(0, 4), torch.zeros(0, 4), CODERS["rpn"]).sum()
    nothing.backward()
    assert nothing.item() == 0


DEGENERATE = {
    "a prediction that shrinks to nothing": (torch.tensor([[0.0, 0, -200, -200]]), [0.0, 0, 10, 10]),
    "a prediction without height": (torch.tensor([[0.0, 0, 0, -200]]), [0.0, 0, 10, 10]),
    "a prediction beyond all bounds": (torch.tensor([[1e4, -1e4, 1e3, 1e3]]), [0.0, 0, 10, 10]),
    "boxes apart": (torch.tensor([[9.0, 9, 0, 0]]), [0.0, 0, 10, 10]),
    "a start as thin as the RPN lets through": (torch.tensor([[0.1, 0.1, 0.1, 0.1]]), [0.0, 0, 10, 1e-3]),
}


@pytest.mark.parametrize(("offsets", "start"), DEGENERATE.values(), ids=DEGENERATE.keys())
@pytest.mark.parametrize("name", BOX_LOSSES)
def test_gradients_of_degenerate_boxes_are_finite(name, offsets, start):
    offsets = offsets.clone().requires_grad_()
    loss = box_loss(name)(offsets, torch.tensor([start]), torch.tensor([[2.0, 3, 12, 9]]), CODERS["rpn"])
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(offsets.grad).all()


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou"])
@pytest.mark.parametrize("start", [[5.0, 5, 5, 5], [0.0, 5, 10, 5]], ids=["a point", "a line"])
def test_a_region_of_size_zero_breaks_no_loss_of_overlap(name, start):
    offsets = torch.zeros(1, 4, requires_grad=True)
    loss = box_loss(name)(offsets, torch.tensor([start]), torch.tensor([[2.0, 3, 12, 9]]), CODERS["rpn"])
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(offsets.grad).all()


def test_half_precision_does_not_overflow():
    """float16 ends at 65,504; the area of a box of 300 x 300 is more."""
    start = torch.tensor([[0.0, 0, 300, 300]])
    loss = box_loss("ciou")(torch.zeros(1, 4, dtype=torch.float16), start, start, CODERS["rpn"])
    assert float(loss) == pytest.approx(0, abs=1e-4)


def test_unknown_losses_are_refused_by_name():
    with pytest.raises(ValueError, match="'huber'"):
        box_loss("huber")
    with pytest.raises(ValueError, match="'hinge'"):
        class_loss("hinge")


def test_focal_loss_by_hand():
    """A share of .8 for the right class: (1 - .8)^2 * -ln .8."""
    logits = torch.log(torch.tensor([[0.2, 0.8]]))
    assert float(class_loss("focal", 2.0)(logits, torch.tensor([1]))) == pytest.approx(0.04 * -math.log(0.8))


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.5, 3.0])], ids=["equal", "weighted"])
def test_focal_loss_with_gamma_zero_is_cross_entropy(weights):
    torch.manual_seed(0)
    logits, labels = torch.randn(30, 3), torch.randint(0, 3, (30,))
    expected = F.cross_entropy(logits, labels, weights)
    torch.testing.assert_close(class_loss("focal", 0.0)(logits, labels, weights), expected)
    torch.testing.assert_close(class_loss("cross_entropy")(logits, labels, weights), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_of_the_sure_and_the_surely_wrong_has_finite_gradients(gamma):
    logits = torch.tensor([[0.0, 500], [500, 0], [0, 0]], requires_grad=True)
    class_loss("focal", gamma)(logits, torch.tensor([1, 1, 1])).backward()
    assert torch.isfinite(logits.grad).all()


def test_rare_classes_weigh_more_and_the_mean_over_boxes_is_one():
    weights = inverse_frequency_weights([90, 10, 0])
    assert weights.tolist() == pytest.approx([1.0, 100 / 180, 5.0, 1.0])  # the background and an absent class: 1
    assert (90 * weights[1] + 10 * weights[2]) / 100 == pytest.approx(1)


def test_no_boxes_at_all_weigh_the_same():
    assert inverse_frequency_weights([0, 0]).tolist() == [1, 1, 1]
