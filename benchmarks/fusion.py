"""How many times faster than ensemble_boxes a core fuses, and whether the results are the same bits.

    python -m benchmarks.fusion                    # a table of methods; exits with 1 when a result differs
    python -m benchmarks.fusion --lab              # and seconds to tune, judge and take apart an ensemble

The goal is 80 times a core. Only NMS cannot get there: the library compiles that one itself, and its time is mostly
numpy's around it. An 80th of it is 2.8 µs for 300 boxes; bringing these in order of class and score takes twice that.

Rounds alternate between the two; figures are processor seconds, medians, with the range of the ratio. "Whole" counts
the way from each member's detections to fused detections, the library being given its lists for nothing. Scores all
differ, since the library sorts equal ones in no certain order. Its soft-NMS returns scores from before the decay, so
there the kept boxes are compared.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ensemble_boxes
import numpy as np

from app.pipeline.data.categories import CategoryMap
from app.pipeline.data.snapshot import Sample
from app.pipeline.ensemble import CONF_TYPES, FusionOptions, fuse_columns
from app.pipeline.fusion.columns import Columns, MemberColumns
from app.pipeline.fusion.lab import Half, run_lab, split_in_halves
from app.pipeline.types import Detections

SIZE = 512
VARIANTS = [*(("wbf", kind) for kind in CONF_TYPES), *((method, "avg") for method in ("nms", "soft_nms", "nmw"))]

Lists = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]


def make_members(
    num_members: int, num_images: int, num_boxes: int, num_classes: int
) -> tuple[list[Sample], list[dict[int, Detections]]]:
    """Images with 20 objects; each member gives ``num_boxes`` boxes around these and around 20 places without one."""
    rng = np.random.default_rng(0)
    samples: list[Sample] = []
    members: list[dict[int, Detections]] = [{} for _ in range(num_members)]
    for image_id in range(num_images):
        corner = rng.uniform(0, SIZE - 120, (40, 2))
        places = np.concatenate([corner, corner + rng.uniform(16, 120, (40, 2))], axis=1)
        labels = rng.integers(1, num_classes + 1, 40)
        sure = (rng.permutation(num_members * num_boxes) + 1) / (num_members * num_boxes + 1)
        for member, scores in zip(members, np.array_split(sure, num_members), strict=True):
            seen = rng.integers(0, 40, num_boxes)
            boxes = np.clip(places[seen] + rng.normal(0, 3, (num_boxes, 4)), 0, SIZE)
            boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
            scores = np.sort(scores)[np.argsort(np.argsort((seen < 20) + rng.random(num_boxes)))]
            member[image_id] = Detections(boxes, scores, labels[seen])
        samples.append(
            Sample(
                image_id, Path("none"), "", "valid", SIZE, SIZE, 0, places[:20], labels[:20], np.zeros(20, bool)
            )
        )  # fmt: skip
    return samples, members


def lists_of(columns: MemberColumns, image: int) -> Lists:
    """An image as the library wants it."""
    rows = slice(columns.first[image], columns.first[image + 1])
    masks = [columns.members[rows] == member for member in range(columns.num_members)]
    boxes, scores, labels = columns.boxes[rows], columns.scores[rows], columns.labels[rows].astype(np.int64)
    return [boxes[m] for m in masks], [scores[m] for m in masks], [labels[m] for m in masks]


def library_call(method: str, conf_type: str, iou: float) -> Callable[[Lists], Lists]:
    """The library's function for an image."""
    if method == "wbf":
        return lambda image: ensemble_boxes.weighted_boxes_fusion(*image, iou_thr=iou, conf_type=conf_type)
    name = {"nms": "nms", "soft_nms": "soft_nms", "nmw": "non_maximum_weighted"}[method]
    return lambda image: getattr(ensemble_boxes, name)(*image, iou_thr=iou)


