"""The figures of two stored sets on the images both have, with the noise of their differences.

They are made once, on a thread that tells how far it is and can be stopped, and kept in a file of the second set's
run. The file is named after what it was made from, so that it never tells of other predictions.
"""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import orjson

from app.errors import Cancelled
from app.jobs.compile_kernels import COMPARING
from app.pipeline.data.snapshot import Samples
from app.pipeline.evaluate.coco_numbers import evaluate_columns
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.difference import NUM_RESAMPLES
from app.pipeline.evaluate.error_budget import spend_errors
from app.records import PredictionSet
from app.services import truths
from app.services.compiling import ONLY_ONCE, wait_until_compiled
from app.services.context import Services
from app.store import predictions
from app.store.files import replacing

FIGURES = ("map", "map50", "map75", "f1", "f1_threshold", "precision_at", "recall_at")
CLASS_FIGURES = ("ap", "ap50", "f1", "threshold")
_FORMAT = 5  # of the file; another number makes all of them anew

Report = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Pair:
    """The images that both sets have, with the labels of the newer run's dataset, and both sets of detections on them.

    num_left_out: images that only one of them has there. note: see :func:`truths.note_common`.
    """

    samples: Samples
    truth: GroundTruth
    first: DetectionColumns
    second: DetectionColumns
    num_left_out: int
    note: dict[str, Any]


def load_pair(services: Services, slug: str, first: PredictionSet, second: PredictionSet) -> Pair:
    """What both sets are judged on; the last one is remembered. Raises NotFound, BadRequest as :func:`judge_pair`."""
    return _load_pair(services, slug, *((record.id, record.created_at) for record in (first, second)))


def judge_pair(
    services: Services,
    slug: str,
    first: PredictionSet,
    second: PredictionSet,
    report: Report = lambda done, total, message: None,
) -> dict[str, Any]:
    """The figures of two sets, from their file if they were made before; ``report`` may raise to end the work.

    images, left_out; truth: what :func:`truths.note_common` tells; first and second: each with :data:`FIGURES`,
    per_class (label, name, num_truth and :data:`CLASS_FIGURES`) and error_budget; differences: figure -> what
    Difference.to_json gives; class_differences: the same of AP50 by class, in the order of per_class.
    Raises BadRequest when the sets have different classes or share no image.
    """
    kept = find_pair(services, slug, first, second)
    if kept is not None:
        return kept
    wait_until_compiled(services, (COMPARING,), lambda: report(0, 0, f"Preparing the comparison, {ONLY_ONCE}"))
    made = _judge(load_pair(services, slug, first, second), report)
    with replacing(_path_of(services, slug, first, second)) as temporary:
        temporary.write_bytes(orjson.dumps(made))
    return made


def measure_noise(
    services: Services,
    slug: str,
    first: PredictionSet,
    second: PredictionSet,
    metric: str,
    report: Report = lambda done, total, message: None,
) -> dict[str, Any]:
    """The second's score by a selection metric less the first's: Difference.to_json with ``figure``, the metric."""
    return {"figure": metric, **judge_pair(services, slug, first, second, report)["differences"][metric]}


def find_noise(
    services: Services, slug: str, first: PredictionSet, second: PredictionSet, metric: str
) -> dict[str, Any] | None:
    """What :func:`measure_noise` gave before, None where it was not asked."""
    kept = find_pair(services, slug, first, second)
    return kept and {"figure": metric, **kept["differences"][metric]}


