"""Two runs side by side: what was set differently, how their figures differ beyond chance, and how they got there."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from app.errors import BadRequest
from app.pipeline.config import GROUPS, parse_config
from app.pipeline.data.snapshot import Snapshot
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.error_budget import spend_errors
from app.pipeline.evaluate.selection import TITLES
from app.pipeline.types import Detections
from app.records import Job, Run
from app.services import review, run_notes
from app.services.context import Services
from app.services.stored_sets import wait_for_set
from app.store import predictions, runs

if TYPE_CHECKING:
    from app.pipeline.evaluate.bootstrap import Difference

CURVES = ("map50", "map", "f1")
_PAGE = 20_000


@dataclass(frozen=True, eq=False)
class Shared:
    """The images that both runs have in a split, with the labels of the second, and both sets of detections on them.

    num_left_out: images that only one of the runs has there. num_relabeled: images whose boxes differ between the runs.
    """

    truth: GroundTruth
    first: DetectionColumns
    second: DetectionColumns
    num_left_out: int
    num_relabeled: int


def compare_runs(
    services: Services,
    slug: str,
    first: int,
    second: int,
    split: str = "valid",
    on_change: Callable[[Job], None] | None = None,
) -> dict[str, Any]:
    """Compare the best checkpoints of two runs on a split, predicting first where that was not done; blocks.

    split, images, left_out, relabeled; runs: two of run, name, state, checkpoint, epoch, error_budget, notes and
    curves; differences: figure -> the fields of Difference with is_clear; config: option, first and second where they
    differ; reached: when each run first reached the lower of their best mAP50; verdict: one sentence.
    Raises NotFound, BadRequest when the runs cannot be compared, UserError when predicting failed.
    """
    from app.pipeline.evaluate.bootstrap import compare_sets  # numba takes a quarter of a second to load

    if first == second:
        raise BadRequest(f"Run {first} cannot be compared with itself.", "Name two runs.")
    database = services.database(slug)
    chosen = [runs.get_run(database, run_id) for run_id in (first, second)]
    checkpoints = [review.best_checkpoint(services, slug, run.id) for run in chosen]
    sets = [wait_for_set(services, slug, checkpoint, split, on_change) for checkpoint in checkpoints]
    shared = _share_images(
        [review.load_truth(services, slug, run.id) for run in chosen],
        [predictions.read_detections(database, item.id) for item in sets],
        split,
    )
    differences = compare_sets(shared.truth, shared.first, shared.second)
    described = [
        {
            "run": run.id,
            "name": run.name,
            "state": run.state,
            "checkpoint": checkpoint.file_name,
            "epoch": checkpoint.epoch,
            "set": record.id,
            "error_budget": spend_errors(shared.truth, columns).to_json(),
            "notes": run_notes.get_notes(services, slug, run.id),
            "curves": _summarize_curves(services, slug, run.id),
        }
        for run, checkpoint, record, columns in zip(
            chosen, checkpoints, sets, (shared.first, shared.second), strict=True
        )
    ]
    return {
        "split": split,
        "images": shared.truth.num_images,
        "left_out": shared.num_left_out,
        "relabeled": shared.num_relabeled,
        "runs": described,
        "differences": {name: {**asdict(item), "is_clear": item.is_clear} for name, item in differences.items()},
        "config": _differing_options(*chosen),
        "reached": _when_reached(*(item["curves"] for item in described)),
        "verdict": _verdict(chosen, differences["map50"]),
    }


def _share_images(snapshots: list[Snapshot], found: list[dict[int, Detections]], split: str) -> Shared:
    """What both runs were judged on. Raises BadRequest when their classes differ or they share no image."""
    first, second = snapshots
    if first.categories != second.categories:
        raise BadRequest(
            "The runs were trained on different classes, so their figures do not mean the same.",
            "Train one of them again on the classes as they are now.",
        )
    earlier = {sample.image_id: sample for sample in first.split(split)}
    samples = [sample for sample in second.split(split) if sample.image_id in earlier]
    if not samples:
        raise BadRequest(f"The runs share no image of the {split} split.", "Choose another split.")
    truth = GroundTruth.from_samples(samples, second.categories)
    columns = [
        DetectionColumns.from_detections(
            truth, {sample.image_id: each[sample.image_id] for sample in samples if sample.image_id in each}
        )
        for each in found
    ]
    relabeled = [
        not (
            np.array_equal(sample.boxes, earlier[sample.image_id].boxes)
            and np.array_equal(sample.labels, earlier[sample.image_id].labels)
        )
        for sample in samples
    ]
    num_left_out = len(earlier) + len(second.split(split)) - 2 * len(samples)
    return Shared(truth, *columns, num_left_out, sum(relabeled))


def _differing_options(first: Run, second: Run) -> list[dict[str, Any]]:
    """Options as the form orders them; runs of earlier versions have the defaults of what they do not name."""
    defaults = parse_config({}).model_dump(mode="json")
    in_form = [name for group in GROUPS for name in group.model_fields]
    values = [defaults | run.config for run in (first, second)]
    return [
        {"option": name, "first": values[0].get(name), "second": values[1].get(name)}
        for name in dict.fromkeys([*in_form, *values[0], *values[1]])
        if values[0].get(name) != values[1].get(name)
    ]


def _summarize_curves(services: Services, slug: str, run_id: int) -> dict[str, Any]:
    """Validations as columns (epoch, elapsed_s and each figure, None where it is missing), and the best mAP50."""
    points, after = [], 0
    while page := runs.metrics_after(services.database(slug), run_id, after, CURVES, _PAGE):
        points += [point for point in page if point.split == "valid"]
        after = page[-1].id
    by_epoch: dict[int, dict[str, float]] = {}
    for point in points:
        by_epoch.setdefault(point.epoch, {})[point.name] = point.value
        by_epoch[point.epoch]["elapsed_s"] = point.elapsed_s
    epochs = sorted(by_epoch)
    columns: dict[str, Any] = {name: [by_epoch[e].get(name) for e in epochs] for name in (*CURVES, "elapsed_s")}
    best = max(epochs, key=lambda epoch: by_epoch[epoch].get("map50", -1.0), default=None)
    return {
        "epoch": epochs,
        **columns,
        "best": None if best is None else {"epoch": best, **by_epoch[best]},
        "total_s": columns["elapsed_s"][-1] if epochs else None,
    }


def _when_reached(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any] | None:
    """By epoch and by the clock; None without validations."""
    if not (first["best"] and second["best"]) or "map50" not in first["best"] or "map50" not in second["best"]:
        return None
    level = min(first["best"]["map50"], second["best"]["map50"])
    return {"map50": level, "first": _reaches(first, level), "second": _reaches(second, level)}


def _reaches(curves: dict[str, Any], level: float) -> dict[str, float]:
    place = next(n for n, value in enumerate(curves["map50"]) if value is not None and value >= level)
    return {"epoch": curves["epoch"][place], "elapsed_s": curves["elapsed_s"][place]}


def _verdict(chosen: list[Run], item: "Difference") -> str:
    """One sentence on mAP50, the figure that most projects look at."""
    if item.first < 0:
        return "The split has no labeled box, so there is nothing to compare by."
    interval = f"{item.difference:+.3f} {TITLES['map50']}, 95 % interval {item.low:+.3f} to {item.high:+.3f}"
    if not item.is_clear:
        return f"No clear difference: {interval}. These images would show one of {item.detectable:.3f} or more."
    better = chosen[1 if item.difference > 0 else 0]
    return f"{better.name} is better beyond chance: {interval}."