def is_equal(method: str, own: Columns, image: int, found: Lists) -> bool:
    """Whether an image came out in the same bits, rows sorted by all their numbers."""

    def table(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> bytes:
        rows = np.column_stack([labels, scores * (method != "soft_nms"), boxes]).astype(np.float64)
        return rows[np.lexsort(rows.T[::-1])].tobytes()

    rows = slice(own.first[image], own.first[image + 1])
    return table(own.boxes[rows], own.scores[rows], own.labels[rows]) == table(*found)


def seconds(work: Callable[[], object]) -> float:
    """Of the processor, on all cores that this process used; both sides use one."""
    began = time.process_time()
    work()
    return time.process_time() - began


def compare(values: argparse.Namespace) -> bool:
    """Print the table; whether all results were equal."""
    samples, members = make_members(values.members, values.images, values.boxes, values.classes)
    columns = MemberColumns.from_detections(members, samples)
    images = [lists_of(columns, image) for image in range(values.sampled)]
    print(f"{values.members} members x {values.images} images x {values.boxes} boxes, {values.classes} classes")
    print(f"{'method':<32}{'library ms':>11}{'own ms':>9}{'ratio':>7}  {'range':<12}{'whole ms':>9}{'ratio':>7}  equal")
    results = [
        compare_method(FusionOptions(method=method, conf_type=kind), samples, members, columns, images, values.rounds)
        for method, kind in VARIANTS
    ]
    return all(results)


def compare_method(
    options: FusionOptions,
    samples: list[Sample],
    members: list[dict[int, Detections]],
    columns: MemberColumns,
    images: list[Lists],
    rounds: int,
) -> bool:
    """Print one line; whether the results were equal."""
    call = library_call(options.method, options.conf_type, options.iou_threshold)
    own, found = fuse_columns(columns, options), [call(image) for image in images]  # compiles both
    equal = all(is_equal(options.method, own, image, each) for image, each in enumerate(found))
    theirs, ours, whole = [], [], []
    for _ in range(rounds):
        theirs.append(seconds(lambda: [call(image) for image in images]) / len(images))
        ours.append(seconds(lambda: fuse_columns(columns, options)) / len(samples))
        whole.append(seconds(lambda: fuse_all(members, samples, options)) / len(samples))
    ratios = [their / own for their, own in zip(theirs, ours, strict=True)]
    their, own_s, whole_s = map(statistics.median, (theirs, ours, whole))
    name = f"wbf ({options.conf_type})" if options.method == "wbf" else options.method
    print(
        f"{name:<32}{1000 * their:>11.3f}{1000 * own_s:>9.4f}"
        f"{statistics.median(ratios):>7.0f}  {f'{min(ratios):.0f} - {max(ratios):.0f}':<12}"
        f"{1000 * whole_s:>9.4f}{their / whole_s:>7.0f}  {'yes' if equal else 'NO'}",
        flush=True,
    )
    return equal


def fuse_all(members: list[dict[int, Detections]], samples: list[Sample], options: FusionOptions) -> list[Detections]:
    """From the members' detections to fused detections."""
    return fuse_columns(MemberColumns.from_detections(members, samples), options).to_detections()


def time_lab(values: argparse.Namespace) -> None:
    """Print seconds and trials of the lab over the same detections."""
    samples, members = make_members(values.members, values.images, values.boxes, values.classes)
    categories = CategoryMap(
        tuple(range(1, values.classes + 1)), tuple(f"class {n}" for n in range(1, values.classes + 1))
    )
    is_tuning = split_in_halves(samples, {}, 0)
    read = [lambda ids, member=member: {image_id: member[image_id] for image_id in ids} for member in members]
    halves = tuple(
        Half.of([sample for sample, own in zip(samples, mask, strict=True) if own], categories, read)
        for mask in (is_tuning, ~is_tuning)
    )
    trials: list[str] = []
    began, wall = time.process_time(), time.perf_counter()
    found = run_lab(["off"], lambda views: halves, "map50_f1", tick=trials.append)
    took = time.process_time() - began
    print(f"lab: {len(trials)} trials in {took:.1f} s of a core ({time.perf_counter() - wall:.1f} s by the clock)")
    for row in found["methods"]:
        scores = f"score {row['plain']['score']:.4f} -> {row['judged']['score']:.4f}"
        print(f"  {row['method']:<10}{trials.count(row['method']):>4} trials, {scores} {row['options']}")


def main() -> int:
    """Compare, and time the lab where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--boxes", type=int, default=100)
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--sampled", type=int, default=40, help="images that the library fuses in each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--lab", action="store_true")
    values = parser.parse_args()
    is_all_equal = compare(values)
    if values.lab:
        time_lab(values)
    return 0 if is_all_equal else 1


if __name__ == "__main__":
    sys.exit(main())
