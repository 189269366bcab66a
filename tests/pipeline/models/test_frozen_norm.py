"""Frozen batch norm within convolutions: torchvision's outputs and gradients, the same keys, no map in float32."""

import copy

import pytest
import torch
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

from app.pipeline.models.backbones import build_backbone, freeze_batch_norm
from app.pipeline.models.frozen_norm import FoldingBatchNorm2d, NormedConv2d, fold_into_convolutions, freeze_layer


def backbone_with_statistics(model: str) -> nn.Module:
    torch.manual_seed(0)
    body = build_backbone(model).body
    for name, value in [*body.named_buffers(), *body.named_parameters()]:
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            value.uniform_(-0.3, 0.3)
    return body


def with_torchvisions_layers(body: nn.Module) -> nn.Module:
    for name, child in body.named_children():
        if isinstance(child, nn.BatchNorm2d):
            layer = FrozenBatchNorm2d(child.num_features, eps=child.eps)
            layer.load_state_dict(child.state_dict())
            setattr(body, name, layer)
        else:
            with_torchvisions_layers(child)
    return body


def maps_and_gradients(body: nn.Module):
    maps = list(body(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))).values())
    sum((level * torch.linspace(-1, 1, level.numel()).view(level.shape)).sum() for level in maps).backward()
    return maps, {name: parameter.grad for name, parameter in body.named_parameters()}


def test_outputs_gradients_and_keys_are_torchvisions():
    ours = backbone_with_statistics("fasterrcnn_resnet18_fpn")
    theirs = with_torchvisions_layers(copy.deepcopy(ours))
    assert freeze_batch_norm(ours) == 20
    assert all(layer.is_folded for layer in ours.modules() if isinstance(layer, FoldingBatchNorm2d))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    (maps, gradients), (their_maps, their_gradients) = maps_and_gradients(ours), maps_and_gradients(theirs)
    for own, other in zip(maps, their_maps, strict=True):
        assert own.abs().max() > 0.1
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == their_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize(
    ("model", "folded", "others"),
    [
        ("timm/densenet121", 59, 62),  # norms of concatenated maps stay layers
        ("timm/tf_efficientnet_b0", 43, 5),  # convolutions with their own padding too
        ("timm/repvgg_a0", 44, 17),  # norms of branches without a convolution
    ],
)
def test_only_norms_that_alone_get_a_convolutions_output_are_folded(model, folded, others):
    body = backbone_with_statistics(model).eval()
    images = torch.rand(1, 3, 64, 64)
    before = body(images)
    freeze_batch_norm(body)
    states = [layer.is_folded for layer in body.modules() if isinstance(layer, FoldingBatchNorm2d)]
    assert (sum(states), len(states) - sum(states)) == (folded, others)
    for own, other in zip(body(images), before, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


class Both(nn.Module):
    """A convolution whose output is used behind its norm and beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return [self.norm(x) + x]


def test_an_output_that_something_else_uses_stays_as_it_is():
    body = Both()
    body.norm = freeze_layer(body.norm)
    assert fold_into_convolutions(body) == 0
    assert type(body.conv) is nn.Conv2d


def folded_pair() -> nn.Sequential:
    pair = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert freeze_batch_norm(pair) == 1
    assert isinstance(pair[0], NormedConv2d)
    return pair


def test_what_is_loaded_or_copied_later_is_used():
    """A copy (as for averaged weights) must use its own statistics, and loading must replace what was computed."""
    pair, image = folded_pair(), torch.rand(1, 3, 5, 5)
    with torch.inference_mode():
        before = pair(image)
    twin = copy.deepcopy(pair)
    twin.load_state_dict({**pair.state_dict(), "1.weight": torch.full((4,), 3.0), "1.bias": torch.full((4,), 1.0)})
    torch.testing.assert_close(twin(image), 3 * before + 1)
    torch.testing.assert_close(pair(image), before)
    pair[1].running_mean += 0.5
    torch.testing.assert_close(pair(image), before - 0.5 * (1 + 1e-5) ** -0.5)
    pair(image).sum().backward()  # although a prediction was the first to need the scales


def test_maps_stay_in_half_precision():
    pair = folded_pair()
    alone = freeze_layer(nn.BatchNorm2d(4))
    with torch.autocast("cpu", torch.bfloat16):
        found = pair(torch.rand(1, 3, 5, 5))
        assert found.dtype == alone(found).dtype == torch.bfloat16
