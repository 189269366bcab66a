"""Our RoIAlign must give torchvision's numbers, forward and backward."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from app.pipeline.config import parse_config
from app.pipeline.models.build import build_model
from app.pipeline.models.roi_pool import BagRoIAlign

NAMES = ["0", "1", "2", "3"]


def features_of(canvas: tuple[int, int], num_images: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {name: (canvas[0] // 4 // 2**i, canvas[1] // 4 // 2**i) for i, name in enumerate(NAMES)}
    return {
        name: torch.randn(num_images, 8, *shape, generator=generator).requires_grad_() for name, shape in shapes.items()
    }


def random_boxes(count: int, canvas: tuple[int, int], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([canvas[1], canvas[0]], dtype=torch.float32)
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


BOXES = {
    "random boxes reach all levels": [random_boxes(100, (160, 256), 1), random_boxes(7, (160, 256), 2)],
    "an image without regions": [torch.zeros(0, 4), random_boxes(5, (160, 256), 3)],
    "boxes thinner than a feature pixel": [torch.tensor([[10, 10, 10.5, 100], [3.0, 3, 3, 3]]), torch.zeros(0, 4)],
    "boxes on and beyond the border": [
        torch.tensor([[250, 150, 256, 160], [0, 0, 256, 160], [255.9, 159.9, 256, 160.0], [240, 150, 290, 190]]),
        torch.tensor([[-9.0, -9, 5, 5]]),
    ],
}


def by_torchvision(features, boxes, canvas, size=7):
    pooler = MultiScaleRoIAlign(NAMES, output_size=size, sampling_ratio=2)
    pooler.scales, pooler.map_levels = [1 / 4, 1 / 8, 1 / 16, 1 / 32], LevelMapper(2, 5)
    return pooler(features, boxes, [canvas] * len(boxes))


def by_ours(features, boxes, canvas, size=7):
    pooler = BagRoIAlign(MultiScaleRoIAlign(NAMES, output_size=size, sampling_ratio=2))
    images = torch.tensor([i for i, own in enumerate(boxes) for _ in own]).long()
    return pooler(features, torch.cat(boxes), images, canvas)


@pytest.mark.parametrize("boxes", BOXES.values(), ids=BOXES.keys())
def test_pooling_equals_torchvision_forward_and_backward(boxes):
    canvas = (160, 256)
    results = []
    for pool in (by_torchvision, by_ours):
        features = features_of(canvas, 2)
        pooled = pool(features, boxes, canvas)
        (pooled * torch.linspace(-1, 1, pooled.numel()).view(pooled.shape)).sum().backward()
        gradients = [features[name].grad for name in NAMES]
        results.append((pooled.detach(), [torch.zeros(()) if g is None else g for g in gradients]))
    (theirs, their_gradients), (ours, our_gradients) = results
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    for own, other in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(own.expand_as(other), other, atol=2e-4, rtol=1e-3)


def test_scales_follow_the_canvas_not_the_images():
    """torchvision's own guess doubles the scale when the images fill half of the padded canvas."""
    features, boxes = features_of((128, 128), 1), [random_boxes(20, (64, 64), 4)]
    ours = by_ours(features, boxes, (128, 128))
    torch.testing.assert_close(ours, by_torchvision(features, boxes, (128, 128)), atol=2e-5, rtol=1e-4)


def test_maps_of_one_scale_use_the_first():
    """As MobileNet's do; so does torchvision."""
    maps = {"0": torch.randn(1, 4, 8, 8), "1": torch.randn(1, 4, 8, 8)}
    boxes = [random_boxes(20, (256, 256), 5)]
    pooler = MultiScaleRoIAlign(["0", "1"], output_size=7, sampling_ratio=2)
    theirs = pooler(maps, boxes, [(256, 256)])
    torch.testing.assert_close(by_ours(maps, boxes, (256, 256)), theirs, atol=2e-5, rtol=1e-4)


def test_no_region_at_all_gives_an_empty_batch():
    features = features_of((64, 64), 1)
    assert by_ours(features, [torch.zeros(0, 4)], (64, 64)).shape == (0, 8, 7, 7)


@pytest.mark.parametrize("size", [14, 28])
def test_finer_pooling_equals_torchvision_too(size):
    features, boxes = features_of((160, 256), 2), BOXES["random boxes reach all levels"]
    theirs, ours = (pool(features, boxes, (160, 256), size) for pool in (by_torchvision, by_ours))
    assert ours.shape == (107, 8, size, size)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("model", ["fasterrcnn_resnet18_fpn", "fasterrcnn_resnet50_fpn_v2"])
@pytest.mark.parametrize("size", [7, 14, 28])
def test_box_heads_are_built_for_the_pooler(model, size):
    config = parse_config({"max_detections": 20, "model": model, "pooler_size": size})
    with torch.device("meta"):
        built = build_model(config, 1)
        regions = torch.zeros(3, 256, size, size)
        assert built.roi_heads.box_head(regions).shape == (3, 1024)
    assert built.roi_heads.box_roi_pool.output_size == (size, size)
