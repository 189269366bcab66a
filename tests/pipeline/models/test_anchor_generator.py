"""Anchors are torchvision's by default, and what the config says otherwise: when the model is built, and rebuilt."""

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import _default_anchorgen
from torchvision.models.detection.image_list import ImageList

from app.pipeline.config import parse_config
from app.pipeline.models import build
from app.pipeline.models.anchor_generator import ShapedAnchorGenerator, build_anchor_generator
from app.pipeline.models.build import build_model
from app.pipeline.models.catalogue import pyramid_strides
from app.pipeline.predict import load_detector
from app.pipeline.train.checkpoint import load_checkpoint
from app.pipeline.train.loop import train
from tests.pipeline.train.tiny_dataset import TINY, construct_tiny, tiny_snapshot

MOBILE = "fasterrcnn_mobilenet_v3_large_320_fpn"
SHAPES = ((8.5, 12.25), (20.0, 9.0), (100.0, 90.0))


def config_of(**values):
    return parse_config({"max_detections": 20, **values})


def anchors_of(generator, dtype=torch.float32, canvas=(96, 640), strides=(4, 8, 16, 32, 64)):
    maps = [torch.zeros(1, 8, -(-canvas[0] // stride), -(-canvas[1] // stride), dtype=dtype) for stride in strides]
    return generator(ImageList(torch.zeros(1, 3, *canvas), [canvas]), maps)[0]


@pytest.mark.parametrize(
    ("model", "theirs"),
    [
        ("fasterrcnn_resnet18_fpn", _default_anchorgen()),
        (MOBILE, AnchorGenerator(((32, 64, 128, 256, 512),) * 3, ((0.5, 1.0, 2.0),) * 3)),
    ],
)
def test_stock_anchors_are_torchvisions_in_its_order(model, theirs):
    ours = build_anchor_generator(config_of(), pyramid_strides(model))
    assert ours.num_anchors_per_location() == theirs.num_anchors_per_location()
    for own, other in zip(ours.cell_anchors, theirs.cell_anchors, strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("model", ["fasterrcnn_resnet18_fpn", MOBILE])
def test_strides_that_recall_is_measured_with_are_those_of_the_model(model):
    maps = build_model(config_of(model=model), 1).eval().backbone(torch.zeros(1, 3, 128, 192)).values()
    assert [(128 // level.shape[2], 192 // level.shape[3]) for level in maps] == [
        (stride, stride) for stride in pyramid_strides(model)
    ]


def test_places_far_from_the_corner_are_exact_in_bfloat16():
    """As torchvision computes them, in the dtype of the features, 590 would become 592."""
    generator = ShapedAnchorGenerator([torch.tensor(SHAPES)] * 5)
    exact = anchors_of(generator)
    assert anchors_of(generator, torch.bfloat16).dtype == torch.float32
    assert torch.equal(anchors_of(generator, torch.bfloat16), exact)


def test_shapes_of_the_config_are_the_anchors_of_the_built_model():
    """Fault 7: anchors that are set on a built detector leave its head with another number of outputs."""
    config = config_of(anchors="kmeans", anchor_shapes=SHAPES)
    model = build_model(config, 1)
    generator = model.rpn.anchor_generator
    num = generator.num_anchors_per_location()
    assert num == [2] * 5  # two of the three are nearest to the finest level
    assert model.rpn.head.cls_logits.out_channels == 2
    assert model.rpn.head.bbox_pred.out_channels == 8
    (images, maps) = torch.zeros(1, 3, 64, 64), model.backbone(torch.zeros(1, 3, 64, 64))
    anchors = generator(ImageList(images, [(64, 64)]), list(maps.values()))[0]
    sizes = {tuple(size) for size in (anchors[:, 2:] - anchors[:, :2]).tolist()}
    assert sizes == set(SHAPES)
    objectness, _ = model.rpn.head(list(maps.values()))
    assert sum(level.numel() for level in objectness) == len(anchors)


def test_changing_the_sizes_of_a_built_generator_has_no_effect():
    """Why anchors belong to building: torchvision never looks at ``sizes`` again."""
    generator = AnchorGenerator(((32,),), ((1.0,),))
    generator.sizes = ((8,),)
    (anchors,) = [anchors_of(generator, strides=(16,))]
    assert (anchors[0, 2] - anchors[0, 0]).item() == 32


def test_custom_sizes_are_not_rounded():
    """torchvision rounds halves to whole pixels: 5 would become 4."""
    model = build_model(config_of(anchors="custom", anchor_sizes=[5, 10], anchor_ratios=[1]), 1)
    assert model.rpn.anchor_generator.cell_anchors[0].tolist() == [[-2.5, -2.5, 2.5, 2.5], [-5, -5, 5, 5]]


def test_levels_with_different_numbers_of_shapes_are_refused():
    with pytest.raises(ValueError, match="same number"):
        ShapedAnchorGenerator([torch.ones(2, 2), torch.ones(1, 2)])


def test_a_checkpoint_alone_rebuilds_the_anchors_that_kmeans_found(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "construct", construct_tiny)
    snapshot = tiny_snapshot(tmp_path)
    config = parse_config({**TINY, "anchors": "kmeans", "num_anchor_shapes": 2, "class_weights": "inverse_frequency"})
    train(config, snapshot, tmp_path / "run")
    kept = load_checkpoint(tmp_path / "run" / "last.pt").config
    assert kept.anchor_shapes == ((21, 21),)  # all squares of the tiny dataset
    detector = load_detector(tmp_path / "run" / "last.pt", "cpu")
    assert detector.model.rpn.anchor_generator.cell_anchors[0].tolist() == [[-10.5, -10.5, 10.5, 10.5]]
    assert len(dict(detector.predict_samples(snapshot.split("valid")))) == 3
