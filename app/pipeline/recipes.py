"""Published pieces of work as settings of a run: each value is theirs, under its usual name. Imports no torch.

What a recipe leaves open (mostly epochs and learning rate) is said in its help, or stays as suggested for the dataset.
"""

from dataclasses import dataclass, field
from typing import Any

from app.pipeline.augment import presets as chains


@dataclass(frozen=True, slots=True)
class Preset:
    """A named part of a configuration, laid over the suggested one; ``source`` is the heading that it stands under."""

    name: str
    title: str
    help: str
    values: dict[str, Any] = field(default_factory=dict)
    source: str = "Ready-made"


def _chain(name: str) -> list[dict[str, Any]]:
    return [step.model_dump(mode="json") for step in chains.PRESETS[name].steps]


# Gastroscopy (Detectron2): every step is laid over the one before, so that each can be run for itself.
_BASELINE = {
    "model": "fasterrcnn_resnet50_fpn",
    "pretrained": "network",
    "image_size": 256,
    "batch_size": 16,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "weight_decay": 1e-5,
    "schedule": "cosine",
    "final_learning_rate": 0.0,
    "warmup_factor": 1e-3,
    "warmup_share": 1 / 40,
    "rpn_batch_size": 256,
    "roi_batch_size": 512,
    "roi_positive_fraction": 0.25,
    "rpn_box_loss": "smooth_l1",
    "box_loss": "smooth_l1",
    "pooler_size": 7,
    "augmentation": [],
}
_SEEN_TWICE = {**_BASELINE, "test_time_augmentation": "flip"}
_AUGMENTED = {**_BASELINE, "augmentation": _chain("gastroscopy")}
_MIXED = {**_BASELINE, "augmentation": _chain("gastroscopy_mixing")}
_TUNED = {
    **_MIXED,
    "batch_size": 8,
    "learning_rate": 0.005,
    "final_learning_rate": 1e-9,
    "weight_decay": 1e-4,
    "warmup_factor": 1e-4,
    "warmup_share": 1 / 20,
}
_CIOU = {**_TUNED, "rpn_box_loss": "ciou", "box_loss": "ciou", "image_size": 512, "pooler_size": 14}
_GASTROSCOPY = {
    **_CIOU,
    "rpn_batch_size": 384,
    "anchors": "custom",
    "anchor_sizes": [16.0, 32.0, 64.0, 128.0, 256.0, 512.0],
    "roi_batch_size": 256,
    "roi_positive_fraction": 0.5,
    "selection_metric": "map75",
}

# Backbones and folds (torchvision and timm).
_BACKBONES = {
    "model": "fasterrcnn_resnet50_fpn",
    "pretrained": "backbone",
    "image_size": 448,
    "progressive_sizes": [224, 448],
    "augmentation": _chain("backbones"),
    "keep_empty_images": False,
    "sampling": "inverse_frequency",
    "anchors": "kmeans",
    "num_anchor_shapes": 9,
    "batch_size": 4,
    "optimizer": "adamw",
    "learning_rate": 3e-4,
    "schedule": "onecycle",
    "clip_gradient_norm": 5.0,
    "selection_metric": "map50_f1",
    "patience": 10,
    "seed": 42,
}

# Small objects: one class, gray images, 345 objects an image.
_SMALL_OBJECTS = {
    "model": "fasterrcnn_resnet50_fpn_v2",
    "pretrained": "backbone",
    "channels": 1,
    "gray_stem": "mean",
    "trainable_layers": 5,
    "image_size": 512,
    "epochs": 30,
    "nms_threshold": 0.5,
    "max_detections": 1000,
}

# Nuclei: 5,000 steps of one image; 24 images make that 209 epochs.
_NUCLEI = {
    "model": "fasterrcnn_resnext101_32x8d_fpn",
    "pretrained": "backbone",
    "resize": "as_is",
    "image_size": 1024,
    "batch_size": 1,
    "epochs": 209,
    "evaluate_every": 10,
    "optimizer": "sgd",
    "learning_rate": 2.5e-4,
    "schedule": "multistep",
    "milestones": [0.6, 0.7, 0.9],
    "decay_factor": 0.1,
    "roi_batch_size": 256,
    "max_detections": 1000,
}

