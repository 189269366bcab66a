"""One of two processes that add up gradients, and compare them with those of one; started by torch.distributed.run."""

import copy

import torch
from torch import nn

from app.pipeline.train.gradients import GradientSum
from app.pipeline.train.ranks import Ranks
from tests.pipeline.train.broken import Broken

SIDE = 600  # 1.4 MB a layer, so that the two that are used are sent one after the other

torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.ModuleDict({name: nn.Linear(SIDE, SIDE, bias=False) for name in ("first", "second", "unused")})
alone = copy.deepcopy(model)
inputs = torch.randn(4, 3, SIDE)


def losses(layers: nn.ModuleDict, index: int, names: str, is_broken: bool = False) -> dict[str, torch.Tensor]:
    value = inputs[index]
    for name in names.split():
        value = layers[name](value)
        if is_broken and name == "first":
            value = Broken.apply(value)
    return {"loss": value.square().mean()}


def step(*parts: tuple[int, str], is_broken: bool = False) -> None:
    """A step on these parts (index of the input, layers it passes through) in this process."""
    with ranks.together(), gradients.of_step():
        for number, part in enumerate(parts):
            with gradients.of_part(is_last=number == len(parts) - 1):
                found = gradients.losses(lambda part=part: losses(model, *part, is_broken=is_broken))
                (found["loss"] * 0.25).backward()


def compare(first: list[tuple[int, str]], second: list[tuple[int, str]]) -> None:
    """The gradients of a step of the two processes and of one that adds up the same, per process as they do."""
    step(*(second if ranks.rank else first))
    sums: dict[str, torch.Tensor] = {}
    for parts in (first, second):
        for part in parts:
            (losses(alone, *part)["loss"] * 0.25).backward()
        for name, parameter in alone.named_parameters():
            if parameter.grad is not None:
                sums[name] = sums[name] + parameter.grad if name in sums else parameter.grad
                parameter.grad = None
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name not in sums), name
        assert parameter.grad is None or torch.equal(parameter.grad, sums[name]), name
        parameter.grad = None


with Ranks.joined(2) as ranks:
    gradients = GradientSum(model, ranks)
    compare([(0, "first second")], [(1, "first second")])
    compare([(0, "first second")], [(1, "first")])
    compare([(0, "first")], [])
    compare([(0, "second"), (2, "first")], [(1, "first second"), (3, "first")])
    try:  # behind the second layer, whose gradient is on its way already
        step((0, "first second"), is_broken=ranks.rank == 1)
    except RuntimeError as error:
        assert str(error) == "no such layer"
    else:
        raise AssertionError("the error of one process did not reach the other")
    model = copy.deepcopy(alone)  # as a run does that begins again: the hooks of a step that was broken off may linger
    for layers in (model, alone):
        layers["first"].requires_grad_(False)
    gradients = GradientSum(model, ranks)
    compare([(0, "first second")], [(1, "first second")])
    for layers in (model, alone):  # as another phase does
        layers["first"].requires_grad_(True)
    compare([(0, "first second")], [(1, "second")])
