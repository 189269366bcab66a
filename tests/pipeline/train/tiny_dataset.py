"""A dataset of colored squares and a detector, both small enough to train within a test."""

import json
from pathlib import Path

import cv2
import numpy as np
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from app.pipeline.data.snapshot import Snapshot, load_snapshot

CATEGORIES = [
    {"id": 5, "name": "red"},
    {"id": 9, "name": "blue"},
]  # ids neither contiguous nor from 1, as in real files
COLORS = {5: (220, 30, 30), 9: (30, 30, 220)}


def write_tiny_dataset(folder: Path, num_train: int = 4, num_valid: int = 3, size: int = 64) -> Path:
    """Write images and ``dataset.json``; the first image of each split has no objects. Returns the JSON's path."""
    generator = np.random.default_rng(0)
    images, annotations = [], []
    splits = ["train"] * num_train + ["valid"] * num_valid
    for image_id, split in enumerate(splits, start=1):
        picture = np.full((size, size, 3), 128, np.uint8)
        is_first = image_id in (1, num_train + 1)
        for category_id in [] if is_first else COLORS:
            x, y = (int(value) for value in generator.integers(0, size // 2, 2))
            side = size // 3
            picture[y : y + side, x : x + side] = COLORS[category_id]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_id,
                    "bbox": [x, y, side, side],
                    "iscrowd": 0,
                }
            )
        name = f"{split}_{image_id}.png"
        cv2.imwrite(str(folder / name), picture[:, :, ::-1])
        images.append({"id": image_id, "file_name": name, "path": name, "width": size, "height": size, "split": split})
    path = folder / "dataset.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return path


def tiny_snapshot(folder: Path, **sizes: int) -> Snapshot:
    return load_snapshot(write_tiny_dataset(folder, **sizes))


TINY = {
    "image_size": 64,
    "batch_size": 2,
    "epochs": 1,
    "rpn_batch_size": 16,
    "roi_batch_size": 16,
    "proposals": 30,
    "device": "cpu",
    "precision": "float32",
}


def construct_tiny(name: str, arguments: dict) -> FasterRCNN:
    """A Faster R-CNN of 40,000 parameters, in place of ``app.pipeline.models.build.construct``."""
    body = nn.Sequential()
    for level in range(1, 5):
        stage = nn.Conv2d(3 if level == 1 else 8, 8, 3, stride=4 if level == 1 else 2, padding=1)
        body.add_module(f"layer{level}", nn.Sequential(stage, nn.ReLU()))
    backbone = BackboneWithFPN(body, {f"layer{level + 1}": str(level) for level in range(4)}, [8] * 4, 16)
    others = {key: value for key, value in arguments.items() if key != "num_classes"}
    predictor = FastRCNNPredictor(32, arguments["num_classes"])
    return FasterRCNN(backbone, box_head=TwoMLPHead(16 * 49, 32), box_predictor=predictor, **others)


def construct_tiny_with_batch_norm(name: str, arguments: dict) -> FasterRCNN:
    """The same with batch norm, as networks from scratch have it."""
    model = construct_tiny(name, arguments)
    for stage in model.backbone.body.values():
        stage.insert(1, nn.BatchNorm2d(8))
    return model


def construct_tiny_with_all_that_changes(name: str, arguments: dict) -> FasterRCNN:
    """The tiny detector with what can change without gradients: statistics in the body, the pyramid and the head."""
    model = construct_tiny(name, arguments)
    model.backbone.body.layer1.append(nn.BatchNorm2d(8))
    model.roi_heads.box_head.fc6 = nn.Sequential(model.roi_heads.box_head.fc6, nn.BatchNorm1d(32))
    return model
