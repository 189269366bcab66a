"""The learning rate: warmup, every schedule against torch's own, phases; and the pace of a run."""

import pytest
import torch
from torch.optim import lr_scheduler

from app.pipeline.config import parse_config
from app.pipeline.train.pace import Pace
from app.pipeline.train.schedule import learning_rate_at, phase_of_epoch, stages_of, warmup_of

CONFIG = parse_config(
    {"learning_rate": 0.01, "final_learning_rate": 1e-5, "warmup_steps": 10, "warmup_factor": 0.1, "epochs": 1}
)
STEPS = 97  # a prime: no corner of a schedule falls on a step by chance


def rates(values, num_steps=STEPS):
    config = parse_config({"learning_rate": 0.01, "warmup_steps": 0, "epochs": 1, **values})
    return [learning_rate_at(step, num_steps, config) for step in range(num_steps)]


def torch_rates(make, num_steps=STEPS):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.01)
    scheduler = make(optimizer)
    seen = []
    for _ in range(num_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.001), (5, 0.0055), (10, 0.01), (99, 1e-5)],
    ids=["starts at the factor", "half of the warmup", "peak after the warmup", "ends at the floor"],
)
def test_learning_rate_at_the_corners(step, expected):
    assert learning_rate_at(step, 100, CONFIG) == pytest.approx(expected)


def test_half_of_the_cosine_is_half_way_down():
    assert learning_rate_at(10 + 45, 101, CONFIG) == pytest.approx((0.01 + 1e-5) / 2, rel=1e-6)


def test_cosine_is_that_of_torch():
    golden = torch_rates(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS - 1, eta_min=1e-5))
    assert rates({"schedule": "cosine", "final_learning_rate": 1e-5}) == pytest.approx(golden, rel=1e-6)


def test_one_cycle_is_that_of_torch():
    """torch divides the peak by 25 for the start, and the start by ``final_div_factor`` for the floor."""
    golden = torch_rates(
        lambda optimizer: lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.01, total_steps=STEPS + 1, final_div_factor=0.01 / 25 / 1e-6, cycle_momentum=False
        ),
        STEPS + 1,
    )
    ours = rates({"schedule": "onecycle", "final_learning_rate": 1e-6}, STEPS + 1)
    assert ours == pytest.approx(golden, rel=1e-6)
    assert ours[0] == pytest.approx(0.01 / 25)


def test_multistep_is_that_of_torch():
    golden = torch_rates(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, milestones=[58, 68, 87], gamma=0.1))
    assert rates({"schedule": "multistep", "milestones": [0.6, 0.7, 0.9]}) == pytest.approx(golden)


@pytest.mark.parametrize("power", [0.9, 2.0])
def test_polynomial_is_that_of_torch(power):
    golden = torch_rates(lambda optimizer: lr_scheduler.PolynomialLR(optimizer, total_iters=STEPS - 1, power=power))
    values = {"schedule": "polynomial", "polynomial_power": power, "final_learning_rate": 0}
    assert rates(values) == pytest.approx(golden, abs=1e-12)


def test_constant_stays():
    assert set(rates({"schedule": "constant"})) == {0.01}


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "multistep", "polynomial", "constant"])
def test_every_schedule_warms_up_linearly_to_where_it_starts(schedule):
    ours = rates({"schedule": schedule, "warmup_steps": 10, "warmup_factor": 0.1})
    top = 0.01 / 25 if schedule == "onecycle" else 0.01
    assert ours[0] == pytest.approx(0.1 * top)
    assert ours[5] == pytest.approx(0.55 * top)
    assert ours[10] == pytest.approx(top)
    assert max(ours) == pytest.approx(0.01, rel=0.01)


def test_milestones_are_shares_of_the_whole_run_with_its_warmup():
    """steps (3000, 3500, 4500) of 5000, as in the nuclei recipe."""
    values = {"schedule": "multistep", "milestones": [0.6, 0.7, 0.9], "warmup_steps": 1000, "learning_rate": 1.0}
    ours = rates(values, 5000)
    drops = [step for step in range(1001, 5000) if ours[step] < ours[step - 1]]
    assert drops == [3000, 3500, 4500]
    assert ours[-1] == pytest.approx(1e-3)


def test_warmup_can_be_a_share_of_the_run():
    config = parse_config({"warmup_share": 0.05, "warmup_steps": 3})
    assert warmup_of(4000, config) == 200


def test_short_run_warms_up_for_a_fifth_of_it():
    rates = [learning_rate_at(step, 20, CONFIG) for step in range(20)]
    assert rates.index(max(rates)) == 4


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "multistep", "polynomial", "constant"])
def test_single_step_run_has_a_learning_rate(schedule):
    assert rates({"schedule": schedule}, 1) == pytest.approx([0.01])


PHASED = parse_config(
    {
        "epochs": 6,
        "warmup_steps": 4,
        "warmup_factor": 0.5,
        "final_learning_rate": 0,
        "phases": [
            {"train": "rpn", "epochs": 2, "learning_rate": 0.02},
            {"train": "heads", "epochs": 1, "learning_rate": 0.01},
            {"train": "all", "epochs": 3, "learning_rate": 0.001},
        ],
    }
)


def test_each_phase_has_its_own_warmup_peak_and_floor():
    ours = [learning_rate_at(step, 120, PHASED) for step in range(120)]
    assert [stage.first for stage in stages_of(120, PHASED)] == [0, 40, 60]
    for first, last, peak in [(0, 39, 0.02), (40, 59, 0.01), (60, 119, 0.001)]:
        assert ours[first] == pytest.approx(peak / 2)
        assert max(ours[first : last + 1]) == ours[first + 4] == pytest.approx(peak)
        assert ours[last] == pytest.approx(0, abs=1e-9)


def test_epochs_belong_to_their_phases():
    assert [phase_of_epoch(epoch, PHASED)[0] for epoch in range(1, 7)] == [0, 0, 1, 2, 2, 2]
    assert [phase_of_epoch(epoch, PHASED)[1].train for epoch in (2, 3, 4)] == ["rpn", "heads", "all"]
    assert phase_of_epoch(1, CONFIG) == (0, None)


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
