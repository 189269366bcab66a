"""The models are torchvision's own, with caps that the data needs."""

import pytest
import torch
from torch import nn
from torchvision.models import detection, mobilenet_v3_large
from torchvision.models.detection.backbone_utils import _mobilenet_extractor, resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.misc import FrozenBatchNorm2d

from app.pipeline.config import ConfigError, parse_config
from app.pipeline.models.backbones import (
    UnsuitableBackbone,
    build_backbone,
    find_stem,
    freeze_batch_norm,
    inspect_timm,
    num_groups,
    stages_from_the_top,
)
from app.pipeline.models.build import build_model, constructor_arguments, freeze_for_finetuning, resolve_max_detections
from app.pipeline.models.catalogue import DETECTORS, find_detector


def config_of(**values):
    return parse_config({"max_detections": 100, **values})


GOLDEN_M = {
    "fasterrcnn_resnet18_fpn": 28.27,
    "fasterrcnn_resnet34_fpn": 38.37,
    "fasterrcnn_resnet50_fpn": 41.29,
    "fasterrcnn_resnet101_fpn": 60.23,
    "fasterrcnn_resnet50_fpn_v2": 43.25,
    "fasterrcnn_resnext101_32x8d_fpn": 104.38,
}


def test_models_are_offered_by_rising_size():
    counts = [detector.num_parameters for detector in DETECTORS]
    assert counts == sorted(counts)
    assert len({detector.name for detector in DETECTORS}) == len(DETECTORS) == 23


@pytest.mark.parametrize(("name", "millions"), GOLDEN_M.items())
def test_counts_are_those_of_the_published_work_with_two_classes_and_one_channel(name, millions):
    assert round(find_detector(name).count_parameters(2, 1) / 1e6, 2) == millions


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_counts_and_levels_in_the_catalogue_are_those_of_the_model(detector):
    num_categories, channels = 4, 1  # other than those of the catalogue: the count follows both
    with torch.device("meta"):
        model = build_model(config_of(model=detector.name, channels=channels), num_categories)
    if detector.library == "torchvision" and detector.head == "v1":
        freeze_batch_norm(model.backbone.body)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == detector.count_parameters(num_categories + 1, channels)
    assert has_batch_norm(model.backbone.body) or not detector.has_batch_norm or detector.head == "v1"
    assert len(model.rpn.anchor_generator.cell_anchors) == len(detector.strides)
    if detector.num_parameters > 35e6 and detector.family != "swin":
        return  # the others of their families have the same levels
    maps = model.backbone.eval()(torch.zeros(1, channels, 128, 192, device="meta"))
    assert tuple(128 // level.shape[-2] for level in maps.values()) == detector.strides
    assert {level.shape[1] for level in maps.values()} == {256}


def has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(one, nn.BatchNorm2d) for one in module.modules())


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("fasterrcnn_resnet50_fpn", detection.fasterrcnn_resnet50_fpn),
        ("fasterrcnn_resnet50_fpn_v2", detection.fasterrcnn_resnet50_fpn_v2),
        ("fasterrcnn_mobilenet_v3_large_fpn", detection.fasterrcnn_mobilenet_v3_large_fpn),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", detection.fasterrcnn_mobilenet_v3_large_320_fpn),
    ],
)
def test_names_and_shapes_of_tensors_are_torchvisions(name, theirs):
    with torch.device("meta"):
        ours = build_model(config_of(model=name), 2).state_dict()
        reference = theirs(weights=None, weights_backbone=None, num_classes=3).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in reference.items()}


@pytest.mark.parametrize(("channels", "size"), [(1, 7), (3, 14)])
@pytest.mark.parametrize("name", ["fasterrcnn_resnet18_fpn_v2", "fasterrcnn_swin_t_fpn"])
def test_pooler_and_channels_are_those_of_the_config(name, channels, size):
    with torch.device("meta"):
        model = build_model(config_of(model=name, pooler_size=size, channels=channels), 1)
        regions = torch.zeros(2, 256, size, size)
        assert model.roi_heads.box_head(regions).shape == (2, 1024)
    assert model.roi_heads.box_roi_pool.output_size == (size, size)
    assert find_stem(model.backbone.body)[1].in_channels == channels
    assert len(model.transform.image_mean) == channels


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
    images = ImageList(torch.zeros(1, 3, 512, 512), [(512, 512)])
    proposals = model.rpn._select(torch.full((1, 250), 3.0), torch.zeros(1, 250, 4), boxes, [250], images, waits=True)
    assert len(proposals.of_images()[0]) == 250
    logits = torch.tensor([[-4.0, 4.0]]).expand(250, 2)
    found, scores, _ = model.roi_heads.postprocess_detections(logits, torch.zeros(250, 8), [boxes], [(512, 512)])
    assert len(found[0]) == 250
    assert scores[0].min() > 0.9


def test_a_model_without_a_resolved_cap_is_refused():
    with pytest.raises(ValueError, match="max_detections"):
        constructor_arguments(parse_config({}), 2)


@pytest.mark.parametrize("layers", range(6))
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_freezes_the_stages_that_torchvision_freezes(name, layers):
    with torch.device("meta"):
        model = build_model(config_of(model=f"fasterrcnn_{name}_fpn"), 1)
        theirs = resnet_fpn_backbone(backbone_name=name, weights=None, trainable_layers=layers)
        freeze_for_finetuning(model, layers)
    assert trainable_names(model.backbone.body) == trainable_names(theirs.body)


