"""Every kept checkpoint of a run judged in one table, and two soups of them as further rows.

The predicting and mixing is one job; the table is made from what is stored, whole or not.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from app.errors import NotFound
from app.pipeline.config import TestTimeAugmentation
from app.pipeline.evaluate.difference import NUM_RESAMPLES, turn_around
from app.pipeline.evaluate.selection import DEFAULT_METRIC, TITLES, explain_gain, selection_score
from app.records import Checkpoint, Job, PredictionSet
from app.services import jobs, pair_figures, review, truths
from app.services.context import Services
from app.services.pair_figures import Report
from app.store import jobs as job_store
from app.store import predictions, runs
from app.store.database import ProjectDatabase
from app.store.files import replacing

KIND = "sweep"
RECIPES = ("uniform", "greedy")
GREEDY_SPLIT = "valid"  # where a greedy soup is chosen, whatever it is judged on
FIGURES = ("map", "map50", "map75", "f1")


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a sweep: predicting with a checkpoint, or mixing a soup by ``recipe`` from its ``members``."""

    title: str
    file_name: str
    num_images: int  # that it takes at most: what its share of the time is told by
    views: TestTimeAugmentation = "off"
    recipe: str = ""
    members: tuple[str, ...] = ()


def request_sweep(services: Services, slug: str, run_id: int, split: str = "valid") -> Job:
    """Queue what a sweep still lacks; the job that is at it already, if one is. Raises NotFound, BadRequest."""
    review.best_checkpoint(services, slug, run_id)  # says so when there are no weights yet
    review.check_split(services, slug, run_id, split)
    payload = {"run_id": run_id, "split": split}
    return active_sweep(services, slug, run_id, split) or jobs.enqueue(services, slug, KIND, payload)


def active_sweep(services: Services, slug: str, run_id: int, split: str | None = None) -> Job | None:
    """The sweep of a run that waits or runs, on a split or any."""
    for job in job_store.list_jobs(services.database(slug), job_store.ACTIVE_STATES, kind=KIND):
        if job.payload["run_id"] == run_id and split in (None, job.payload["split"]) and job.state != "stopping":
            return job
    return None


def sweep_run(
    services: Services,
    slug: str,
    run_id: int,
    split: str = "valid",
    on_change: Callable[[Job], None] | None = None,
    report: Report = lambda done, total, message: None,
) -> dict[str, Any]:
    """Judge what a run kept on a split, see :func:`sweep_table`; predicts and mixes what is missing, measures the
    noise, and blocks.

    Raises NotFound, BadRequest, and UserError when the job failed.
    """
    review.best_checkpoint(services, slug, run_id)
    review.check_split(services, slug, run_id, split)
    if missing_steps(services, slug, run_id, split):
        job = request_sweep(services, slug, run_id, split)
        jobs.wait_until_done(services, slug, job.id, "The sweep", on_change)
    table = sweep_table(services, slug, run_id, split, report)
    for two in _to_measure(services, slug, table):
        pair_figures.judge_pair(services, slug, *two, report)
    return sweep_table(services, slug, run_id, split)


def sweep_table(
    services: Services,
    slug: str,
    run_id: int,
    split: str = "valid",
    report: Report = lambda done, total, message: None,
) -> dict[str, Any]:
    """What is judged of the kept checkpoints and their soups, the best first; predicts nothing.

    rows: checkpoint_id, name, file_name, epoch, set, map, map50, map75, f1, f1_threshold, score (by the run's selection
    metric), per_class (name, ap, ap50), soup ("" for a trained checkpoint), members (of a soup) and is_chosen_here (a
    greedy soup on the split that it was chosen on, where its figures flatter it), noise (its score less that of the
    first row, as Difference.to_json gives it with figure; None of the first row, and until :func:`find_noise` or
    :func:`sweep_run` measured it). missing: titles of the steps that a sweep would do. is_measured: whether no noise
    is left to measure. verdict: the best row, and whether it is a gain over the best of the others' kind; "" while
    anything is missing. Soups need two checkpoints of different epochs, a greedy one a validation split. ``report``
    hears how many rows are judged. Raises NotFound, BadRequest.
    """
    metric = runs.get_run(services.database(slug), run_id).config.get("selection_metric", DEFAULT_METRIC)
    review.best_checkpoint(services, slug, run_id)
    review.check_split(services, slug, run_id, split)
    views = views_of(services, slug, run_id)
    rows, kept = [], _to_judge(services, slug, run_id)
    for number, checkpoint in enumerate(kept):
        report(number, len(kept), "Judging the checkpoints")
        record = predictions.find_set(services.database(slug), checkpoint.id, split, views)
        if record is not None:
            rows.append(_judge(services, slug, checkpoint, record.id, split, metric))
    rows.sort(key=lambda row: -row["score"])
    sets = [predictions.get_set(services.database(slug), row["set"]) for row in rows]
    for row, record in zip(rows, sets, strict=True):
        row["noise"] = None if row is rows[0] else pair_figures.find_noise(services, slug, sets[0], record, metric)
    missing = [step.title for step in missing_steps(services, slug, run_id, split)]
    return {
        "run": run_id,
        "split": split,
        "metric": metric,
        "rows": rows,
        "missing": missing,
        "is_measured": bool(missing) or all(row["noise"] for row in rows[1:]),
        "verdict": "" if missing else _verdict(rows, metric, split),
    }


