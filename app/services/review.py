"""Looking through predictions against the ground truth: which exist, what they are worth, image by image, as a file."""

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from app.errors import BadRequest, NotFound, UserError
from app.pipeline.config import JudgementOptions, TestTimeAugmentation
from app.pipeline.data.categories import CategoryMap
from app.pipeline.data.snapshot import Sample, Snapshot
from app.pipeline.ensemble import METHODS, SHORT_NAMES, options_in_effect
from app.pipeline.evaluate.coco_numbers import Evaluation, GroundTruth, evaluate_columns
from app.pipeline.evaluate.columns import DetectionColumns
from app.pipeline.evaluate.matching import ErrorCounts, count_errors, match_columns
from app.pipeline.evaluate.selection import selection_score
from app.pipeline.types import Detections
from app.records import SPLITS, Checkpoint, Job, PredictionSet, Run, state_word
from app.services import jobs, label_export
from app.services.context import Services
from app.services.image_entries import detections_entry, image_entry
from app.services.judging_time import FIGURES_S, OnPart, guess_s, tell_nobody
from app.services.lru_cache import LruCache
from app.services.truths import load_truth, splits_of
from app.store import jobs as job_store
from app.store import predictions, runs
from app.store.database import ProjectDatabase
from app.store.files import replacing

logger = logging.getLogger(__name__)

MAX_PAGE = 500
VIEW_TITLES: dict[TestTimeAugmentation, str] = {"off": "one view", "flip": "flip", "flip_scales": "flip + scales"}
SORTS = ("errors", "name", "id")
_KEPT_EVALUATIONS = 64
_KEPT_ORDERS = 16  # of the images of a set: 8 bytes an image each

_evaluations = LruCache(_KEPT_EVALUATIONS)
_orders = LruCache(_KEPT_ORDERS)


@dataclass(frozen=True)
class Judged:
    """A set with its ground truth and its figures."""

    record: PredictionSet
    snapshot: Snapshot
    evaluation: Evaluation


def overview(services: Services, slug: str) -> list[dict[str, Any]]:
    """Runs that have weights, newest first, with checkpoints (best first), images per split and stored sets.

    ``dataset``: by split the key of its classes and images; predictions of runs with the same one can be fused.
    """
    database = services.database(slug)
    result = []
    for run in runs.list_runs(database):
        checkpoints = runs.list_checkpoints(database, run.id)
        if not checkpoints:
            continue
        splits = splits_of(services, slug, run.id)
        result.append(
            {
                "id": run.id,
                "name": run.name,
                "state": run.state,
                "dataset": {name: split.key for name, split in splits.items()},
                "splits": {name: split.num_images for name, split in splits.items()},
                "checkpoints": [{**asdict(item), "name": checkpoint_name(item)} for item in checkpoints],
                "sets": [_describe_set(item, run) for item in predictions.list_sets(database, run_id=run.id)],
            }
        )
    return result


def _describe_set(record: PredictionSet, run: Run) -> dict[str, Any]:
    """A set with ``views`` in words and ``is_main``: predicted as the run's checkpoints are judged.

    ``title``: of an ensemble, see :func:`ensemble_title`.
    """
    is_main = record.test_time_augmentation == judgement_of(run).test_time_augmentation
    title = ensemble_title(record) if record.kind == "ensemble" else None
    views = VIEW_TITLES[record.test_time_augmentation]
    return {**asdict(record), "views": views, "is_main": is_main, "title": title}


def judgement_of(run: Run) -> JudgementOptions:
    """How a run's checkpoints are judged; runs of earlier versions have the defaults of what they do not name."""
    fields = JudgementOptions.model_fields
    return JudgementOptions(**{name: value for name, value in run.config.items() if name in fields})


def list_sets(
    services: Services, slug: str, run_id: int | None = None, split: str | None = None
) -> list[PredictionSet]:
    """Stored sets, newest first."""
    return predictions.list_sets(services.database(slug), run_id=run_id, split=split)


