"""From losses to weights: clipping, accumulation, loss scaling, averaged weights."""

import copy

import pytest
import torch
from torch import nn

from app.pipeline.config import parse_config
from app.pipeline.machine import Machine
from app.pipeline.train.ema import AveragedModel
from app.pipeline.train.optim import NonFiniteLoss, Updater, check_weights

CPU = Machine(torch.device("cpu"), torch.float32)
CONFIG = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.1}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def data(num=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num, 3, generator=generator), torch.randn(num, 1, generator=generator)


def step(model, groups, machine=CPU, **values):
    """One optimizer step on ``groups`` of rows; returns the weights after it."""
    model = copy.deepcopy(model)
    updater = Updater(model, parse_config({**CONFIG, **values}), machine)
    inputs, wanted = data()
    total = sum(len(rows) for rows in groups)
    for rows in groups:
        updater.add(nn.functional.mse_loss(model(inputs[rows]), wanted[rows]), len(rows) / total)
    updater.apply(["a.png"])
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


ROWS = list(range(8))


@pytest.mark.parametrize("max_norm", [0, 0.01], ids=["free", "clipped"])
@pytest.mark.parametrize(
    "groups",
    [[ROWS[:4], ROWS[4:]], [ROWS[:3], ROWS[3:6], ROWS[6:]], [[row] for row in ROWS]],
    ids=["two equal batches", "the last one smaller", "one image each"],
)
def test_accumulated_batches_are_one_big_batch(model, groups, max_norm):
    whole = step(model, [ROWS], clip_gradient_norm=max_norm)
    assert torch.allclose(step(model, groups, clip_gradient_norm=max_norm), whole, atol=1e-7)


def test_clipping_bounds_the_step_not_its_batches(model):
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    after = step(model, [ROWS[:4], ROWS[4:]], clip_gradient_norm=0.01)
    assert float((after - before).norm()) == pytest.approx(0.1 * 0.01, rel=1e-3)


@pytest.mark.parametrize("max_norm", [0, 0.01], ids=["free", "clipped"])
@pytest.mark.parametrize("groups", [[ROWS], [ROWS[:4], ROWS[4:]]], ids=["one batch", "two batches"])
def test_loss_scaling_changes_no_step(model, groups, max_norm):
    """A scaler multiplies the loss by 65536: unscaled too late the clipping would cut nearly all of the gradient."""
    scaled = step(model, groups, Machine(torch.device("cpu"), torch.float16), clip_gradient_norm=max_norm)
    assert torch.allclose(scaled, step(model, groups, clip_gradient_norm=max_norm), atol=1e-7)


def test_infinite_gradient_is_told_before_the_weights_change(model):
    updater = Updater(model, parse_config(CONFIG), CPU)
    before = copy.deepcopy(model.state_dict())
    updater.add(model(torch.full((1, 3), 1e38)).sum() * 1e38)
    with pytest.raises(NonFiniteLoss, match=r"gradient became .* b\.png"):
        updater.apply(["b.png"])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_gradient_that_is_read_late_changes_nothing_and_is_told_with_the_next_losses(monkeypatch, model, optimizer):
    """A GPU is not asked at once: its optimizer leaves the update out by itself, momenta and counters included."""
    monkeypatch.setattr(Updater, "reads_late", True)
    updater = Updater(model, parse_config({**CONFIG, "optimizer": optimizer, "momentum": 0.9}), CPU)
    inputs, wanted = data()
    loss = nn.functional.mse_loss(model(inputs), wanted)
    updater.add(loss)
    updater.apply(["a.png"])
    assert updater.read([loss, loss * 2]) == [loss.item(), loss.item() * 2]
    before = copy.deepcopy([model.state_dict(), updater.state_dict()])
    updater.add(model(torch.full((1, 3), 1e38)).sum() * 1e38)
    updater.apply(["b.png"])
    torch.testing.assert_close([model.state_dict(), updater.state_dict()], before, rtol=0, atol=0)
    with pytest.raises(NonFiniteLoss, match=r"gradient became .* b\.png") as told:
        updater.read([loss])
    assert told.value.is_late
    assert updater.read() == []