def describe_sweep(services: Services, slug: str, run_id: int, split: str) -> dict[str, Any]:
    """The table with ``job``: the sweep of this run that waits or runs, None without."""
    job = active_sweep(services, slug, run_id)
    return {**sweep_table(services, slug, run_id, split), "job": asdict(job) if job else None}


def find_noise(services: Services, slug: str, run_id: int, split: str, wait_s: float = 0.0) -> dict[str, Any]:
    """``{"state": "ready", "table": …}`` with the noise of all rows, or how far the measuring is, begun if need be.

    The table is that of :func:`describe_sweep`. While it lasts: ``{"state": "working", "progress": …}`` as
    :func:`pair_figures.ask_for_pair` tells it, of all rows together. Waits for ``wait_s`` at most, a row. Raises
    NotFound, BadRequest.
    """
    table = sweep_table(services, slug, run_id, split)
    left = _to_measure(services, slug, table)
    for number, two in enumerate(left):
        answer = pair_figures.ask_for_pair(services, slug, *two, wait_s)
        if answer["state"] != "ready":
            total = NUM_RESAMPLES * (len(table["rows"]) - 1)
            return {"state": "working", "progress": _of_all(answer["progress"], total, len(left) - number)}
    return {"state": "ready", "table": describe_sweep(services, slug, run_id, split)}


def stop_noise(services: Services, slug: str, run_id: int, split: str) -> None:
    """End the measuring of a sweep's noise, if it goes on."""
    for two in _to_measure(services, slug, sweep_table(services, slug, run_id, split)):
        pair_figures.stop_pair(services, slug, *two)


def _to_measure(services: Services, slug: str, table: dict[str, Any]) -> list[tuple[PredictionSet, PredictionSet]]:
    """The first row's predictions and those of each row whose noise is not known; none while rows are missing."""
    if table["is_measured"]:
        return []
    database = services.database(slug)
    best, *others = table["rows"]
    first = predictions.get_set(database, best["set"])
    return [(first, predictions.get_set(database, row["set"])) for row in others if not row["noise"]]


def _of_all(progress: dict[str, Any], total: int, num_left: int) -> dict[str, Any]:
    """The progress of one of the ``num_left`` pairs as that of all, which are alike."""
    left = NUM_RESAMPLES * num_left - progress["done"]
    own = progress["total"] - progress["done"]
    eta_s = progress["eta_s"] * left / own if progress["eta_s"] is not None and own else None
    return {**progress, "done": total - left, "total": total, "eta_s": eta_s}


def missing_steps(services: Services, slug: str, run_id: int, split: str) -> list[Step]:
    """What has to be done before every kept checkpoint and soup can be judged on a split, in order."""
    database = services.database(slug)
    snapshot = truths.load_truth(services, slug, run_id)
    num_images, num_tried = len(snapshot.split(split)), len(snapshot.split(GREEDY_SPLIT))
    views = views_of(services, slug, run_id)
    kept = _trained(runs.list_checkpoints(database, run_id))
    steps = []
    for checkpoint in kept:
        if predictions.find_set(database, checkpoint.id, split, views) is None:
            name = review.checkpoint_name(checkpoint)
            steps.append(Step(f"Predicting with {name}", checkpoint.file_name, num_images, views))
    soups = {item.file_name: item for item in runs.list_checkpoints(database, run_id) if item.soup}
    for recipe in _possible_recipes(kept, bool(num_tried)):
        file_name = _soup_name(recipe, kept)
        if file_name not in soups:
            num_mixed = num_tried * _count_trials(database, kept, split, views) if recipe == "greedy" else 0
            members = tuple(item.file_name for item in kept)
            steps.append(Step(f"Mixing the {recipe} soup", file_name, num_mixed, views, recipe, members))
            is_predicted = recipe == "greedy" and split == GREEDY_SPLIT  # while it was chosen
        else:
            is_predicted = predictions.find_set(database, soups[file_name].id, split, views) is not None
        if not is_predicted:
            steps.append(Step(f"Predicting with the {recipe} soup", file_name, num_images, views))
    return steps


def _count_trials(database: ProjectDatabase, kept: Sequence[Checkpoint], split: str, views: str) -> int:
    """How many soups a greedy one predicts with at most; its first is a checkpoint, which may be predicted by then."""
    first = predictions.find_set(database, kept[0].id, GREEDY_SPLIT, views)
    return len(kept) - (split == GREEDY_SPLIT or first is not None)


def find_predictions(
    services: Services, slug: str, run_id: int, members: Sequence[str], split: str, views: TestTimeAugmentation
) -> PredictionSet | None:
    """Stored predictions of the average of these checkpoint files, whatever it is called: of a soup, or of the one.

    Only soups of the files as they are now count: a file may have been written anew since another was mixed.
    """
    for checkpoint in _to_judge(services, slug, run_id):
        if members_of(services, slug, checkpoint) == tuple(members):
            found = predictions.find_set(services.database(slug), checkpoint.id, split, views)
            if found is not None:
                return found
    return None