def ensure_predictions(
    services: Services, slug: str, checkpoint_id: int, split: str, augmentation: TestTimeAugmentation | None = None
) -> PredictionSet | Job:
    """The checkpoint's predictions on a split, or the job that is making them (queued now if there was none).

    ``augmentation`` at test time is the one that the run was given, unless another is asked for. Raises NotFound, and
    BadRequest for a split without images.
    """
    database = services.database(slug)
    checkpoint = runs.get_checkpoint(database, checkpoint_id)
    check_split(services, slug, checkpoint.run_id, split)
    wanted = augmentation or judgement_of(runs.get_run(database, checkpoint.run_id)).test_time_augmentation
    found = predictions.find_set(database, checkpoint_id, split, wanted)
    if found is not None:
        return found
    payload = {"checkpoint_id": checkpoint_id, "split": split, "test_time_augmentation": wanted}
    for job in job_store.list_jobs(database, job_store.ACTIVE_STATES):
        if job.kind == "predict" and job.payload == payload and job.state != "stopping":
            return job
    return jobs.enqueue(services, slug, "predict", payload)


def wait_for_predictions(
    services: Services,
    slug: str,
    checkpoint_id: int,
    split: str,
    on_change: Callable[[Job], None] | None = None,
    augmentation: TestTimeAugmentation | None = None,
) -> PredictionSet:
    """As :func:`ensure_predictions`, but blocks until they are there; raises UserError when predicting failed."""
    found = ensure_predictions(services, slug, checkpoint_id, split, augmentation)
    if isinstance(found, Job):
        jobs.wait_until_done(services, slug, found.id, "Predicting", on_change)
        found = ensure_predictions(services, slug, checkpoint_id, split, augmentation)
    if isinstance(found, Job):
        raise UserError("Predicting ended without storing its predictions.", "Try again.")
    return found


def check_split(services: Services, slug: str, run_id: int, split: str) -> None:
    """Raise BadRequest unless the run's frozen dataset has images in ``split``."""
    if split not in SPLITS:
        raise BadRequest(f"A split is one of {', '.join(SPLITS)}; got {split!r}.")
    if not splits_of(services, slug, run_id)[split].num_images:
        raise BadRequest(
            f"The dataset of run {run_id} has no images in the {split} split.",
            "Choose another split, or import one and train again.",
        )


def judge(services: Services, slug: str, set_id: int, truth_of: int | None = None) -> Judged:
    """A set with its figures, which are remembered as long as neither it nor its truth changes. Raises NotFound.

    ``truth_of``: the run whose labels it is judged on, in place of its own; one with the same images and classes.
    """
    database = services.database(slug)
    record = predictions.get_set(database, set_id)
    snapshot = load_truth(services, slug, truth_of or record.run_id)

    def compute() -> Evaluation:
        truth = GroundTruth.from_samples(snapshot.split(record.split), snapshot.categories)
        return evaluate_columns(truth, predictions.read_columns(database, set_id, truth))

    return Judged(record, snapshot, _evaluations.get(set_key(database, record, snapshot), compute))


def set_key(database: ProjectDatabase, record: PredictionSet, snapshot: Snapshot) -> tuple[Hashable, ...]:
    """What is remembered of a set holds as long as this is the same: its predictions and its truth."""
    return (database.path, record.id, record.created_at, snapshot.sha256)


def evaluation(services: Services, slug: str, set_id: int) -> dict[str, Any]:
    """The figures of a set as JSON, with ``set``: which predictions these are."""
    judged = judge(services, slug, set_id)
    return {"set": asdict(judged.record), **judged.evaluation.to_json()}


