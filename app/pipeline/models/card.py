"""A model's card: what it is made of, read from the live model, as plain values for the screen and ``model.json``.

Nothing here is looked up in the catalogue but names: strides come from a pass through the backbone.
"""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.ops.misc import FrozenBatchNorm2d

from app.pipeline.config import RunConfig, parse_config
from app.pipeline.models.build import build_model, freeze_for_finetuning, resolve_norm
from app.pipeline.models.catalogue import find_detector, timm_name

CARD_NAME = "model.json"
PROBE_PX = 256  # side of the image that tells the strides: a multiple of the coarsest
SHOWN_ANCHORS = 64  # shapes of a level that are written out


def write_card(run_dir: Path, model: FasterRCNN, config: RunConfig) -> None:
    """Write the card of a run's model, as it is about to be trained, to ``model.json`` in its folder."""
    temporary = run_dir / f".{CARD_NAME}.tmp"
    temporary.write_text(json.dumps(describe_model(model, config), indent=2) + "\n", encoding="utf-8")
    temporary.replace(run_dir / CARD_NAME)


def describe_model(model: FasterRCNN, config: RunConfig) -> dict[str, Any]:
    """The card of ``model``, whose weights and mode stay as they are.

    ``levels``: name, stride (pixels), channels, whether regions are pooled from it, and anchors (width and height in
    pixels, with size = sqrt(width height) and ratio = height / width), the finest first. ``parts``: parameters and
    trainable ones by part, in order; ``parameters`` and ``trainable`` are their sums.
    """
    detector = find_detector(config.model)
    maps = _maps(model)
    parts = [
        {"part": name, "parameters": _count(module), "trainable": _count(module, is_trainable=True)}
        for name, module in _parts(model).items()
    ]
    return {
        "model": config.model,
        "title": detector.title if detector else config.model,
        "backbone": detector.backbone if detector else timm_name(config.model),
        "library": detector.library if detector else "timm",
        "channels": len(model.transform.image_mean),
        "mean": list(model.transform.image_mean),
        "std": list(model.transform.image_std),
        "norm": _norm_layers(model.backbone.body),
        "num_classes": model.roi_heads.box_predictor.cls_score.out_features,
        "levels": _levels(model, maps),
        "pooler": _pooler(model, maps),
        "heads": _heads(model),
        "parts": parts,
        "parameters": sum(part["parameters"] for part in parts),
        "trainable": sum(part["trainable"] for part in parts),
    }


def describe_config(values: dict[str, Any], num_categories: int) -> dict[str, Any]:
    """The card of the model that a run with these options would train; called in the warm helper.

    It is built without memory for its weights, so it costs a second. KMeans shapes that are not found yet are replaced
    by stock anchors, and ``are_anchors_known`` is False. Raises ConfigError and UnsuitableBackbone.
    """
    config = parse_config(values)
    are_anchors_known = config.anchors != "kmeans" or bool(config.anchor_shapes)
    if not are_anchors_known:
        config = config.model_copy(update={"anchors": "stock"})
    config = config.model_copy(update={"max_detections": config.max_detections or 100})
    with torch.device("meta"):
        model = build_model(config, num_categories)
        if config.pretrained != "none":
            freeze_for_finetuning(model, config.trainable_layers, resolve_norm(config))
        return {**describe_model(model, config), "are_anchors_known": are_anchors_known}


def _parts(model: FasterRCNN) -> "OrderedDict[str, nn.Module]":
    return OrderedDict(
        {
            "backbone": model.backbone.body,
            "feature pyramid": model.backbone.fpn,
            "RPN": model.rpn,
            "box head": model.roi_heads.box_head,
            "predictor": model.roi_heads.box_predictor,
        }
    )


def _count(module: nn.Module, is_trainable: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not is_trainable)


def _levels(model: FasterRCNN, maps: dict[str, Tensor]) -> list[dict[str, Any]]:
    pooled = model.roi_heads.box_roi_pool.featmap_names
    levels = []
    for (name, features), cells in zip(maps.items(), model.rpn.anchor_generator.cell_anchors, strict=True):
        anchors = [_shape(cell) for cell in cells.tolist()[:SHOWN_ANCHORS]]
        levels.append(
            {
                "name": name,
                "stride": PROBE_PX // features.shape[-1],
                "channels": features.shape[1],
                "is_pooled": name in pooled,
                "num_anchors": len(cells),
                "anchors": anchors,
            }
        )
    return levels


def _maps(model: FasterRCNN) -> dict[str, Tensor]:
    weight = next(model.backbone.parameters())
    image = torch.zeros(
        1, len(model.transform.image_mean), PROBE_PX, PROBE_PX, device=weight.device, dtype=weight.dtype
    )
    was_training = model.backbone.training
    model.backbone.eval()
    try:
        with torch.no_grad():
            return model.backbone(image)
    finally:
        model.backbone.train(was_training)


def _shape(cell: list[float]) -> dict[str, float]:
    width, height = cell[2] - cell[0], cell[3] - cell[1]
    return {
        "width": round(width, 1),
        "height": round(height, 1),
        "size": round((width * height) ** 0.5, 1),
        "ratio": round(height / width, 2),
    }


def _norm_layers(body: nn.Module) -> str:
    counts: dict[str, int] = {}
    kinds = {
        "frozen batch norm": FrozenBatchNorm2d,
        "batch norm": nn.BatchNorm2d,
        "group norm": nn.GroupNorm,
        "layer norm": nn.LayerNorm,
    }
    for module in body.modules():
        kind = next((name for name, types in kinds.items() if isinstance(module, types)), None)
        if kind:
            counts[kind] = counts.get(kind, 0) + 1
    return ", ".join(f"{name} ({count})" for name, count in counts.items()) or "none"


def _pooler(model: FasterRCNN, maps: dict[str, Tensor]) -> dict[str, Any]:
    pooler = model.roi_heads.box_roi_pool
    return {
        "size": int(pooler.output_size[0]),
        "samples": pooler.sampling_ratio,
        "levels": [name for name in pooler.featmap_names if name in maps],
    }


def _heads(model: FasterRCNN) -> dict[str, Any]:
    """How deep the heads are, and how they sample and filter."""
    rpn, roi = model.rpn, model.roi_heads
    return {
        "rpn_convolutions": _num_of(rpn.head.conv, nn.Conv2d),
        "box_convolutions": _num_of(roi.box_head, nn.Conv2d),
        "box_linear": _num_of(roi.box_head, nn.Linear),
        "box_features": roi.box_predictor.cls_score.in_features,
        "rpn_batch_size": rpn.fg_bg_sampler.batch_size_per_image,
        "rpn_positive_fraction": rpn.fg_bg_sampler.positive_fraction,
        "rpn_nms_threshold": rpn.nms_thresh,
        "roi_batch_size": roi.fg_bg_sampler.batch_size_per_image,
        "roi_positive_fraction": roi.fg_bg_sampler.positive_fraction,
        "score_threshold": roi.score_thresh,
        "nms_threshold": roi.nms_thresh,
        "max_detections": roi.detections_per_img,
    }


def _num_of(module: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(one, kind) for one in module.modules())
