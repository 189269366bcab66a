"""An exponential moving average of the weights: smoother than they are, judged and kept in their place."""

import copy
from typing import Any

import torch
from torch import nn


class AveragedModel:
    """A copy of a model whose weights follow it: ``average += (1 - d) (weights - average)`` after every step.

    The decay d grows with the number of updates n as min(decay, (1 + n) / (10 + n)), so that the random weights of the
    start are forgotten within a few steps (as in TensorFlow's ExponentialMovingAverage). Statistics of batch norm are
    averaged too; counters are copied. A tensor that does not change stays the same to the bit.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.num_updates = 0
        self._decay = decay
        source, target = model.state_dict(), self.model.state_dict()  # both share storage with their models
        floats = [name for name, value in source.items() if value.is_floating_point()]
        self._source, self._target = [source[name] for name in floats], [target[name] for name in floats]
        others = [name for name in source if name not in set(floats)]
        self._copied = [(target[name], source[name]) for name in others]

    @property
    def decay(self) -> float:
        """The decay of the next update."""
        return min(self._decay, (1 + self.num_updates) / (10 + self.num_updates))

    @torch.no_grad()
    def update(self) -> None:
        """Follow the model's weights, once after each optimizer step."""
        torch._foreach_lerp_(self._target, self._source, 1 - self.decay)
        for average, value in self._copied:
            average.copy_(value)
        self.num_updates += 1

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on, besides the averaged weights themselves."""
        return {"num_updates": self.num_updates, "decay": self._decay}

    def load_state_dict(self, weights: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Go on from averaged ``weights`` and what :meth:`state_dict` gave."""
        self.model.load_state_dict(weights)
        self.num_updates = int(state["num_updates"])