def images(
    services: Services,
    slug: str,
    set_id: int,
    *,
    sort: str = "errors",
    after: int = 0,
    limit: int = 50,
    score_threshold: float | None = None,
    iou_threshold: float = 0.5,
) -> dict[str, Any]:
    """A page of images with labelled boxes, all predictions and TP, FP, FN at the thresholds.

    sort: errors (FP + FN, most first), name or id. ``score_threshold`` is that of the best F1 by default. ``next`` is
    the ``after`` of the following page, or None. Arrays are flat: boxes [4 N] xyxy pixels, float32 as stored.
    The order is found once and remembered; a page then reads the predictions of its own images only.
    """
    if sort not in SORTS:
        raise BadRequest(f"Images can be sorted by {', '.join(SORTS)}; got {sort!r}.")
    database = services.database(slug)
    record = predictions.get_set(database, set_id)
    snapshot = load_truth(services, slug, record.run_id)
    samples = snapshot.split(record.split)
    threshold = judge(services, slug, set_id).evaluation.f1_threshold if score_threshold is None else score_threshold

    def read(chosen: Sequence[int]) -> _CountedImages:
        return _read_and_count(
            database, set_id, snapshot.categories, [samples[index] for index in chosen], threshold, iou_threshold
        )

    thresholds = (threshold, iou_threshold) if sort == "errors" else ()
    key = (set_key(database, record, snapshot), sort, thresholds)
    order = _orders.get(key, lambda: _order(samples, sort, read))
    end = after + max(1, min(limit, MAX_PAGE))
    page = read(order[after:end].tolist())
    counts = zip(page.counts.tp.tolist(), page.counts.fp.tolist(), page.counts.fn.tolist(), strict=True)
    return {
        "images": [
            {
                **image_entry(sample),
                "predictions": detections_entry(page.detections.get(sample.image_id)),
                "tp": tp,
                "fp": fp,
                "fn": fn,
            }
            for sample, (tp, fp, fn) in zip(page.samples, counts, strict=True)
        ],
        "score_threshold": threshold,
        "total": len(samples),
        "next": end if end < len(samples) else None,
    }


@dataclass(frozen=True)
class _CountedImages:
    """Some images with their detections by id, and their counts in the order of ``samples``."""

    samples: Sequence[Sample]
    detections: dict[int, Detections]
    counts: ErrorCounts


def _read_and_count(
    database: ProjectDatabase,
    set_id: int,
    categories: CategoryMap,
    samples: Sequence[Sample],
    score_threshold: float,
    iou_threshold: float,
) -> _CountedImages:
    if not samples:
        nothing = np.zeros(0, np.int64)
        return _CountedImages(samples, {}, ErrorCounts(nothing, nothing, nothing))
    truth = GroundTruth.from_samples(samples, categories)
    detections = predictions.read_detections(database, set_id, truth.image_ids.tolist())
    columns = DetectionColumns.from_detections(truth, detections)
    counts = count_errors(truth, columns, match_columns(truth, columns, iou_threshold), score_threshold)
    return _CountedImages(samples, detections, counts)


def _order(samples: Sequence[Sample], sort: str, read: Callable[[Sequence[int]], _CountedImages]) -> np.ndarray:
    """Positions in ``samples``, int64 [I]; read in pieces, so that memory does not grow with the number of images."""
    positions = range(len(samples))
    if sort == "name":
        return np.array(sorted(positions, key=lambda index: samples[index].file_name), np.int64)
    if sort == "id":
        return np.argsort([samples[index].image_id for index in positions], kind="stable")
    pieces = [positions[start : start + MAX_PAGE] for start in range(0, len(samples), MAX_PAGE)]
    return np.argsort(-np.concatenate([read(piece).counts.errors for piece in pieces]), kind="stable")


def evaluate_set(services: Services, slug: str, record: PredictionSet, on_part: OnPart = tell_nobody) -> dict[str, Any]:
    """As :func:`evaluation`, with ``test_time_augmentation``, and telling how long it takes."""
    views = "" if record.test_time_augmentation == "off" else f" {VIEW_TITLES[record.test_time_augmentation]}"
    on_part(f"Judging{views}", guess_s(services, slug, record.id, FIGURES_S))
    return {"test_time_augmentation": record.test_time_augmentation, **evaluation(services, slug, record.id)}


def compare_views(
    services: Services,
    slug: str,
    checkpoint_id: int,
    split: str = "valid",
    on_change: Callable[[Job], None] | None = None,
    on_part: OnPart = tell_nobody,
) -> dict[str, Any]:
    """A checkpoint judged with each test-time augmentation, in one table; :mod:`view_gain` reads it.

    ``rows``: test_time_augmentation, name, set, map, map50, map75, f1, f1_threshold and score (by the run's selection
    metric). Predicts first if need be; blocks. Raises NotFound, BadRequest, and UserError when predicting failed.
    """
    run_id = runs.get_checkpoint(services.database(slug), checkpoint_id).run_id
    metric = judgement_of(runs.get_run(services.database(slug), run_id)).selection_metric
    judged = []
    for augmentation in VIEW_TITLES:
        found = wait_for_predictions(services, slug, checkpoint_id, split, on_change, augmentation)
        judged.append(evaluate_set(services, slug, found, on_part))
    rows = [
        {
            "test_time_augmentation": one["test_time_augmentation"],
            "name": VIEW_TITLES[one["test_time_augmentation"]],
            "set": one["set"]["id"],
            **{name: one[name] for name in ("map", "map50", "map75", "f1", "f1_threshold")},
            "score": selection_score(metric, one),
        }
        for one in judged
    ]
    return {
        "metric": metric,
        "rows": rows,
    }


