"""A layer whose backward pass fails."""

import torch


class Broken(torch.autograd.Function):
    """What raises when its gradient is asked for."""

    @staticmethod
    def forward(context, value):
        return value.clone()

    @staticmethod
    def backward(context, gradient):
        raise RuntimeError("no such layer")
