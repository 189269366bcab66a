"""What labels and options tell without a model: sizes of objects, anchors, crowding. N boxes, xyxy pixels."""

import math
from collections.abc import Sequence

import numpy as np

from app.pipeline.anchors import Recall, boxes_of, level_shapes, measure_recall, resolve_shapes
from app.pipeline.config import RunConfig
from app.pipeline.data.resize import STRIDE, canvas_for
from app.pipeline.data.snapshot import Sample, Snapshot
from app.pipeline.models.build import num_proposals, resolve_max_detections
from app.pipeline.models.catalogue import pyramid_strides
from app.pipeline.preflight.verdict import Level, Verdict, working_fix

SMALL_PX = 8.0  # square root of the area after resizing: a single cell of the finest map is 4
SMALL_SHARES = (0.05, 0.2)  # of the objects: amber, red
LARGEST_SIZE = 2048
REACHED_AT_50 = (0.9, 0.5)  # of the boxes: amber below, red below
REACHED_AT_70 = 0.3  # amber below
WORTH_IT = 0.05  # what KMeans must add to a recall to be proposed
MAX_MEASURED = 20_000  # boxes; a random part this large is within a percent of all


def check_sizes(samples: Sequence[Sample], config: RunConfig) -> Verdict:
    """How many objects are too small to be seen after resizing; a larger image size where that helps."""
    boxes = boxes_of(samples, config)
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    share = float((sides < SMALL_PX).mean()) if len(sides) else 0.0
    if share <= SMALL_SHARES[0]:
        return Verdict("sizes", "green", f"{_percent(share)} of the objects are under 8 px after resizing.")
    text = f"{_percent(share)} of the objects are under 8 px after resizing, too small to be found well."
    fix = _larger_size(sides, config)
    if fix:
        text += f" At image size {fix['image_size']} it is {_percent(_share_below(sides, fix['image_size'], config))}."
    return Verdict("sizes", "red" if share > SMALL_SHARES[1] else "amber", text, fix)


def _larger_size(sides: np.ndarray, config: RunConfig) -> dict[str, object]:
    """The image size that leaves few objects small, as far as sizes go."""
    wanted = config.image_size * SMALL_PX / float(np.quantile(sides, SMALL_SHARES[0]))
    size = min(LARGEST_SIZE, math.ceil(wanted / STRIDE) * STRIDE)
    if config.resize == "as_is" or size <= config.image_size:
        return {}
    sizes = {"progressive_sizes": ()} if config.progressive_sizes else {}
    return working_fix(config, image_size=size, **sizes)


def _share_below(sides: np.ndarray, image_size: int, config: RunConfig) -> float:
    return float((sides * image_size / config.image_size < SMALL_PX).mean())


def check_anchors(samples: Sequence[Sample], config: RunConfig) -> Verdict:
    """The share of the boxes that the run's anchors reach, and whether KMeans on them reaches more."""
    boxes = boxes_of(samples, config)
    if not len(boxes):
        return Verdict("anchors", "red", "There is no box in the train split.")
    measured = _sample(boxes, config.seed)
    own = _recall(samples, measured, boxes, config)
    text = f"They reach {_recall_text(own)}"
    level: Level = "green"
    if own.at_50 < REACHED_AT_50[0] or own.at_70 < REACHED_AT_70:
        level = "red" if own.at_50 < REACHED_AT_50[1] else "amber"
    if level == "green" or config.anchors == "kmeans":
        return Verdict("anchors", level, f"{text}.")
    found = _recall(samples, measured, boxes, config.model_copy(update={"anchors": "kmeans", "anchor_shapes": ()}))
    if max(found.at_50 - own.at_50, found.at_70 - own.at_70) < WORTH_IT:
        return Verdict("anchors", level, f"{text}, and those of KMeans hardly more: try larger images.")
    text += f"; those of KMeans {_percent(found.at_50)} and {_percent(found.at_70)}."
    return Verdict("anchors", level, text, working_fix(config, anchors="kmeans"))


def _recall(samples: Sequence[Sample], measured: np.ndarray, boxes: np.ndarray, config: RunConfig) -> Recall:
    strides = pyramid_strides(config.model)
    shapes = level_shapes(resolve_shapes(config, boxes), strides)
    canvas = canvas_for([(one.width, one.height) for one in samples], config.image_size, config.resize)
    return measure_recall(measured, shapes, strides, canvas)["all"]


def _recall_text(recall: Recall) -> str:
    return f"{_percent(recall.at_50)} of the boxes by IoU .5 and {_percent(recall.at_70)} by .7"


def _sample(boxes: np.ndarray, seed: int) -> np.ndarray:
    if len(boxes) <= MAX_MEASURED:
        return boxes
    return boxes[np.random.default_rng(seed).choice(len(boxes), MAX_MEASURED, replace=False)]


def check_crowding(snapshot: Snapshot, config: RunConfig) -> Verdict:
    """Whether the caps on detections and proposals leave room for the most crowded image."""
    most = snapshot.max_objects
    resolved = config.model_copy(update={"max_detections": resolve_max_detections(config, most)})
    caps = {"max_detections": resolved.max_detections, "proposals": num_proposals(resolved)}
    words = f"{caps['max_detections']} detections and {caps['proposals']} proposals an image are allowed"
    text = f"The most crowded image has {most} objects; {words}."
    short = [name for name, cap in caps.items() if cap < most]
    if short:
        lost = most - min(caps.values())
        return Verdict("crowding", "red", f"{text} {lost} of them can never be found.", _uncapped(config, short))
    tight = [name for name, factor in (("max_detections", 1.1), ("proposals", 2)) if caps[name] < factor * most]
    if tight:
        return Verdict(
            "crowding", "amber", f"{text} That is tight: there are false alarms too.", _uncapped(config, tight)
        )
    return Verdict("crowding", "green", text)


def _uncapped(config: RunConfig, names: list[str]) -> dict[str, object]:
    """The automatic caps, which follow the data, in place of those that are too low."""
    return working_fix(config, **dict.fromkeys(names, 0))


def _percent(share: float) -> str:
    """A share as a whole percentage that does not hide a remainder: 0 % and 100 % are meant."""
    if 0 < share < 0.01:
        return "under 1 %"
    if 0.99 < share < 1:
        return "over 99 %"
    return f"{share * 100:.0f} %"
