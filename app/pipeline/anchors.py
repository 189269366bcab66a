"""Anchor shapes, and the share of boxes that they reach. Imports no torch.

A shape is (width, height) in pixels of the resized image; the anchors of a level are its shapes, centered on every
position of its grid. Legend: N boxes, L levels, A shapes at each position of a level; boxes are xyxy pixels of the
resized image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import ClusterError, kmeans2

from app.pipeline.config import ConfigError, RunConfig
from app.pipeline.data.resize import resized_size
from app.pipeline.data.snapshot import Sample

STOCK_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
STOCK_RATIOS = (0.5, 1.0, 2.0)
CELLS_PER_SHAPE = 8  # a level's natural size in strides: torchvision puts 32 pixels on stride 4, as in the FPN paper
MAX_CLUSTERED = 20_000  # boxes that KMeans looks at: more change its centers by less than a pixel
RESTARTS = 5
IOU_LEVELS = (0.5, 0.7)
# COCO's classes of size, by the area after resizing.
SIZE_CLASSES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, math.inf)}

Shapes = tuple[np.ndarray, ...]  # float32 [A, 2] of each level, the finest first


@dataclass(frozen=True, slots=True)
class Recall:
    """How many boxes there are, and the share of them whose best anchor reaches IoU .5 and .7 (None without boxes)."""

    num_boxes: int
    at_50: float | None
    at_70: float | None


def level_shapes(config: RunConfig, strides: Sequence[int]) -> Shapes:
    """The shapes of every level of a detector whose feature maps have ``strides`` (the finest first).

    Raises ValueError while the shapes that KMeans finds are not in the config: see :func:`resolve_shapes`.
    """
    if config.anchors == "stock":
        return stock_shapes(len(strides))
    if config.anchors == "custom":
        return custom_shapes(config.anchor_sizes, config.anchor_ratios, len(strides))
    if not config.anchor_shapes:
        raise ValueError("anchor_shapes must be resolved before a model with anchors 'kmeans' is built")
    return spread_over_levels(np.array(config.anchor_shapes), strides)


def stock_shapes(num_levels: int) -> Shapes:
    """torchvision's anchors, rounded to whole pixels as there.

    From five levels on one size each, from 32 and doubling; up to three levels (its MobileNets) all five sizes on each.
    Four levels get two sizes each, so that 32 to 512 is covered too.
    """
    if num_levels >= 5:
        sizes = [(32.0 * 2**level,) for level in range(num_levels)]
    elif num_levels == 4:
        sizes = [STOCK_SIZES[level : level + 2] for level in range(4)]
    else:
        sizes = [STOCK_SIZES] * num_levels
    return tuple(2 * np.round(_shapes_of(of_level, STOCK_RATIOS) / 2) for of_level in sizes)


def custom_shapes(sizes: Sequence[float], ratios: Sequence[float], num_levels: int) -> Shapes:
    """Every size with every ratio (height / width): one size a level if there are as many, else all on each level."""
    if len(sizes) == num_levels:
        return tuple(_shapes_of((size,), ratios) for size in sizes)
    return (_shapes_of(sizes, ratios),) * num_levels


def _shapes_of(sizes: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """float32 [A, 2]; the sizes of a ratio stand together, as in torchvision."""
    roots = np.sqrt(np.asarray(ratios, np.float32))
    size = np.asarray(sizes, np.float32)
    return np.stack([(1 / roots)[:, None] * size, roots[:, None] * size], axis=-1).reshape(-1, 2)


def spread_over_levels(shapes: np.ndarray, strides: Sequence[int]) -> Shapes:
    """Shapes [K, 2] given to levels: each to the level whose natural size is nearest, an equal number on every level.

    The RPN's head has the same number of outputs on all levels, so a level with fewer shapes of its own than another
    takes those nearest to it as well.
    """
    sizes = np.sqrt(shapes.prod(axis=1))
    distances = np.abs(np.log(sizes)[:, None] - np.log(CELLS_PER_SHAPE * np.asarray(strides, float)))  # [K, L]
    home = distances.argmin(axis=1)
    num = np.bincount(home).max()
    levels = []
    for level in range(len(strides)):
        nearest = np.lexsort((distances[:, level], home != level))[:num]
        levels.append(shapes[nearest[np.lexsort((shapes[nearest, 0], sizes[nearest]))]].astype(np.float32))
    return tuple(levels)


def find_shapes(sizes: np.ndarray, num_shapes: int, seed: int) -> np.ndarray:
    """Typical (width, height) of boxes by KMeans: float64 [K, 2], by area; fewer where there are fewer distinct sizes.

    sizes: [N, 2] with N >= 1. The distance is Euclidean between logarithms: twice too wide then counts as much as
    half as wide, for small boxes as for large ones, just as for the IoU of boxes with one center; and unlike with
    1 - IoU the mean of a cluster (here the geometric one) is its best center, so that Lloyd's iterations converge.
    """
    generator = np.random.default_rng(seed)
    if len(sizes) > MAX_CLUSTERED:
        sizes = sizes[generator.choice(len(sizes), MAX_CLUSTERED, replace=False)]
    points = np.log(sizes)
    distinct = np.unique(points, axis=0)
    if len(distinct) <= num_shapes:
        return _by_area(np.exp(distinct))
    found = [_cluster(points, num_shapes, generator) for _ in range(RESTARTS)]
    return _by_area(np.exp(min(found, key=lambda result: result[0])[1]))


def _cluster(points: np.ndarray, num_clusters: int, generator: np.random.Generator) -> tuple[float, np.ndarray]:
    """(mean squared distance, centers) of one start; a start that loses a cluster is tried with one less."""
    try:
        centers, labels = kmeans2(points, num_clusters, iter=30, minit="++", missing="raise", rng=generator)
    except ClusterError:
        return _cluster(points, num_clusters - 1, generator)
    return float(((points - centers[labels]) ** 2).sum(axis=1).mean()), centers


def _by_area(shapes: np.ndarray) -> np.ndarray:
    return shapes[np.lexsort((shapes[:, 0], shapes.prod(axis=1)))]


def resolve_shapes(config: RunConfig, boxes: np.ndarray) -> RunConfig:
    """The config with the shapes that KMeans finds for the train boxes [N, 4]; as it is for other kinds of anchors.

    Shapes that it holds already stay. Raises ConfigError without a box to learn from.
    """
    if config.anchors != "kmeans" or config.anchor_shapes:
        return config
    sizes = boxes[:, 2:] - boxes[:, :2]
    sizes = sizes[(sizes > 0).all(axis=1)]
    if not len(sizes):
        raise ConfigError("anchors 'kmeans' learns from the boxes of the train split, there are none: choose 'stock'")
    found = find_shapes(sizes, config.num_anchor_shapes, config.seed)
    shapes = tuple((round(float(width), 2), round(float(height), 2)) for width, height in found)
    return config.model_copy(update={"anchor_shapes": shapes})


def boxes_after_resize(boxes: np.ndarray, image_size: tuple[int, int], config: RunConfig) -> np.ndarray:
    """Boxes [N, 4] of an upright image of ``image_size`` (width, height), in pixels after the resizing of a run."""
    width, height = resized_size(*image_size, config.image_size, config.resize)
    return boxes * (np.array([width, height] * 2) / np.array([*image_size, *image_size]))


def boxes_of(samples: Sequence[Sample], config: RunConfig) -> np.ndarray:
    """float64 [N, 4]: the boxes that samples are trained on, crowds left out, in pixels after resizing."""
    found = [
        boxes_after_resize(sample.boxes[~sample.is_crowd], (sample.width, sample.height), config) for sample in samples
    ]
    return np.concatenate([*found, np.zeros((0, 4))])


def measure_recall(
    boxes: np.ndarray, shapes: Shapes, strides: Sequence[int], canvas: tuple[int, int]
) -> dict[str, Recall]:
    """The recall of anchors on boxes [N, 4], for all of them and for COCO's small, medium and large.

    ``canvas`` is the (height, width) of the padded images, which the grids cover.
    """
    ious = best_ious(boxes, shapes, strides, canvas)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    found = {"all": _recall_of(ious)}
    for name, (low, high) in SIZE_CLASSES.items():
        found[name] = _recall_of(ious[(areas >= low) & (areas < high)])
    return found


def _recall_of(ious: np.ndarray) -> Recall:
    if not len(ious):
        return Recall(0, None, None)
    at_50, at_70 = (float((ious >= level).mean()) for level in IOU_LEVELS)
    return Recall(len(ious), at_50, at_70)


def best_ious(boxes: np.ndarray, shapes: Shapes, strides: Sequence[int], canvas: tuple[int, int]) -> np.ndarray:
    """float64 [N]: the highest IoU of each box [N, 4] with any anchor.

    Of one shape the anchor with the nearest center overlaps most along both axes, so one position a shape is enough.
    """
    centers, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    extent = np.array([canvas[1], canvas[0]])
    best = np.zeros(len(boxes))
    for of_level, stride in zip(shapes, strides, strict=True):
        num = -(-extent // stride)  # convolutions and pooling round up
        step = extent // num  # torchvision's own rule: smaller than the stride where the last cell reaches outside
        offsets = np.abs(centers - np.clip(np.rint(centers / step), 0, num - 1) * step)
        for shape in of_level.astype(np.float64):
            overlaps = np.minimum((sizes + shape) / 2 - offsets, np.minimum(sizes, shape)).clip(min=0)
            shared = overlaps.prod(axis=1)
            np.maximum(best, shared / (sizes.prod(axis=1) + shape.prod() - shared), out=best)
    return best