@pytest.mark.parametrize("layers", range(7))
def test_mobilenet_freezes_the_stages_that_torchvision_freezes(layers):
    with torch.device("meta"):
        model = build_model(config_of(model="fasterrcnn_mobilenet_v3_large_320_fpn"), 1)
        freeze_for_finetuning(model, layers)
        theirs = _mobilenet_extractor(mobilenet_v3_large(norm_layer=FrozenBatchNorm2d), True, layers)
    assert trainable_names(model.backbone.body) == trainable_names(theirs.body)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("fasterrcnn_efficientnet_b0_fpn", ["blocks.5", "blocks.3", "blocks.2", "blocks.1", "conv_stem"]),
        ("fasterrcnn_swin_t_fpn", ["layers_3", "layers_2", "layers_1", "layers_0", "patch_embed"]),
        ("timm/resnet26d", ["layer4", "layer3", "layer2", "maxpool", "conv1"]),
        ("timm/convnext_atto", ["stages_3", "stages_2", "stages_1", "stages_0", "stem_0"]),
    ],
    ids=["efficientnet", "swin", "resnet of timm", "convnext"],
)
def test_timms_backbones_freeze_stage_by_stage_from_the_bottom(name, parts):
    with torch.device("meta"):
        body = build_model(config_of(model=name), 1).backbone.body
    firsts = [stage[0] for stage in stages_from_the_top(body)]
    assert len(firsts) == len(parts)
    assert all(first.startswith(part) for first, part in zip(firsts, parts, strict=True))
    owned = [
        {key for key, _ in body.named_parameters() if key.startswith(tuple(f"{part}." for part in stage))}
        for stage in stages_from_the_top(body)
    ]
    assert set().union(*owned) == {key for key, _ in body.named_parameters()}
    assert sum(len(keys) for keys in owned) == len(set().union(*owned))


def trainable_names(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def test_batch_norm_is_ordinary_from_scratch_and_frozen_after_pretraining():
    model = build_model(config_of(), 1)
    assert isinstance(model.backbone.body.bn1, nn.BatchNorm2d)
    freeze_for_finetuning(model, 5)
    assert isinstance(model.backbone.body.bn1, FrozenBatchNorm2d)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("model", ["fasterrcnn_resnet18_fpn", "timm/efficientnet_b0"])
def test_frozen_batch_norm_answers_as_batch_norm_does_when_predicting(model):
    """timm's batch norm holds its activation: losing that with the layer would train another network."""
    torch.manual_seed(0)
    body = build_backbone(model).body.eval()
    for name, buffer in body.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(*((0.5, 1.5) if name.endswith("var") else (-0.3, 0.3)))  # of ReLU something must be left
    images = torch.rand(1, 3, 64, 64)
    before, keys = body(images), set(body.state_dict())
    assert freeze_batch_norm(body) > 0
    after = body.train()(images)
    for one, other in zip(maps_of(before), maps_of(after), strict=True):
        assert one.any()
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert set(body.state_dict()) == {key for key in keys if not key.endswith("num_batches_tracked")}


def maps_of(answer):
    return list(answer.values()) if isinstance(answer, dict) else list(answer) if isinstance(answer, list) else [answer]


def test_group_norm_replaces_all_batch_norm_and_sees_one_image_at_a_time():
    model = build_model(config_of(model="fasterrcnn_efficientnet_b0_fpn", norm="group"), 1).train()
    assert not has_batch_norm(model)
    first, second = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        together, alone = model.backbone(torch.cat([first, second])), model.backbone(first)
    torch.testing.assert_close(together["0"][:1], alone["0"], rtol=1e-3, atol=1e-3)
    assert num_groups(64) == 32
    assert num_groups(24) == 8


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("resnet5o", "did you mean timm/resnet"),
        ("vit_tiny_patch16_224", "no feature pyramid: its maps must have strides 4, 8, 16, 32, found 16, 16"),
        ("maxvit_tiny_tf_224", "does not take images of any size"),
    ],
)
def test_names_of_timm_that_give_no_detector_are_refused_with_the_reason(name, reason):
    with pytest.raises(UnsuitableBackbone, match=reason):
        inspect_timm(name)


def test_a_backbone_of_timm_is_described_without_its_weights():
    facts = inspect_timm("efficientnet_b1")
    assert facts["strides"] == [4, 8, 16, 32]
    assert facts["has_batch_norm"]
    assert facts["tagged"].startswith("efficientnet_b1.")
    assert facts["normalization"] == {"mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"model": "fasterrcnn_resnet51_fpn"}, "did you mean fasterrcnn_resnet50_fpn"),
        ({"model": "fasterrcnn_resnet34_fpn", "pretrained": "network"}, "choose 'backbone' or 'none' or 'file'"),
        ({"model": "fasterrcnn_efficientnet_b7_fpn", "pretrained": "backbone"}, "not published"),
        ({"model": "timm/resnet26d", "pretrained": "network"}, "backbones alone"),
        ({"model": "fasterrcnn_swin_t_fpn", "norm": "group"}, "has none"),
    ],
    ids=["misspelt", "no network", "no backbone", "no network of timm", "no batch norm"],
)
def test_models_that_cannot_be_had_are_refused_with_what_can(values, reason):
    with pytest.raises(ConfigError, match=reason):
        parse_config(values)
