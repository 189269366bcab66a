"""Every kept checkpoint of a run judged in one table, and two soups of them as further rows."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from app.errors import UserError
from app.pipeline.evaluate.selection import DEFAULT_METRIC, TITLES, selection_score
from app.records import Checkpoint, Job
from app.services import jobs, review
from app.services.context import Services
from app.services.stored_sets import wait_for_set
from app.store import runs

RECIPES = ("uniform", "greedy")
GREEDY_SPLIT = "valid"  # where a greedy soup is chosen, whatever it is judged on
FIGURES = ("map", "map50", "map75", "f1")


def sweep_run(
    services: Services,
    slug: str,
    run_id: int,
    split: str = "valid",
    on_change: Callable[[Job], None] | None = None,
) -> dict[str, Any]:
    """Judge what a run kept on a split, the best first; predicts and mixes by jobs what is missing, and blocks.

    rows: checkpoint_id, name, file_name, epoch, set, map, map50, map75, f1, f1_threshold, score (by the run's selection
    metric), per_class (name, ap, ap50), soup ("" for a trained checkpoint), members (of a soup) and is_chosen_here (a
    greedy soup on the split that it was chosen on, where its figures flatter it). verdict: the best row, and whether a
    soup beats the trained checkpoints. Soups need two checkpoints of different epochs, a greedy one a validation split.
    Raises NotFound, BadRequest, and UserError when a job failed.
    """
    database = services.database(slug)
    metric = runs.get_run(database, run_id).config.get("selection_metric", DEFAULT_METRIC)
    review.best_checkpoint(services, slug, run_id)  # says so when there are no weights yet
    review.check_split(services, slug, run_id, split)
    kept = _trained(runs.list_checkpoints(database, run_id))
    chosen = kept + [soup for recipe in _possible_recipes(services, slug, run_id, kept)
                     if (soup := _soup_of(services, slug, run_id, recipe, kept, on_change))]  # fmt: skip
    rows = [_judge(services, slug, checkpoint, split, metric, on_change) for checkpoint in chosen]
    rows.sort(key=lambda row: -row["score"])
    return {"run": run_id, "split": split, "metric": metric, "rows": rows, "verdict": _verdict(rows, metric, split)}


def members_path(soup: Path) -> Path:
    """Where the names of a soup's members are written, beside it."""
    return soup.with_suffix(".json")


def _trained(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """The best first; the last one only when it is not one of the others under another name."""
    trained = [item for item in checkpoints if not item.soup]
    epochs = {item.epoch for item in trained if not item.is_last}
    return [item for item in trained if not item.is_last or item.epoch not in epochs]


def _possible_recipes(services: Services, slug: str, run_id: int, kept: list[Checkpoint]) -> tuple[str, ...]:
    if len(kept) < 2:
        return ()
    has_validation = bool(review.load_truth(services, slug, run_id).split(GREEDY_SPLIT))
    return RECIPES if has_validation else ("uniform",)


def _soup_of(
    services: Services,
    slug: str,
    run_id: int,
    recipe: str,
    kept: list[Checkpoint],
    on_change: Callable[[Job], None] | None,
) -> Checkpoint:
    """The soup of just these weights; mixed by a job unless it is there. Soups of other weights are removed."""
    database, folder = services.database(slug), services.files(slug).run(run_id)
    digest = hashlib.sha256("".join(item.sha256 for item in kept).encode()).hexdigest()[:12]
    file_name = f"soup-{recipe}-{digest}.pt"
    before = [item for item in runs.list_checkpoints(database, run_id) if item.soup == recipe]
    for item in before:
        if item.file_name == file_name:
            return item
    payload = {
        "run_id": run_id,
        "recipe": recipe,
        "file_name": file_name,
        "members": [item.file_name for item in kept],
    }
    job = jobs.wait_for(services, slug, jobs.enqueue(services, slug, "soup", payload).id, on_change)
    if job.state != "done":
        raise UserError(f"The {recipe} soup ended as {job.state}: {job.error or 'stopped'}", "The job's log says more.")
    with database.write() as db:
        runs.remove_checkpoints(db, run_id, [item.file_name for item in before])
    for path in folder.glob(f"soup-{recipe}-*"):
        if path.stem != Path(file_name).stem:
            path.unlink()
    return runs.get_checkpoint(database, int(job.result["checkpoint_id"]))


def _judge(
    services: Services,
    slug: str,
    checkpoint: Checkpoint,
    split: str,
    metric: str,
    on_change: Callable[[Job], None] | None,
) -> dict[str, Any]:
    record = wait_for_set(services, slug, checkpoint, split, on_change)
    figures = review.judge(services, slug, record.id).evaluation
    named = {name: getattr(figures, name) for name in FIGURES}
    members: list[str] = []
    if checkpoint.soup:
        path = members_path(services.files(slug).run(checkpoint.run_id) / checkpoint.file_name)
        members = orjson.loads(path.read_bytes())
    return {
        "checkpoint_id": checkpoint.id,
        "name": review.checkpoint_name(checkpoint),
        "file_name": checkpoint.file_name,
        "epoch": checkpoint.epoch,
        "set": record.id,
        **named,
        "f1_threshold": figures.f1_threshold,
        "score": selection_score(metric, named),
        "per_class": [{name: row[name] for name in ("name", "ap", "ap50")} for row in figures.per_class],
        "soup": checkpoint.soup,
        "members": members,
        "is_chosen_here": checkpoint.soup == "greedy" and split == GREEDY_SPLIT,
    }


def _verdict(rows: list[dict[str, Any]], metric: str, split: str) -> str:
    best = rows[0]
    text = f"{best['name']} is best on {split}: {best['score']:.3f} by {TITLES[metric]}."
    if not best["soup"]:
        return text
    trained = next(row for row in rows if not row["soup"])
    text += f" The best trained checkpoint ({trained['name']}) has {trained['score']:.3f}."
    if best["is_chosen_here"]:
        text += " The soup was chosen on these images: judge it on test before relying on the gain."
    return text
