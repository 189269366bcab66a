"""What is judged and compared: a run by its best checkpoint, one checkpoint, or stored predictions (an ensemble's)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from app.errors import BadRequest, Conflict
from app.pipeline.config import TestTimeAugmentation
from app.records import SPLITS, Checkpoint, Job, PredictionSet, Run
from app.services import review
from app.services.context import Services
from app.store import jobs as job_store
from app.store import predictions, runs

KINDS = ("run", "checkpoint", "set")


@dataclass(frozen=True)
class Side:
    """One of what is compared, by its number; as text "run-3", "checkpoint-19" or "set-7"."""

    kind: str
    id: int

    def __str__(self) -> str:
        return f"{self.kind}-{self.id}"


@dataclass(frozen=True)
class Chosen:
    """A side as the project has it now, on one split.

    run: whose checkpoint it is, or that of an ensemble's first member. detail: which weights or fusing, in words.
    checkpoint: None for an ensemble. record: its predictions on the split, None while there are none.
    """

    side: Side
    run: Run
    name: str
    detail: str
    checkpoint: Checkpoint | None
    record: PredictionSet | None


def parse_side(text: str) -> Side:
    """The side that a text names; raises BadRequest."""
    kind, _, number = text.partition("-")
    if kind not in KINDS or not (number.isascii() and number.isdigit()) or not 0 < int(number[:20]) < 2**63:
        raise BadRequest(
            f"{text[:40]!r} names nothing to compare.", "Write run-ID, checkpoint-ID or set-ID, such as run-3."
        )
    return Side(kind, int(number))


def side_of(services: Services, slug: str, record: PredictionSet) -> Side:
    """How stored predictions are named: those of a checkpoint in its run's own views by the checkpoint."""
    if record.checkpoint_id is not None:
        own = review.judgement_of(runs.get_run(services.database(slug), record.run_id)).test_time_augmentation
        if record.test_time_augmentation == own:
            return Side("checkpoint", record.checkpoint_id)
    return Side("set", record.id)


def choose_split(services: Services, slug: str, sides: Sequence[Side], wanted: str = "") -> str:
    """The split to judge on: the one that is wanted, else that of the stored sets among the sides, else valid.

    Raises NotFound, and BadRequest when a stored set is of another split.
    """
    if wanted and wanted not in SPLITS:
        raise BadRequest(f"A split is one of {', '.join(SPLITS)}; got {wanted!r}.")
    database = services.database(slug)
    stored = [predictions.get_set(database, side.id) for side in sides if side.kind == "set"]
    split = wanted or (stored[0].split if stored else "valid")
    for record in stored:
        if record.split != split:
            raise BadRequest(
                f"The predictions of set {record.id} are of {record.split} images, not of {split}.",
                f"Choose {record.split}, or another set.",
            )
    return split


def choose(services: Services, slug: str, side: Side, split: str) -> Chosen:
    """A side with its predictions on a split, if there are any. Raises NotFound, BadRequest for an empty split."""
    database = services.database(slug)
    if side.kind == "set":
        return _stored(services, slug, side)
    if side.kind == "checkpoint":
        checkpoint = runs.get_checkpoint(database, side.id)
    else:
        checkpoint = review.best_checkpoint(services, slug, side.id)
    run = runs.get_run(database, checkpoint.run_id)
    review.check_split(services, slug, run.id, split)
    views = review.judgement_of(run).test_time_augmentation
    record = predictions.find_set(database, checkpoint.id, split, views)
    detail = review.checkpoint_name(checkpoint)
    if views != "off":
        detail += f", {review.VIEW_TITLES[views]}"
    name = run.name if side.kind == "run" else f"{run.name}, {detail}"
    return Chosen(side, run, name, detail, checkpoint, record)


def predict(
    services: Services,
    slug: str,
    side: Side,
    split: str,
    on_change: Callable[[Job], None] | None = None,
    augmentation: TestTimeAugmentation | None = None,
) -> Chosen:
    """A side with its predictions on a split, which are made first where there are none; blocks.

    ``augmentation``: the one at test time, in place of the run's own. Raises NotFound, BadRequest for an empty split,
    UserError when predicting failed.
    """
    chosen = choose(services, slug, side, split)
    if side.kind == "set":
        return chosen
    record = review.wait_for_predictions(services, slug, chosen.checkpoint.id, split, on_change, augmentation)
    return replace(chosen, record=record)


def _stored(services: Services, slug: str, side: Side) -> Chosen:
    database = services.database(slug)
    record = predictions.get_set(database, side.id)
    run = runs.get_run(database, record.run_id)
    if record.checkpoint_id is not None:
        checkpoint = runs.get_checkpoint(database, record.checkpoint_id)
        detail = review.set_name(record, checkpoint)
        return Chosen(side, run, f"{run.name}, {detail}", detail, checkpoint, record)
    detail = review.ensemble_title(record)
    return Chosen(side, run, f"{run.name}, {detail}", detail, None, record)


def require_two(first: Chosen, second: Chosen, split: str) -> tuple[PredictionSet, PredictionSet]:
    """The predictions of two sides. Raises BadRequest when they are the same, Conflict while one has none."""
    for chosen in (first, second):
        if chosen.record is None:
            raise Conflict(f"{chosen.name} has no predictions on {split} yet.", "Predict these images first.")
    require_different(first, second)
    return first.record, second.record


def require_different(first: Chosen, second: Chosen) -> None:
    """Raise BadRequest when both sides are the same weights in the same views, or the same stored set."""
    is_same = first.side == second.side or (first.record is not None and first.record == second.record)
    if is_same or (None is first.record is second.record and first.checkpoint == second.checkpoint):
        raise BadRequest(f"{first.name} cannot be compared with itself.", "Choose two different sides.")


def find_job(services: Services, slug: str, chosen: Chosen, split: str) -> Job | None:
    """The job that is predicting what a side lacks, if one is."""
    for job in job_store.list_jobs(services.database(slug), job_store.ACTIVE_STATES):
        given = (job.payload.get("checkpoint_id"), job.payload.get("split"))
        if job.kind == "predict" and chosen.checkpoint and given == (chosen.checkpoint.id, split):
            return job
    return None