# Mask R-CNN by hand, its boxes.
_BY_HAND = {
    "model": "fasterrcnn_resnet50_fpn",
    "pretrained": "backbone",
    "anchors": "custom",
    "anchor_sizes": [32.0, 64.0, 128.0, 256.0, 512.0],
    "anchor_ratios": [0.5, 1.0, 2.0],
    "roi_batch_size": 256,
    "roi_positive_fraction": 0.25,
    "pooler_size": 7,
    "optimizer": "sgd",
    "epochs": 24,
    "phases": [
        {"train": "rpn", "epochs": 8, "learning_rate": 0.005},
        {"train": "heads", "epochs": 4, "learning_rate": 0.005},
        {"train": "all", "epochs": 12, "learning_rate": 0.002},
    ],
}

_G, _B, _S, _OTHERS = "Gastroscopy, step by step", "Backbones and folds", "Small objects", "Instance segmentation"

RECIPES = (
    Preset(
        "gastroscopy_baseline",
        "1 Baseline",
        "ResNet-50 from COCO at 256 px, batches of 16, no augmentation. The learning rate is ours.",
        _BASELINE,
        _G,
    ),
    Preset(
        "gastroscopy_tta",
        "2 Test-time augmentation",
        "The baseline, judged on each image and its mirror image: their best (mAP50 .587 to .616); rescaled ones too "
        "gave less. `python -m app evaluate --tta all` compares.",
        _SEEN_TWICE,
        _G,
    ),
    Preset("gastroscopy_augmented", "3 Augmentation", "The baseline with color, dropout and crops.", _AUGMENTED, _G),
    Preset("gastroscopy_mixed", "4 MixUp and Mosaic", "With MixUp, lambda from Beta(2, 2), and Mosaic.", _MIXED, _G),
    Preset(
        "gastroscopy_schedule",
        "5 Schedule",
        "Batches of 8, a floor under the cosine, more weight decay, a longer warmup from lower.",
        _TUNED,
        _G,
    ),
    Preset(
        "gastroscopy_ciou",
        "6 CIoU at 512 px",
        "CIoU for the boxes of RPN and head, 512 px, RoIAlign of 14 bins. Their best mAP50.",
        _CIOU,
        _G,
    ),
    Preset(
        "gastroscopy",
        "7 Gastroscopy, tuned",
        "384 anchors sampled, the smallest 16 px; half of 256 regions on objects. Their best mAP75, which picks here. "
        "Step 8 is the Ensemble page: of three detectors WBF gave .735 mAP50, NMW .721, NMS .717, Soft-NMS .662.",
        _GASTROSCOPY,
        _G,
    ),
    Preset(
        "backbones",
        "ResNet-50",
        "OneCycle after a warmup, clipping at 5, 224 then 448 px, nine KMeans anchors, rare classes drawn more often.",
        _BACKBONES,
        _B,
    ),
    Preset(
        "backbones_efficientnet_b3",
        "EfficientNet-B3",
        "The same with EfficientNet-B3 under the feature pyramid.",
        {**_BACKBONES, "model": "fasterrcnn_efficientnet_b3_fpn"},
        _B,
    ),
    Preset(
        "backbones_swin_s",
        "Swin-S",
        "The same with Swin-S (patch 4, window 7) under the feature pyramid.",
        {**_BACKBONES, "model": "fasterrcnn_swin_s_fpn"},
        _B,
    ),
    Preset(
        "small_objects",
        "Small objects, v2",
        "Gray images, all layers trained, up to 1,000 detections; cut large images into tiles of 512 px first.",
        _SMALL_OBJECTS,
        _S,
    ),
    Preset(
        "small_objects_v1",
        "Small objects, v1",
        "The same with the first heads: 75 epochs take as long as 30 of v2.",
        {**_SMALL_OBJECTS, "model": "fasterrcnn_resnet50_fpn", "epochs": 75},
        _S,
    ),
    Preset(
        "nuclei",
        "Nuclei (boxes)",
        "ResNeXt-101 on single images as they are, multi-step. 209 epochs are 5,000 steps of their 24 images.",
        _NUCLEI,
        _OTHERS,
    ),
    Preset(
        "mask_rcnn_by_hand",
        "Mask R-CNN by hand (boxes)",
        "Staged: RPN first, then the head alone, then everything. Epochs and rates of the stages are ours.",
        _BY_HAND,
        _OTHERS,
    ),
)
