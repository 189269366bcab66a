"""Fusing the predictions of several checkpoints, and judging the ensemble beside its members.

An ensemble belongs to the newest run among its members; it and they are judged on that run's labels (see ``truths``).
"""

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from tempfile import TemporaryFile
from typing import IO, Any, get_args

from pydantic import ValidationError
from sqlite_utils import Database

from app.errors import BadRequest, Cancelled, UserError
from app.jobs.compile_kernels import FUSING
from app.pipeline.data.snapshot import Sample
from app.pipeline.ensemble import SHORT_NAMES, FusionOptions, fuse_columns
from app.pipeline.evaluate.difference import explain_outcome
from app.pipeline.evaluate.selection import TITLES, explain_moves, selection_score
from app.pipeline.expectation import explain_error
from app.pipeline.fusion.columns import MemberColumns
from app.pipeline.types import Detections, PredictionTime
from app.records import Checkpoint, Job, PredictionSet
from app.services import comparison_sides, jobs, pair_figures, review, set_costs, truths
from app.services.compiling import ONLY_ONCE, wait_until_compiled
from app.services.context import Services
from app.store import predictions, runs

FIGURES = ("map", "map50", "map75", "f1")
METHODS: tuple[str, ...] = get_args(FusionOptions.model_fields["method"].annotation)  # the first is the default
MIN_MEMBERS = 2
MAX_MEMBERS = 20
IMAGES_AT_ONCE = 200
STOPPED = "Fusing was stopped; nothing of the ensemble was stored."


def request_ensemble(
    services: Services,
    slug: str,
    *,
    run_id: int | None = None,
    checkpoint_ids: Sequence[int] | None = None,
    set_ids: Sequence[int] = (),
    top: int = 3,
    split: str = "valid",
    options: dict[str, Any] | None = None,
    score_threshold: float | None = None,
    note: str = "",
) -> Job:
    """Queue the fusing of stored sets, of chosen checkpoints, or of the best ``top`` of a run.

    options: see :class:`FusionOptions`. score_threshold is kept with the ensemble and is where Review opens it; without
    one that is where F1 is best. ``note`` ends its name.
    Raises NotFound, and BadRequest when there are fewer than two members, the split is empty, an option is unknown, or
    the members' runs have other classes or other images in the split.
    """
    fusion = parse_options(options or {})
    if set_ids:
        members = [predictions.get_set(services.database(slug), set_id) for set_id in set_ids]
    else:
        members = choose_members(services, slug, run_id, checkpoint_ids, top)
    if fusion.weights and len(fusion.weights) != len(members):
        raise BadRequest(f"There must be one weight per member: {len(members)}, got {len(fusion.weights)}.")
    run_ids = {member.run_id for member in members}
    owner = truths.newest(run_ids)
    review.check_split(services, slug, owner, split)
    truths.require_same_images(services, slug, run_ids, split)
    payload = {
        "run_id": owner,
        "set_ids" if set_ids else "checkpoint_ids": [member.id for member in members],
        "split": split,
        "options": fusion.model_dump(mode="json"),
        "score_threshold": score_threshold,
        "note": note,
    }
    return jobs.enqueue(services, slug, "ensemble", payload)


def parse_options(values: dict[str, Any]) -> FusionOptions:
    """Validate fusing options; raises BadRequest naming the one that is wrong."""
    try:
        return FusionOptions.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(FusionOptions.model_fields)
        raise BadRequest(f"{name}: {explain_error(FusionOptions, first)}.", f"Known options: {known}.") from error


def choose_members(
    services: Services, slug: str, run_id: int | None, checkpoint_ids: Sequence[int] | None, top: int
) -> list[Checkpoint]:
    """The chosen checkpoints, or the best ``top`` of the run."""
    database = services.database(slug)
    if checkpoint_ids:
        members = [runs.get_checkpoint(database, checkpoint_id) for checkpoint_id in dict.fromkeys(checkpoint_ids)]
    elif run_id is not None:
        if not MIN_MEMBERS <= top <= MAX_MEMBERS:
            raise BadRequest(f"An ensemble has {MIN_MEMBERS} to {MAX_MEMBERS} members, {top} were asked for.")
        runs.get_run(database, run_id)
        members = _best(runs.list_checkpoints(database, run_id), top)
    else:
        raise BadRequest("Name a run, or the checkpoints to fuse.")
    if not MIN_MEMBERS <= len(members) <= MAX_MEMBERS:
        raise BadRequest(
            f"An ensemble has {MIN_MEMBERS} to {MAX_MEMBERS} members; there are {len(members)}.",
            "Name others with it."
            if checkpoint_ids
            else "Train for more epochs, so that there are several checkpoints to choose from.",
        )
    return members


