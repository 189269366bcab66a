"""Frozen batch norm as part of the convolution before it: ``conv(x, W * s, b)`` in place of ``conv(x, W) * s + b``.

The same outputs and gradients, and the same state-dict keys. torchvision's layer has float32 buffers, so that in mixed
precision every map goes back to float32, is kept so for the backward pass, and is converted once more for the next
convolution; scaling the weights leaves out these passes over the maps. C channels, F filters.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

PROBE_PX = 64


class FoldingBatchNorm2d(FrozenBatchNorm2d):
    """Frozen batch norm that its convolution may have applied already (``is_folded``)."""

    is_folded = False
    _made: tuple[tuple[Tensor, ...], list[int], Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same, in the dtype of ``x``."""
        if self.is_folded:
            return x
        scale, shift = (part.to(x.dtype).view(1, -1, 1, 1) for part in self.scale_and_shift())
        return torch.addcmul(shift, x, scale)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """float32 [C] each: the layer is ``x * scale + shift``. Computed again when a buffer has changed."""
        buffers = (self.weight, self.bias, self.running_mean, self.running_var)
        versions = [buffer._version for buffer in buffers]
        made = self._made
        if made is None or made[1] != versions or any(a is not b for a, b in zip(made[0], buffers, strict=True)):
            with torch.inference_mode(False), torch.no_grad():  # training may go on with what a prediction made
                scale = self.weight * (self.running_var + self.eps).rsqrt()
                made = self._made = (buffers, versions, scale, self.bias - self.running_mean * scale)
        return made[2], made[3]


class FoldingBatchNormAct(FoldingBatchNorm2d):
    """timm's BatchNormAct2d, which drops out and activates behind the norm, with fixed statistics and weights."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        return self.act(self.drop(super().forward(x)))


class NormedConv2d(nn.Conv2d):
    """A convolution that applies the frozen batch norm behind it; its own weights, gradients and keys stay the same."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] to [B, F, H', W'], normalized."""
        scale, shift = self.norm[0].scale_and_shift()
        if self.bias is not None:
            shift = shift + self.bias * scale
        return self._conv_forward(input, self.weight * scale.view(-1, 1, 1, 1), shift)


def freeze_layer(layer: nn.BatchNorm2d) -> FoldingBatchNorm2d:
    """The same layer with fixed statistics and weights."""
    kind = FoldingBatchNormAct if isinstance(layer, BatchNormAct2d) else FoldingBatchNorm2d
    frozen = kind(layer.num_features, eps=layer.eps)
    for name in ("weight", "bias", "running_mean", "running_var"):
        setattr(frozen, name, getattr(layer, name).detach().clone())
    return frozen


def fold_into_convolutions(body: nn.Module) -> int:
    """Let convolutions of ``body`` apply the frozen batch norm that gets their output, and nothing else does.

    Which those are is seen by sending a small image through. Layers behind anything else stay layers. Returns how many
    are folded.
    """
    pairs = _find_pairs(body)
    for conv, norm in pairs:
        conv.__class__ = NormedConv2d
        conv.norm = (norm,)  # in a tuple it is not a child, and has its keys once
        norm.is_folded = True
    return len(pairs)


def _find_pairs(body: nn.Module) -> list[tuple[nn.Conv2d, FoldingBatchNorm2d]]:
    made: list[tuple[nn.Conv2d, Tensor]] = []
    taken: list[tuple[FoldingBatchNorm2d, Tensor]] = []

    def note_conv(conv: nn.Conv2d, _: Any, output: Tensor) -> None:
        made.append((conv, output))

    def note_norm(norm: FoldingBatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        taken.append((norm, inputs[0]))

    hooks = [layer.register_forward_hook(note_conv) for layer in body.modules() if type(layer) is nn.Conv2d]
    norms = [layer for layer in body.modules() if isinstance(layer, FoldingBatchNorm2d)]
    hooks += [layer.register_forward_pre_hook(note_norm) for layer in norms]
    modes = [(module, module.training) for module in body.modules()]
    stem = next(layer.weight for layer in body.modules() if isinstance(layer, nn.Conv2d))
    try:
        image = stem.new_zeros((1, stem.shape[1], PROBE_PX, PROBE_PX))
        with torch.enable_grad():
            answer = body.eval()(image.requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
    uses = _count_uses(answer.values() if isinstance(answer, dict) else answer)
    runs = Counter(layer for layer, _ in [*made, *taken])
    of_output = {id(output): conv for conv, output in made}
    pairs = [(of_output[id(x)], norm, x) for norm, x in taken if id(x) in of_output]
    return [(conv, norm) for conv, norm, x in pairs if runs[conv] == runs[norm] == uses[x.grad_fn] == 1]


def _count_uses(outputs: Iterable[Tensor]) -> Counter[Any]:
    """How many operations take the result of each node of the graphs behind ``outputs``, which count as one each."""
    uses = Counter(output.grad_fn for output in outputs)
    waiting = list(uses)
    while waiting:
        for taken, _ in waiting.pop().next_functions:
            if taken is not None:
                if taken not in uses:
                    waiting.append(taken)
                uses[taken] += 1
    return uses