@pytest.mark.parametrize("max_norm", [0.0, 100.0])
def test_first_step_that_is_left_out_leaves_no_momentum(model, max_norm):
    """Loss scaling begins too high as a rule. torch's fused SGD then kept as momentum what lay in memory."""
    updater = Updater(model, parse_config({**CONFIG, "momentum": 0.9, "clip_gradient_norm": max_norm}), CPU)
    updater.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    plain = copy.deepcopy(model)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    scraps = [torch.full_like(parameter, torch.nan) for parameter in model.parameters() for _ in range(50)]
    del scraps  # memory that the optimizer finds
    updater.add(model(torch.full((1, 3), 1e38)).sum() * 1e38)
    updater.apply(["a.png"])
    inputs, wanted = data()
    for _ in range(2):
        updater.add(nn.functional.mse_loss(model(inputs), wanted))
        updater.apply(["b.png"])
        optimizer.zero_grad()
        nn.functional.mse_loss(plain(inputs), wanted).backward()
        optimizer.step()
    for own, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own, other)


def test_gradients_that_were_dropped_leave_no_trace(model):
    inputs, wanted = data()
    updater = Updater(model, parse_config(CONFIG), CPU)
    updater.add(model(inputs).sum() * 100)
    updater.forget()
    updater.add(nn.functional.mse_loss(model(inputs), wanted))
    clean = copy.deepcopy(model)
    updater.apply(["a.png"])
    assert torch.allclose(
        torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), step(clean, [ROWS]), atol=1e-7
    )


def test_average_follows_the_weights_with_a_ramp():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    average = AveragedModel(model, decay=0.5)
    expected = 0.0
    for n in range(20):
        nn.init.constant_(model.weight, n + 1.0)
        decay = min(0.5, (1 + n) / (10 + n))
        assert average.decay == pytest.approx(decay)
        expected = decay * expected + (1 - decay) * (n + 1.0)
        average.update()
        assert float(average.model.weight) == pytest.approx(expected, rel=1e-6)


def test_average_has_own_tensors_counters_and_no_gradients():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = AveragedModel(model, decay=0.9)
    kept = average.model[0].weight.clone()
    model(torch.randn(4, 2))
    with torch.no_grad():
        model[0].weight.add_(1)
    assert torch.equal(average.model[0].weight, kept)
    average.update()
    assert int(average.model[1].num_batches_tracked) == 1
    assert not average.model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())


def test_what_does_not_change_is_the_same_in_the_average_to_the_bit():
    model = nn.Linear(50, 50)
    average = AveragedModel(model, decay=0.999)
    for _ in range(30):
        average.update()
    assert torch.equal(average.model.weight, model.weight)


def test_average_goes_on_from_its_saved_state():
    model = nn.Linear(2, 2)
    first, second = AveragedModel(model, 0.99), AveragedModel(nn.Linear(2, 2), 0.99)
    for _ in range(5):
        first.update()
    second.load_state_dict(first.model.state_dict(), first.state_dict())
    assert second.decay == first.decay == pytest.approx(6 / 15)
    assert torch.equal(second.model.weight, first.model.weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_number_among_the_weights_that_is_not_finite_is_found(value):
    model = nn.Sequential(nn.Linear(50, 50), nn.BatchNorm1d(50))
    check_weights(model, ["a.png"])
    model[1].running_var[7] = value
    with pytest.raises(NonFiniteLoss, match=r"weights became .* on a batch of a\.png"):
        check_weights(model, ["a.png"])


@pytest.mark.parametrize("reads_late", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.9999, 1.0, 1.5, 30.0])
def test_clipping_is_torchs_to_the_bit_on_both_sides_of_the_limit(monkeypatch, model, share, reads_late):
    """Where nothing is clipped the gradients are left alone, in place of being multiplied by one."""
    monkeypatch.setattr(Updater, "reads_late", reads_late)
    plain = copy.deepcopy(model)
    inputs, wanted = data()
    for one in (model, plain):
        nn.functional.mse_loss(one(inputs), wanted).backward()
    limit = share * float(nn.utils.get_total_norm([parameter.grad for parameter in plain.parameters()]))
    nn.utils.clip_grad_norm_(plain.parameters(), limit)
    torch.optim.SGD(plain.parameters(), lr=0.1).step()
    updater = Updater(model, parse_config({**CONFIG, "clip_gradient_norm": limit}), CPU)
    updater.set_learning_rate(0.1)
    updater.apply(["a.png"])
    assert all(torch.equal(own, other) for own, other in zip(model.parameters(), plain.parameters(), strict=True))
