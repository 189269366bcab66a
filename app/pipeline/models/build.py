"""Faster R-CNN as torchvision builds it: the same modules, the same state-dict keys.

K classes; torchvision counts the background too, so its ``num_classes`` is K + 1.
"""

from collections.abc import Callable
from typing import Any

from torch import nn
from torchvision.models import detection
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

from app.pipeline.config import RunConfig


def build_resnet18_fpn(**arguments: Any) -> FasterRCNN:
    """ResNet-18 with a feature pyramid; ``arguments`` are FasterRCNN's."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    return FasterRCNN(backbone, **arguments)


BUILDERS: dict[str, Callable[..., FasterRCNN]] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": detection.fasterrcnn_mobilenet_v3_large_320_fpn,
    "fasterrcnn_resnet50_fpn": detection.fasterrcnn_resnet50_fpn,
    "fasterrcnn_resnet50_fpn_v2": detection.fasterrcnn_resnet50_fpn_v2,
}


def constructor_arguments(config: RunConfig, num_categories: int) -> dict[str, Any]:
    """FasterRCNN's arguments, JSON-able, for a config whose ``max_detections`` is set.

    Nothing is cut off by score: average precision needs every prediction. Equal ``min_size`` and ``max_size`` make
    torchvision's own transform bring the longer side to ``image_size``.
    """
    if config.max_detections < 1:
        raise ValueError("max_detections must be resolved before a model is built")
    proposals = num_proposals(config)
    return {
        "num_classes": num_categories + 1,
        "min_size": config.image_size,
        "max_size": config.image_size,
        "box_score_thresh": 0.0,
        "box_nms_thresh": config.nms_threshold,
        "box_detections_per_img": config.max_detections,
        "rpn_score_thresh": 0.0,
        "rpn_pre_nms_top_n_train": 2000,
        "rpn_post_nms_top_n_train": 1000,
        "rpn_pre_nms_top_n_test": max(1000, proposals),
        "rpn_post_nms_top_n_test": proposals,
        "rpn_batch_size_per_image": config.rpn_batch_size,
        "box_batch_size_per_image": config.roi_batch_size,
        "box_positive_fraction": config.roi_positive_fraction,
    }


def num_proposals(config: RunConfig) -> int:
    """Proposals an image the head looks at when predicting: enough that each object can have several."""
    return config.proposals or max(300, 3 * config.max_detections)


def resolve_max_detections(config: RunConfig, max_objects: int) -> int:
    """The cap on detections an image: as configured, else a fifth above the most crowded image, at least 100."""
    return config.max_detections or max(100, -(-max_objects * 6 // 5))


def build_model(config: RunConfig, num_categories: int) -> FasterRCNN:
    """A freshly initialised detector, all of it trainable, with ordinary batch norm."""
    return construct(config.model, constructor_arguments(config, num_categories))


def construct(name: str, arguments: dict[str, Any]) -> FasterRCNN:
    """The named detector without any pretrained weights; ``arguments`` are FasterRCNN's."""
    if name == "fasterrcnn_resnet18_fpn":
        return build_resnet18_fpn(**arguments)
    return BUILDERS[name](weights=None, weights_backbone=None, **arguments)


def freeze_for_finetuning(model: FasterRCNN, trainable_layers: int) -> None:
    """Fix the backbone's batch norm, and all but its last ``trainable_layers`` stages.

    Batches of a detector are too small to estimate the statistics that pretrained weights rely on.
    """
    body = model.backbone.body
    _freeze_batch_norm(body)
    frozen = {child for stage in _stages_from_the_top(body)[trainable_layers:] for child in stage}
    for name, parameter in body.named_parameters():
        if name.split(".")[0] in frozen:
            parameter.requires_grad_(False)


def _stages_from_the_top(body: nn.Module) -> list[list[str]]:
    """The names of the backbone's children, grouped as torchvision counts trainable layers, the deepest first."""
    names = [name for name, _ in body.named_children()]
    if "layer4" in names:
        return [["layer4"], ["layer3"], ["layer2"], ["layer1"], ["conv1", "bn1"]]
    # MobileNet: a stage begins where the resolution halves (marked by torchvision), the last layer is one of its own.
    starts = [i for i, child in enumerate(body.children()) if i == 0 or getattr(child, "_is_cn", False)]
    edges = [*starts, len(names) - 1, len(names)]
    return [names[first:last] for first, last in zip(edges, edges[1:], strict=False)][::-1]


def _freeze_batch_norm(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, eps=child.eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            _freeze_batch_norm(child)