def best_checkpoint(services: Services, slug: str, run_id: int) -> Checkpoint:
    """The checkpoint of a run with the best score, or the last one when none was judged; raises NotFound."""
    database = services.database(slug)
    run = runs.get_run(database, run_id)
    checkpoints = runs.list_checkpoints(database, run_id)
    if not checkpoints:
        raise NotFound(
            f"Run {run_id} ({run.name}) has no weights yet (it is {state_word(run.state)}).",
            "Train it for an epoch first.",
        )
    return checkpoints[0]


def checkpoint_name(checkpoint: Checkpoint) -> str:
    """How a checkpoint is called on the screen."""
    if checkpoint.soup:
        return f"Soup ({checkpoint.soup})"
    return f"Epoch {checkpoint.epoch}" + (" (last)" if checkpoint.is_last else "")


def ensemble_title(record: PredictionSet) -> str:
    """How an ensemble is called where others are beside it: "WBF of 3, IoU 0.55", "Soft-NMS of 3"."""
    name, iou = ensemble_name(record), options_in_effect(record.options).get("iou_threshold")
    return name if iou is None else f"{name}, IoU {iou:g}"


def ensemble_name(record: PredictionSet) -> str:
    """ "WBF of 3, tuned": the method as it is called today, whatever the version called it that stored the name."""
    _, of, rest = record.name.partition(" of ")
    if not of:
        return record.name or f"Set {record.id}"
    return f"{SHORT_NAMES[record.options.get('method', METHODS[0])]}{of}{rest}"


def set_name(record: PredictionSet, checkpoint: Checkpoint) -> str:
    """How a checkpoint's predictions are called on the screen."""
    is_plain = record.test_time_augmentation == "off"
    return checkpoint_name(checkpoint) + ("" if is_plain else f", {VIEW_TITLES[record.test_time_augmentation]}")


def coco_results(services: Services, slug: str, set_id: int) -> Iterator[dict[str, Any]]:
    """All predictions of a set in COCO's results format, under the ids that the exported labels of its split have.

    Images that have left the split since the run began are left out; :func:`images_left_out` counts them. Some hundred
    images are read at a time. Raises NotFound when the first is asked for.
    """
    database = services.database(slug)
    record = predictions.get_set(database, set_id)
    image_ids = label_export.coco_image_ids(services, slug, record.split)
    categories = load_truth(services, slug, record.run_id).categories
    for image_id, found in predictions.iterate_detections(database, set_id):
        if image_id not in image_ids:
            continue
        boxes = found.boxes.astype(np.float64)
        xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        for box, score, label in zip(xywh.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
            category_id = categories.id_of(label)
            yield {"image_id": image_ids[image_id], "category_id": category_id, "bbox": box, "score": score}


def images_left_out(services: Services, slug: str, set_id: int) -> int:
    """How many judged images have left the split since the run began: results cannot name them any more."""
    database = services.database(slug)
    image_ids = label_export.coco_image_ids(services, slug, predictions.get_set(database, set_id).split)
    return len(set(predictions.list_image_ids(database, set_id)) - image_ids.keys())


def write_results(services: Services, slug: str, set_id: int, file: BinaryIO) -> int:
    """Write :func:`coco_results` as JSON, a detection a line; returns how many."""
    count = 0
    for result in coco_results(services, slug, set_id):
        file.write(b",\n" if count else b"[\n")
        file.write(orjson.dumps(result))
        count += 1
    file.write(b"\n]\n" if count else b"[]\n")
    return count


def export_results(services: Services, slug: str, set_id: int, path: Path) -> int:
    """:func:`write_results` to ``path``, whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        return write_results(services, slug, set_id, file)
