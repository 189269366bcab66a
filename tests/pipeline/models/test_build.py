"""The models are torchvision's own, with caps that the data needs."""

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v3_large
from torchvision.models.detection.backbone_utils import _mobilenet_extractor, resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

from app.pipeline.config import DETECTORS, parse_config
from app.pipeline.models.build import build_model, constructor_arguments, freeze_for_finetuning, resolve_max_detections
from app.pipeline.models.catalogue import DETECTORS


def config_of(**values):
    return parse_config({"max_detections": 100, **values})


def test_every_model_is_in_the_catalogue_sorted_by_parameters():
    assert {detector.name for detector in DETECTORS} == set(DETECTORS)
    counts = [detector.num_parameters_m for detector in DETECTORS]
    assert counts == sorted(counts)


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_parameter_counts_shown_are_those_of_the_model(detector):
    model = build_model(config_of(model=detector.name), 1)
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert count == pytest.approx(detector.num_parameters_m, abs=0.06)


def test_number_of_classes_follows_the_categories_not_their_ids():
    """K categories and the background; a category id 0 that nothing uses must not be counted."""
    model = build_model(config_of(), 3)
    assert model.roi_heads.box_predictor.cls_score.out_features == 4


def test_nothing_is_cut_off_by_score():
    model = build_model(config_of(model="fasterrcnn_mobilenet_v3_large_320_fpn"), 2)
    assert model.roi_heads.score_thresh == 0
    assert model.rpn.score_thresh == 0


@pytest.mark.parametrize(
    ("max_objects", "expected"),
    [(0, 100), (30, 100), (250, 300), (251, 302)],
    ids=["none", "few", "crowd", "rounded up"],
)
def test_cap_on_detections_follows_the_most_crowded_image(max_objects, expected):
    assert resolve_max_detections(parse_config({}), max_objects) == expected


def test_two_hundred_and_fifty_objects_all_get_through():
    config = config_of(max_detections=resolve_max_detections(parse_config({}), 250), image_size=512)
    model = build_model(config, 1).eval()
    corners = torch.cartesian_prod(torch.arange(25.0), torch.arange(10.0)) * 20
    boxes = torch.cat([corners, corners + 16], 1)
    proposals, _ = model.rpn.filter_proposals(boxes[None], torch.full((1, 250), 3.0), [(512, 512)], [250])
    assert len(proposals[0]) == 250
    logits = torch.tensor([[-4.0, 4.0]]).expand(250, 2)
    found, scores, _ = model.roi_heads.postprocess_detections(logits, torch.zeros(250, 8), [boxes], [(512, 512)])
    assert len(found[0]) == 250
    assert scores[0].min() > 0.9


def test_a_model_without_a_resolved_cap_is_refused():
    with pytest.raises(ValueError, match="max_detections"):
        constructor_arguments(parse_config({}), 2)


@pytest.mark.parametrize("layers", range(6))
def test_resnet_freezes_the_stages_that_torchvision_freezes(layers):
    model = build_model(config_of(), 1)
    freeze_for_finetuning(model, layers)
    theirs = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=layers)
    assert trainable_names(model.backbone.body) == trainable_names(theirs.body)


@pytest.mark.parametrize("layers", range(7))
def test_mobilenet_freezes_the_stages_that_torchvision_freezes(layers):
    model = build_model(config_of(model="fasterrcnn_mobilenet_v3_large_320_fpn"), 1)
    freeze_for_finetuning(model, layers)
    theirs = _mobilenet_extractor(mobilenet_v3_large(norm_layer=FrozenBatchNorm2d), True, layers)
    assert trainable_names(model.backbone.body) == trainable_names(theirs.body)


def trainable_names(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def test_batch_norm_is_ordinary_from_scratch_and_frozen_after_pretraining():
    model = build_model(config_of(), 1)
    assert isinstance(model.backbone.body.bn1, nn.BatchNorm2d)
    freeze_for_finetuning(model, 5)
    assert isinstance(model.backbone.body.bn1, FrozenBatchNorm2d)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
