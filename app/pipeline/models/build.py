"""Faster R-CNN as torchvision builds it: the same modules and state-dict keys, on torchvision's or timm's backbones.

K classes; torchvision counts the background too, so its ``num_classes`` is K + 1.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from app.pipeline.anchors import stock_shapes
from app.pipeline.config import RunConfig
from app.pipeline.models.anchor_generator import ShapedAnchorGenerator, build_anchor_generator
from app.pipeline.models.backbones import (
    build_backbone,
    freeze_batch_norm,
    inspect_timm,
    remake_stem,
    stages_from_the_top,
    use_group_norm,
)
from app.pipeline.models.catalogue import find_detector, pyramid_strides, timm_name
from app.pipeline.models.heads import use_losses

SAMPLES_PER_BIN = 2  # of RoIAlign, along each axis, as in torchvision
POOLER_SIZE = 7
# Of ImageNet's gray: the luminance (.299, .587, .114) of torchvision's three means and deviations.
GRAY_MEAN = (0.459,)
GRAY_STD = (0.226,)


def constructor_arguments(config: RunConfig, num_categories: int) -> dict[str, Any]:
    """FasterRCNN's arguments, JSON-able, for a config whose ``max_detections`` is set.

    Equal ``min_size`` and ``max_size`` make torchvision's own transform bring the longer side to ``image_size``; other
    modes of resizing need one argument more, "as is" more than arguments (see ``export.torchvision_recipe``).
    """
    if config.max_detections < 1:
        raise ValueError("max_detections must be resolved before a model is built")
    proposals = num_proposals(config)
    arguments = {
        "num_classes": num_categories + 1,
        "min_size": config.image_size,
        "max_size": config.image_size,
        "box_score_thresh": config.score_threshold,
        "box_nms_thresh": config.nms_threshold,
        "box_detections_per_img": config.max_detections,
        "rpn_score_thresh": 0.0,
        "rpn_pre_nms_top_n_train": 2000,
        "rpn_post_nms_top_n_train": 1000,
        "rpn_pre_nms_top_n_test": max(1000, proposals),
        "rpn_post_nms_top_n_test": proposals,
        "rpn_nms_thresh": config.rpn_nms_threshold,
        "rpn_batch_size_per_image": config.rpn_batch_size,
        "rpn_positive_fraction": config.rpn_positive_fraction,
        "box_batch_size_per_image": config.roi_batch_size,
        "box_positive_fraction": config.roi_positive_fraction,
    }
    return {**arguments, **_resizing(config), **_normalization(config)}


def _resizing(config: RunConfig) -> dict[str, Any]:
    """The arguments of torchvision's transform that make it stretch, or pad to a square right and below."""
    side = config.image_size
    return {"stretch": {"fixed_size": [side, side]}, "letterbox": {"size_divisible": side}}.get(config.resize, {})


def _normalization(config: RunConfig) -> dict[str, list[float]]:
    """FasterRCNN's arguments where they are not ImageNet's of three colors, which are its defaults."""
    if config.channels == 1:
        return {"image_mean": list(GRAY_MEAN), "image_std": list(GRAY_STD)}
    name = timm_name(config.model)
    return {f"image_{key}": value for key, value in inspect_timm(name)["normalization"].items()} if name else {}


def num_proposals(config: RunConfig) -> int:
    """Proposals an image the head looks at when predicting: enough that each object can have several."""
    return config.proposals or max(300, 3 * config.max_detections)


def resolve_max_detections(config: RunConfig, max_objects: int) -> int:
    """The cap on detections an image: as configured, else a fifth above the most crowded image, at least 100."""
    return config.max_detections or max(100, -(-max_objects * 6 // 5))


def build_model(config: RunConfig, num_categories: int, class_counts: Sequence[int] = ()) -> FasterRCNN:
    """A freshly initialised detector, all of it trainable, with ordinary batch norm (or group norm, if chosen).

    class_counts: the training boxes of each class, for class weights; see use_losses. Raises UnsuitableBackbone for
    a timm/NAME that gives no feature pyramid.
    """
    parts: dict[str, Any] = {"rpn_anchor_generator": build_anchor_generator(config, pyramid_strides(config.model))}
    if config.pooler_size != POOLER_SIZE:
        parts["box_roi_pool"] = _pooler(config.model, config.pooler_size)
    model = construct(config.model, {**constructor_arguments(config, num_categories), **parts})
    if config.channels != 3:
        remake_stem(model.backbone.body, config.channels)
    if config.norm == "group":
        use_group_norm(model)
    return use_losses(model, config, class_counts)


def construct(name: str, arguments: dict[str, Any]) -> FasterRCNN:
    """The named detector without any pretrained weights; ``arguments`` are FasterRCNN's."""
    arguments = dict(arguments)
    backbone = build_backbone(name)
    strides = pyramid_strides(name)
    if "rpn_anchor_generator" not in arguments:
        arguments["rpn_anchor_generator"] = ShapedAnchorGenerator(stock_shapes(len(strides)))
    detector = find_detector(name)
    if detector is not None and detector.head == "v2":
        arguments |= _second_version(backbone.out_channels, arguments)
    return FasterRCNN(backbone, **arguments)


def _pooler(model: str, size: int) -> MultiScaleRoIAlign:
    """Pools from all maps of the backbone, but not from the last one that is only pooled once more."""
    num_maps = min(4, len(pyramid_strides(model)))  # names that a backbone lacks are passed over
    names = [str(level) for level in range(num_maps)]
    return MultiScaleRoIAlign(featmap_names=names, output_size=size, sampling_ratio=SAMPLES_PER_BIN)


def _second_version(channels: int, arguments: dict[str, Any]) -> dict[str, nn.Module]:
    """The heads of torchvision's v2: two convolutions in the RPN, four and one linear layer in the box head."""
    pooler = arguments.get("box_roi_pool")
    size = pooler.output_size[0] if pooler is not None else POOLER_SIZE
    num_anchors = arguments["rpn_anchor_generator"].num_anchors_per_location()[0]
    return {
        "rpn_head": RPNHead(channels, num_anchors, conv_depth=2),
        "box_head": FastRCNNConvFCHead((channels, size, size), [channels] * 4, [1024], norm_layer=nn.BatchNorm2d),
    }


def resolve_norm(config: RunConfig) -> str:
    """What 'auto' comes to: frozen batch norm with pretrained weights, ordinary batch norm without."""
    if config.norm != "auto":
        return config.norm
    return "batch" if config.pretrained == "none" else "frozen"


def freeze_for_finetuning(model: FasterRCNN, trainable_layers: int, norm: str = "frozen") -> None:
    """Fix the backbone's batch norm (with ``norm`` 'frozen'), and all but its last ``trainable_layers`` stages.

    Batches of a detector are too small to estimate the statistics that pretrained weights rely on.
    """
    body = model.backbone.body
    if norm == "frozen":
        freeze_batch_norm(body)
    frozen = tuple(f"{part}." for stage in stages_from_the_top(body)[trainable_layers:] for part in stage)
    for name, parameter in body.named_parameters():
        if name.startswith(frozen):
            parameter.requires_grad_(False)