def find_pair(services: Services, slug: str, first: PredictionSet, second: PredictionSet) -> dict[str, Any] | None:
    """What :func:`judge_pair` gave for the two before; None where it was not asked, or its file is damaged."""
    try:
        return orjson.loads(_path_of(services, slug, first, second).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None


def _judge(pair: Pair, report: Report) -> dict[str, Any]:
    from app.pipeline.evaluate.bootstrap import compare_sets  # numba takes a quarter of a second to load

    report(0, NUM_RESAMPLES, "Judging both")
    sides = [_describe(pair.truth, columns) for columns in (pair.first, pair.second)]
    compared = compare_sets(
        pair.truth,
        pair.first,
        pair.second,
        on_progress=lambda done, total: report(done, total, "Measuring the noise"),
    )
    return {
        "images": pair.truth.num_images,
        "left_out": pair.num_left_out,
        "truth": pair.note,
        "first": sides[0],
        "second": sides[1],
        "differences": {name: item.to_json() for name, item in compared.figures.items()},
        "class_differences": [item.to_json() for item in compared.ap50],
    }


def _describe(truth: GroundTruth, columns: DetectionColumns) -> dict[str, Any]:
    found = evaluate_columns(truth, columns)
    kept = ("label", "name", "num_truth", *CLASS_FIGURES)
    return {
        **{name: getattr(found, name) for name in FIGURES},
        "per_class": [{name: row[name] for name in kept} for row in found.per_class],
        "error_budget": spend_errors(truth, columns).to_json(),
    }


# ---- work on a thread ------------------------------------------------------------------------------------------------


class _Work(threading.Thread):
    """Judging a pair; one at a time computes, the others wait."""

    turn = threading.Lock()

    def __init__(self, do: Callable[[Report], dict[str, Any]]) -> None:
        super().__init__(name="judge a pair", daemon=True)
        self.do = do
        self.is_stopped = threading.Event()
        self.progress: dict[str, Any] = {"done": 0, "total": 0, "message": "Waiting for its turn", "eta_s": None}
        self.error: Exception | None = None
        self._began = 0.0

    def run(self) -> None:
        try:
            with self.turn:
                self.do(self._report)
        except Exception as error:  # told to whoever asks
            self.error = error

    def _report(self, done: int, total: int, message: str) -> None:
        if self.is_stopped.is_set():
            raise Cancelled("Comparing was stopped.")
        now = time.monotonic()
        if not done:
            self._began = now
        eta_s = (now - self._began) * (total - done) / done if done else None
        self.progress = {"done": done, "total": total, "message": message, "eta_s": eta_s}


_works: dict[Path, _Work] = {}
_works_guard = threading.Lock()


def ask_for_pair(
    services: Services, slug: str, first: PredictionSet, second: PredictionSet, wait_s: float = 0.0
) -> dict[str, Any]:
    """``{"state": "ready", "figures": …}``, or how far the work is; it is begun here if nobody did.

    While it lasts: ``{"state": "working", "progress": {done, total, message, eta_s}}``. Waits for its end for
    ``wait_s`` at most. Raises what kept the work from its end, once.
    """
    path = _path_of(services, slug, first, second)
    kept = find_pair(services, slug, first, second)
    if kept is not None:
        return {"state": "ready", "figures": kept}
    with _works_guard:
        work = _works.get(path)
        if work is None:
            work = _works[path] = _Work(partial(judge_pair, services, slug, first, second))
            work.start()
    work.join(wait_s)
    if work.is_alive():
        return {"state": "working", "progress": work.progress}
    with _works_guard:
        if _works.get(path) is work:
            del _works[path]
    if work.error is not None:
        raise work.error
    return {"state": "ready", "figures": judge_pair(services, slug, first, second)}


def stop_pair(services: Services, slug: str, first: PredictionSet, second: PredictionSet) -> None:
    """End the work on a pair, if there is any; the next one who asks begins anew."""
    with _works_guard:
        work = _works.pop(_path_of(services, slug, first, second), None)
    if work is not None:
        work.is_stopped.set()


# ---- files and images ------------------------------------------------------------------------------------------------


def _path_of(services: Services, slug: str, first: PredictionSet, second: PredictionSet) -> Path:
    made_from = [_FORMAT, *((record.id, record.created_at, record.snapshot_sha256) for record in (first, second))]
    digest = hashlib.sha256(orjson.dumps(made_from)).hexdigest()
    return services.files(slug).run(second.run_id) / "compared" / f"{digest[:24]}.json"


@lru_cache(maxsize=1)
def _load_pair(services: Services, slug: str, first: tuple[int, float], second: tuple[int, float]) -> Pair:
    database = services.database(slug)
    records = [predictions.get_set(database, set_id) for set_id, _ in (first, second)]
    common = truths.find_common(services, slug, truths.runs_behind(database, *records), records[0].split)
    truth = GroundTruth.from_samples(common.samples, common.snapshot.categories)
    columns = [predictions.read_columns(database, record.id, truth, are_others_left_out=True) for record in records]
    return Pair(common.samples, truth, *columns, common.num_left_out, common.note)