def members_of(services: Services, slug: str, checkpoint: Checkpoint) -> tuple[str, ...]:
    """The files whose weights are in a checkpoint: those of a soup, and itself of a trained one."""
    if not checkpoint.soup:
        return (checkpoint.file_name,)
    path = _members_path(services.files(slug).run(checkpoint.run_id) / checkpoint.file_name)
    return tuple(orjson.loads(path.read_bytes()))


def checkpoint_of(services: Services, slug: str, run_id: int, file_name: str) -> Checkpoint:
    """A checkpoint of a run by its file; raises NotFound."""
    for checkpoint in runs.list_checkpoints(services.database(slug), run_id):
        if checkpoint.file_name == file_name:
            return checkpoint
    raise NotFound(f"Run {run_id} does not keep {file_name} any more.", "Sweep again.")


def write_members(soup: Path, members: Sequence[str]) -> None:
    """Write the names of a soup's members beside it."""
    with replacing(_members_path(soup)) as path:
        path.write_bytes(orjson.dumps(list(members)))


def outdated_soups(services: Services, slug: str, run_id: int, step: Step) -> list[str]:
    """Files of the soups of a recipe that were mixed from other weights."""
    soups = [item for item in runs.list_checkpoints(services.database(slug), run_id) if item.soup == step.recipe]
    return [item.file_name for item in soups if item.file_name != step.file_name]


def _members_path(soup: Path) -> Path:
    return soup.with_suffix(".json")


def views_of(services: Services, slug: str, run_id: int) -> TestTimeAugmentation:
    """The views in which a run's checkpoints are judged."""
    return review.judgement_of(runs.get_run(services.database(slug), run_id)).test_time_augmentation


def _trained(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """The best first; the last one only when it is not one of the others under another name."""
    trained = [item for item in checkpoints if not item.soup]
    epochs = {item.epoch for item in trained if not item.is_last}
    return [item for item in trained if not item.is_last or item.epoch not in epochs]


def _possible_recipes(kept: Sequence[Checkpoint], has_validation: bool) -> tuple[str, ...]:
    if len(kept) < 2:
        return ()
    return RECIPES if has_validation else ("uniform",)


def _soup_name(recipe: str, kept: Sequence[Checkpoint]) -> str:
    """The file of the soup of just these weights."""
    digest = hashlib.sha256("".join(item.sha256 for item in kept).encode()).hexdigest()[:12]
    return f"soup-{recipe}-{digest}.pt"


def _to_judge(services: Services, slug: str, run_id: int) -> list[Checkpoint]:
    """The trained checkpoints, and those soups that are mixed from just them."""
    known = runs.list_checkpoints(services.database(slug), run_id)
    kept = _trained(known)
    names = {_soup_name(recipe, kept) for recipe in RECIPES}
    return kept + [item for item in known if item.file_name in names]


def _judge(
    services: Services, slug: str, checkpoint: Checkpoint, set_id: int, split: str, metric: str
) -> dict[str, Any]:
    figures = review.judge(services, slug, set_id).evaluation
    named = {name: getattr(figures, name) for name in FIGURES}
    return {
        "checkpoint_id": checkpoint.id,
        "name": review.checkpoint_name(checkpoint),
        "file_name": checkpoint.file_name,
        "epoch": checkpoint.epoch,
        "set": set_id,
        **named,
        "f1_threshold": figures.f1_threshold,
        "score": selection_score(metric, named),
        "per_class": [{name: row[name] for name in ("name", "ap", "ap50")} for row in figures.per_class],
        "soup": checkpoint.soup,
        "members": list(members_of(services, slug, checkpoint)) if checkpoint.soup else [],
        "is_chosen_here": checkpoint.soup == "greedy" and split == GREEDY_SPLIT,
    }


def _verdict(rows: list[dict[str, Any]], metric: str, split: str) -> str:
    """The best row, and what its lead means: of a soup over the trained checkpoints, or of those over the soups.

    Without soups over the second best.
    """
    best, *others = rows
    if not others:
        return f"{best['name']} is best on {split}: {best['score']:.3f} by {TITLES[metric]}."
    is_soup = _is_soup(best)
    other = next((row for row in others if _is_soup(row) != is_soup), others[0])
    noise = turn_around(other["noise"]) if other["noise"] else None
    names = _name_in_text(other), _name_in_text(best)
    text = f"{best['name']} has the best score on {split}. {explain_gain(metric, other, best, *names, noise)}"
    if best["is_chosen_here"]:
        text += " The soup was chosen on these images: judge it on test before relying on the gain."
    return text


def _is_soup(row: dict[str, Any]) -> bool:
    """Whether several checkpoints are in it: a soup of a single one is that one."""
    return len(row["members"]) > 1


def _name_in_text(row: dict[str, Any]) -> str:
    return f"the {row['soup']} soup" if row["soup"] else row["name"]
