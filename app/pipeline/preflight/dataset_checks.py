"""What labels and options tell without a model: sizes of objects, anchors, crowding. N boxes, xyxy pixels."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from app.pipeline.anchors import Recall, boxes_of, level_shapes, measure_recall, resolve_shapes
from app.pipeline.config import RunConfig
from app.pipeline.data.resize import STRIDE, canvas_for
from app.pipeline.data.snapshot import Sample, Snapshot
from app.pipeline.models.build import num_proposals, resolve_max_detections
from app.pipeline.models.catalogue import pyramid_strides
from app.pipeline.preflight.verdict import LEVELS, Fix, Level, Verdict, trouble, working_fix

SMALL_PX = 8.0  # square root of the area after resizing: a single cell of the finest map is 4
SMALL_SHARES = (0.05, 0.2)  # of the objects: amber, red
LARGEST_SIZE = 2048
REACHED_AT_50 = (0.9, 0.5)  # of the boxes: amber below, red below
REACHED_AT_70 = 0.3  # amber below
MOST_SHAPES = 45  # of KMeans
LARGER_SIZES = (1.5, 2, 3, 4)  # times the image size
MAX_MEASURED = 20_000  # boxes; a random part this large is within a percent of all


def check_sizes(samples: Sequence[Sample], config: RunConfig) -> Verdict:
    """How many objects are too small to be seen after resizing; a larger image size where that helps."""
    share = _share_of_small(samples, config)
    if share <= SMALL_SHARES[0]:
        text = f"{_percent(share)} of the objects are under 8 px after resizing."
        return Verdict("sizes", "green", text[0].upper() + text[1:])  # it may begin with a word: "under 1 %"
    level: Level = "red" if share > SMALL_SHARES[1] else "amber"
    text = f"{_percent(share)} of the objects are under 8 px after resizing, too small to be found well."
    fix = _larger_size(samples, config)
    mended = config.model_copy(update=fix)
    left = _share_of_small(samples, mended)
    if left < share:
        return Verdict("sizes", level, f"{text} At image size {mended.image_size} it is {_percent(left)}.", fix)
    text += f" Resizing goes to {LARGEST_SIZE} px at most: cut the images into tiles, or label only what is larger."
    return Verdict("sizes", level, text, action="open_data")


def _larger_size(samples: Sequence[Sample], config: RunConfig) -> Fix:
    """The image size that leaves few objects small, as far as sizes go."""
    resize = "longest" if config.resize == "as_is" else config.resize
    at_largest = _sides(samples, config.model_copy(update={"image_size": LARGEST_SIZE, "resize": resize}))
    wanted = LARGEST_SIZE * SMALL_PX / max(0.01, float(np.quantile(at_largest, SMALL_SHARES[0])))
    size = min(LARGEST_SIZE, math.ceil(wanted / STRIDE) * STRIDE)
    return working_fix(config, image_size=size, resize=resize, progressive_sizes=())


def _sides(samples: Sequence[Sample], config: RunConfig) -> np.ndarray:
    """float64 [N]: the square roots of the boxes' areas, in pixels after resizing."""
    boxes = boxes_of(samples, config)
    return np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def _share_of_small(samples: Sequence[Sample], config: RunConfig) -> float:
    sides = _sides(samples, config)
    return float((sides < SMALL_PX).mean()) if len(sides) else 0.0


def check_anchors(samples: Sequence[Sample], config: RunConfig) -> Verdict:
    """The share of the boxes that the run's anchors reach, and which ones would reach enough."""
    if not len(boxes_of(samples, config)):
        return Verdict("anchors", "red", "There is no box in the train split.", action="open_data")
    own = _recall(samples, config)
    level, text = _recall_level(own), f"They reach {_recall_text(own)}"
    if level == "green":
        return Verdict("anchors", level, f"{text}.")
    best: Verdict | None = None
    for words, fix in _other_anchors(samples, config):
        found = _recall(samples, config.model_copy(update=fix))
        reached = _recall_level(found)
        if reached == "green" or (best is None and LEVELS.index(reached) < LEVELS.index(level)):
            text_of_fix = f"{text}; those of {words} {_percent(found.at_50)} and {_percent(found.at_70)}."
            best = Verdict("anchors", level, text_of_fix, fix)
        if reached == "green":
            break
    text += ", and neither KMeans nor larger images reach enough: look whether the boxes are right."
    return best or Verdict("anchors", level, text, action="open_data")


def _recall_level(recall: Recall) -> Level:
    if recall.at_50 >= REACHED_AT_50[0] and recall.at_70 >= REACHED_AT_70:
        return "green"
    return "red" if recall.at_50 < REACHED_AT_50[1] else "amber"


def _other_anchors(samples: Sequence[Sample], config: RunConfig) -> Iterator[tuple[str, Fix]]:
    """(words, fix) for what may reach more, the least costly first: KMeans, more shapes, larger images."""
    kmeans = {"anchors": "kmeans", "anchor_shapes": ()}
    size, resize = config.image_size, config.resize
    if resize == "as_is":
        size, resize = max(max(one.width, one.height) for one in samples), "longest"
    more = min(MOST_SHAPES, 2 * config.num_anchor_shapes)
    sizes = sorted({min(LARGEST_SIZE, math.ceil(size * factor / STRIDE) * STRIDE) for factor in LARGER_SIZES})
    larger = {"resize": resize, "progressive_sizes": ()}
    found = [
        ("KMeans", working_fix(config, **kmeans)),
        (f"KMeans with {more} shapes", working_fix(config, **kmeans, num_anchor_shapes=more)),
        *((f"KMeans at image size {one}", working_fix(config, **kmeans, **larger, image_size=one)) for one in sizes),
    ]
    return ((words, fix) for words, fix in found if fix)


def _recall(samples: Sequence[Sample], config: RunConfig) -> Recall:
    boxes = boxes_of(samples, config)
    strides = pyramid_strides(config.model)
    shapes = level_shapes(resolve_shapes(config, boxes), strides)
    canvas = canvas_for([(one.width, one.height) for one in samples], config.image_size, config.resize)
    return measure_recall(_sample(boxes, config.seed), shapes, strides, canvas)["all"]


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
        text += f" {lost} of them can never be found."
        return trouble("crowding", "red", text, _uncapped(config, short), "open_data")
    tight = [name for name, factor in (("max_detections", 1.1), ("proposals", 2)) if caps[name] < factor * most]
    if tight:
        text += " That is tight: there are false alarms too."
        return trouble("crowding", "amber", text, _uncapped(config, tight), "open_data")
    return Verdict("crowding", "green", text)


def _uncapped(config: RunConfig, names: list[str]) -> Fix:
    """The automatic caps, which follow the data, in place of those that are too low."""
    return working_fix(config, **dict.fromkeys(names, 0))


def _percent(share: float) -> str:
    """A share as a whole percentage that does not hide a remainder: 0 % and 100 % are meant."""
    if 0 < share < 0.01:
        return "under 1 %"
    if 0.99 < share < 1:
        return "over 99 %"
    return f"{share * 100:.0f} %"