def _best(checkpoints: list[Checkpoint], top: int) -> list[Checkpoint]:
    """The best ``top``; the last one only fills up, and not when it is one of them under another name."""
    chosen = [item for item in checkpoints if not item.is_last][:top]
    epochs = {item.epoch for item in chosen}
    last = [item for item in checkpoints if item.is_last and item.epoch not in epochs]
    return (chosen + last)[:top]


def carry_out(
    services: Services,
    slug: str,
    payload: dict[str, Any],
    *,
    predict: Callable[[int, str, str], None],
    write: Callable[[], AbstractContextManager[Database]],
    on_progress: Callable[[int, int, str], None] = lambda done, total, message: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Do a queued fusing inside its job: predict what is missing, fuse, store, judge; returns :func:`comparison`.

    What was fused just so before is not fused again and keeps its number, so that links to it go on to work.

    predict(checkpoint_id, split, test_time_augmentation) makes and stores a member's predictions, as its run is judged;
    ``write`` opens the job's transaction. Fused pieces wait in a file: memory stays flat, and the database is locked
    only while they are written.
    Raises Cancelled when asked to stop; then nothing of the ensemble is stored.
    """
    options, threshold = parse_options(payload["options"]), payload.get("score_threshold")
    members = [member.id for member in _predicted_members(services, slug, payload, predict, on_progress)]
    kept_options = options.model_dump(mode="json") | ({} if threshold is None else {"score_threshold": threshold})
    given = {"run_id": payload["run_id"], "split": payload["split"], "members": members, "options": kept_options}
    known = predictions.find_ensemble(services.database(slug), **given)
    if known is not None and known.ms_per_image is not None:  # else of a version that did not measure the fusing
        return comparison(services, slug, known.id)

    def tell_preparing() -> None:
        if should_stop():
            raise Cancelled(STOPPED)
        on_progress(0, 0, f"Preparing the fusion, {ONLY_ONCE}")

    wait_until_compiled(services, (FUSING,), tell_preparing)
    snapshot = truths.load_truth(services, slug, payload["run_id"])
    samples = snapshot.split(payload["split"])
    with TemporaryFile(dir=services.files(slug).folder) as pieces:
        for start in range(0, len(samples), IMAGES_AT_ONCE):
            if should_stop():
                raise Cancelled(STOPPED)
            piece = samples[start : start + IMAGES_AT_ONCE]
            columns = _read_piece(services, slug, members, piece)
            fused = fuse_columns(columns, options).to_detections()
            pickle.dump([(sample.image_id, found) for sample, found in zip(piece, fused, strict=True)], pieces)
            on_progress(start + len(piece), len(samples), "Fusing")
        pieces.seek(0)
        with write() as db:
            set_id = predictions.store_predictions(
                db,
                **given,
                detections=_read_pieces(pieces),
                snapshot_sha256=snapshot.sha256,
                name=f"{SHORT_NAMES[options.method]} of {len(members)}{payload.get('note', '')}",
                took=_time_fusing(columns, options),
            )
    return comparison(services, slug, set_id)


def _read_piece(services: Services, slug: str, members: Sequence[int], samples: Sequence[Sample]) -> MemberColumns:
    image_ids = [sample.image_id for sample in samples]
    database = services.database(slug)
    found = [predictions.read_detections(database, set_id, image_ids) for set_id in members]
    return MemberColumns.from_detections(found, samples)


def _time_fusing(columns: MemberColumns, options: FusionOptions) -> PredictionTime:
    """Of a piece that was fused before: the first one also waits for compiled code to be loaded."""
    began = time.perf_counter()
    fuse_columns(columns, options)
    return PredictionTime(1000 * (time.perf_counter() - began) / len(columns.sizes), "cpu")


def _read_pieces(file: IO[bytes]) -> Iterator[tuple[int, Detections]]:
    while True:
        try:
            yield from pickle.load(file)
        except EOFError:
            return


def _predicted_members(
    services: Services,
    slug: str,
    payload: dict[str, Any],
    predict: Callable[[int, str, str], None],
    on_progress: Callable[[int, int, str], None],
) -> list[PredictionSet]:
    database, split = services.database(slug), payload["split"]
    if "set_ids" in payload:
        return [predictions.get_set(database, set_id) for set_id in payload["set_ids"]]
    checkpoint_ids = payload["checkpoint_ids"]
    members = []
    for position, checkpoint_id in enumerate(checkpoint_ids):
        run_id = runs.get_checkpoint(database, checkpoint_id).run_id
        views = review.judgement_of(runs.get_run(database, run_id)).test_time_augmentation
        if predictions.find_set(database, checkpoint_id, split, views) is None:
            on_progress(
                position, len(checkpoint_ids), f"Predicting with member {position + 1} of {len(checkpoint_ids)}"
            )
            predict(checkpoint_id, split, views)
        member = predictions.find_set(database, checkpoint_id, split, views)
        if member is None:
            raise UserError(f"Checkpoint {checkpoint_id} left no predictions.", "The log of the job says why.")
        members.append(member)
    return members


def comparison(services: Services, slug: str, set_id: int) -> dict[str, Any]:
    """An ensemble beside its members.

    ``rows``: set, side (as Compare names it), run, checkpoint_id, name, is_ensemble, map, map50, map75, f1, threshold,
    score (by the selection metric of the ensemble's run), cost_ms and devices (see ``set_costs``); members first, those
    whose weights were replaced since are missing. All are judged on the labels of ``run``; ``truth`` is what
    :func:`truths.note_common` tells of that, with ``words``. ``gain``: the ensemble's figure less the best member's.
    ``metric`` is that selection metric, ``best`` the place of the member with the best score. ``noise``: the ensemble's
    score less that of this member, as Difference.to_json gives it with ``figure``; None until :func:`find_noise` or
    :func:`measure_noise` measured it. ``outcome`` and ``is_gain`` (None until then) and ``verdict`` say what that
    means, and which other figures moved.
    """
    database = services.database(slug)
    record = _ensemble(services, slug, set_id)
    stored = {item.id for item in predictions.list_sets(database, split=record.split)}
    metric = review.judgement_of(runs.get_run(database, record.run_id)).selection_metric
    rows = [_row(services, slug, member, record.run_id, metric) for member in record.members if member in stored]
    if len({row["run"] for row in rows}) > 1:
        rows = [{**row, "name": f"{runs.get_run(database, row['run']).name}, {row['name']}"} for row in rows]
    ensemble = _row(services, slug, set_id, record.run_id, metric)
    truth = truths.note_common(services, slug, truths.runs_behind(database, record), record.split)
    names = (*FIGURES, "score")
    gain = {name: ensemble[name] - max(row[name] for row in rows) for name in names} if rows else {}
    best = max(range(len(rows)), key=lambda place: rows[place]["score"], default=None)
    noise = None
    if best is not None:
        member = predictions.get_set(database, rows[best]["set"])
        noise = pair_figures.find_noise(services, slug, member, record, metric)
    return {
        "set": set_id,
        "run": record.run_id,
        "split": record.split,
        "options": record.options,
        "truth": {**truth, "words": truths.explain(services, slug, truth, record.split)},
        "rows": [*rows, ensemble],
        "num_missing_members": len(record.members) - len(rows),
        "gain": gain,
        "metric": metric,
        "best": best,
        "noise": noise,
        "outcome": noise and noise["outcome"],
        "is_gain": noise and noise["outcome"] == "gain",
        "verdict": _verdict(None if best is None else rows[best], ensemble, metric, noise),
    }


def find_noise(services: Services, slug: str, set_id: int, wait_s: float = 0.0) -> dict[str, Any]:
    """``{"state": "ready", "table": comparison}`` with its noise, or how far the measuring is, begun here if need be.

    As :func:`pair_figures.ask_for_pair`, of the best member and the ensemble. Raises NotFound, BadRequest.
    """
    two = _best_and_ensemble(services, slug, set_id)
    answer = pair_figures.ask_for_pair(services, slug, *two, wait_s) if two else {"state": "ready"}
    return answer if answer["state"] != "ready" else {"state": "ready", "table": comparison(services, slug, set_id)}


def stop_noise(services: Services, slug: str, set_id: int) -> None:
    """End the measuring of an ensemble's noise, if it goes on."""
    if two := _best_and_ensemble(services, slug, set_id):
        pair_figures.stop_pair(services, slug, *two)


def measure_noise(services: Services, slug: str, set_id: int) -> dict[str, Any]:
    """:func:`comparison` with its noise; blocks until that is measured."""
    if two := _best_and_ensemble(services, slug, set_id):
        pair_figures.judge_pair(services, slug, *two)
    return comparison(services, slug, set_id)


def _ensemble(services: Services, slug: str, set_id: int) -> PredictionSet:
    record = predictions.get_set(services.database(slug), set_id)
    if record.kind != "ensemble":
        raise BadRequest(f"Prediction set {set_id} is not an ensemble.")
    return record


def _best_and_ensemble(services: Services, slug: str, set_id: int) -> tuple[PredictionSet, PredictionSet] | None:
    table = comparison(services, slug, set_id)
    if table["best"] is None:
        return None
    best = predictions.get_set(services.database(slug), table["rows"][table["best"]]["set"])
    return best, _ensemble(services, slug, set_id)


def _row(services: Services, slug: str, set_id: int, truth_of: int, metric: str) -> dict[str, Any]:
    judged = review.judge(services, slug, set_id, truth_of)
    record, figures = judged.record, judged.evaluation
    if record.checkpoint_id is None:
        name = review.ensemble_name(record)
    else:
        name = review.set_name(record, runs.get_checkpoint(services.database(slug), record.checkpoint_id))
    named = {figure: getattr(figures, figure) for figure in FIGURES}
    return {
        "set": set_id,
        "side": str(comparison_sides.side_of(services, slug, record)),
        "run": record.run_id,
        "checkpoint_id": record.checkpoint_id,
        "name": name,
        "is_ensemble": record.kind == "ensemble",
        **named,
        "threshold": figures.f1_threshold,
        "score": selection_score(metric, named),
        **set_costs.describe(set_costs.cost_of(services, slug, record)),
    }


def _verdict(best: dict[str, Any] | None, ensemble: dict[str, Any], metric: str, noise: dict[str, Any] | None) -> str:
    """The scores; with the noise also what they mean."""
    if best is None:
        return "The members' predictions are gone, so there is nothing to compare with."
    text = (
        f"{ensemble['score']:.3f} as an ensemble, {best['score']:.3f} for its best member ({best['name']}), "
        f"by the run's selection metric, {TITLES[metric]}"
    )
    told = explain_outcome(text, noise) if noise else f"{text}."
    return told + explain_moves(metric, best, ensemble, "its best member", "the ensemble")


def list_ensembles(services: Services, slug: str, run_id: int | None = None) -> list[dict[str, Any]]:
    """Stored ensembles, newest first, as plain records."""
    return [asdict(item) for item in review.list_sets(services, slug, run_id) if item.kind == "ensemble"]


def fuse_run(
    services: Services,
    slug: str,
    run_id: int | None,
    split: str = "valid",
    top: int = 3,
    on_change: Callable[[Job], None] | None = None,
    checkpoint_ids: Sequence[int] | None = None,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Fuse a run's best checkpoints, or chosen ones, and wait: the ensemble's figures as :func:`review.evaluation`
    gives them, with ``members`` (the rows beside it), score, cost_ms, devices, ``truth``, ``noise``, ``outcome``,
    ``is_gain`` and ``verdict``. Raises UserError when it failed.
    """
    queued = request_ensemble(
        services, slug, run_id=run_id, checkpoint_ids=checkpoint_ids, split=split, top=top, options=options
    )
    job = jobs.wait_until_done(services, slug, queued.id, "Fusing", on_change)
    compared = measure_noise(services, slug, job.result["set"])
    return {
        "run": compared["run"],
        **review.evaluation(services, slug, compared["set"]),
        "members": compared["rows"][:-1],
        **{name: compared["rows"][-1][name] for name in ("score", "cost_ms", "devices")},
        **{name: compared[name] for name in ("truth", "noise", "outcome", "is_gain", "verdict")},
    }
