"""The ensemble lab as the user sees it: which predictions to fuse, how, and whether it is worth it.

A lab is a job; its result stays with it. It works on stored predictions, so no model runs.
"""

from collections.abc import Callable, Sequence
from typing import Any

from app.errors import BadRequest, Cancelled, NotFound
from app.pipeline.data.snapshot import Sample, Snapshot
from app.pipeline.ensemble import METHODS
from app.pipeline.evaluate.selection import DEFAULT_METRIC, SMALLEST_GAIN, TITLES
from app.pipeline.fusion.lab import MOST_FOR_ALL_SUBSETS, NEAR_BEST, Half, run_lab, split_in_halves
from app.pipeline.fusion.tune import num_trials
from app.records import Job, PredictionSet
from app.services import ensembling, jobs, review
from app.services.context import Services
from app.store import images as image_store
from app.store import jobs as job_store
from app.store import predictions, runs, timings

KIND = "ensemble_lab"
MAX_KEPT = 1000  # labs that are listed
NAMES = {"wbf": "WBF", "nms": "NMS", "soft_nms": "Soft-NMS", "nmw": "NMW"}


def request_lab(
    services: Services,
    slug: str,
    *,
    run_id: int | None = None,
    checkpoint_ids: Sequence[int] = (),
    set_ids: Sequence[int] = (),
    top: int = 3,
    split: str = "valid",
    seed: int = 0,
) -> Job:
    """Queue a lab over checkpoints (of any runs on one dataset), stored sets, or the best ``top`` of a run.

    Raises NotFound, and BadRequest when there are fewer than two members or more than twenty, when one has no stored
    predictions on the split, when datasets differ, or when the split cannot be halved.
    """
    members = _choose_sets(services, slug, run_id, checkpoint_ids, set_ids, top, split)
    snapshot = review.load_truth(services, slug, members[0].run_id)
    _halves(services, slug, snapshot, split, seed)
    payload = {"set_ids": [member.id for member in members], "split": split, "seed": seed}
    return jobs.enqueue(services, slug, KIND, payload)


def carry_out(
    services: Services,
    slug: str,
    payload: dict[str, Any],
    *,
    on_progress: Callable[[int, int, str], None] = lambda done, total, message: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Do a queued lab inside its job; the result is what :func:`lab` gives. Raises Cancelled when asked to stop."""
    database = services.database(slug)
    members = [predictions.get_set(database, set_id) for set_id in payload["set_ids"]]
    snapshot = review.load_truth(services, slug, members[0].run_id)
    found = [predictions.read_detections(database, member.id) for member in members]
    tuning, judging = (
        Half.of(samples, snapshot.categories, found)
        for samples in _halves(services, slug, snapshot, payload["split"], payload["seed"])
    )
    metric = runs.get_run(database, members[0].run_id).config.get("selection_metric", DEFAULT_METRIC)
    done, total = 0, _count_trials(len(members))

    def tick(method: str) -> None:
        nonlocal done
        if should_stop():
            raise Cancelled("The lab was stopped; nothing of it is kept.")
        done += 1
        on_progress(min(done, total), total, f"Trying {NAMES[method]}")

    found_out = run_lab(tuning, judging, metric, tick=tick)
    on_progress(total, total, "Judged")
    names = [_name(services, slug, member) for member in members]
    costs = [_predict_ms(services, slug, member) for member in members]
    result = {
        "split": payload["split"],
        "seed": payload["seed"],
        "metric": metric,
        "metric_title": TITLES[metric],
        "num_tuning_images": tuning.columns.num_images,
        "num_judging_images": judging.columns.num_images,
        "near_best": NEAR_BEST,
        "num_trials": done,
        **found_out,
        "members": [
            {"set": member.id, "checkpoint_id": member.checkpoint_id, "run": member.run_id, "name": name, **row}
            | {"predict_ms": cost}
            for member, name, cost, row in zip(members, names, costs, found_out["members"], strict=True)
        ],
        "methods": [
            {**row, "cost_ms": None if None in costs else sum(costs) + row["fuse_ms"]} for row in found_out["methods"]
        ],
    }
    return {**result, **_judgement(result)}


def list_labs(services: Services, slug: str) -> list[dict[str, Any]]:
    """Finished labs, newest first, as :func:`lab` gives them."""
    done = job_store.list_jobs(services.database(slug), ("done",), MAX_KEPT, KIND)
    return [_as_lab(job) for job in done]


def lab(services: Services, slug: str, job_id: int) -> dict[str, Any]:
    """What a lab found: :func:`run_lab`'s tables with members' names and costs, ``verdict``, ``is_gain`` and ``gain``.

    predict_ms: of a member, an image, as measured for its model at its image size; None where it was not.
    cost_ms: an image through all members and the fusing, None when a member's is not known. Raises NotFound.
    """
    job = jobs.get(services, slug, job_id)
    if job.kind != KIND or job.state != "done":
        raise NotFound(f"Job {job_id} is no finished lab (it is {job.kind}, {job.state}).")
    return _as_lab(job)


def run(
    services: Services, slug: str, on_change: Callable[[Job], None] | None = None, **request: Any
) -> dict[str, Any]:
    """Queue a lab, wait for it and return it; arguments of :func:`request_lab`. Raises UserError when it failed."""
    queued = request_lab(services, slug, **request)
    return lab(services, slug, ensembling.wait_until_done(services, slug, queued, on_change).id)


def _as_lab(job: Job) -> dict[str, Any]:
    return {"id": job.id, "created_at": job.created_at, **job.result}


def _choose_sets(
    services: Services,
    slug: str,
    run_id: int | None,
    checkpoint_ids: Sequence[int],
    set_ids: Sequence[int],
    top: int,
    split: str,
) -> list[PredictionSet]:
    database = services.database(slug)
    members = [predictions.get_set(database, set_id) for set_id in set_ids]
    for member in members:
        if member.split != split:
            raise BadRequest(f"Prediction set {member.id} is of the {member.split} split, not of {split}.")
    if checkpoint_ids:
        members = [*(_stored(services, slug, checkpoint_id, split) for checkpoint_id in checkpoint_ids), *members]
    elif not members:
        chosen = ensembling.choose_members(services, slug, run_id, None, top)
        members = [_stored(services, slug, checkpoint.id, split) for checkpoint in chosen]
    members = list({member.id: member for member in members}.values())
    if not ensembling.MIN_MEMBERS <= len(members) <= ensembling.MAX_MEMBERS:
        raise BadRequest(
            f"A lab has {ensembling.MIN_MEMBERS} to {ensembling.MAX_MEMBERS} members; there are {len(members)}.",
            "Name other checkpoints or stored predictions.",
        )
    ensembling.require_one_dataset(services, slug, [member.run_id for member in members])
    return members


def _stored(services: Services, slug: str, checkpoint_id: int, split: str) -> PredictionSet:
    database = services.database(slug)
    checkpoint = runs.get_checkpoint(database, checkpoint_id)
    views = review.judgement_of(runs.get_run(database, checkpoint.run_id)).test_time_augmentation
    found = predictions.find_set(database, checkpoint_id, split, views)
    if found is None:
        raise BadRequest(
            f"Checkpoint {checkpoint_id} (run {checkpoint.run_id}, epoch {checkpoint.epoch}) has no stored predictions"
            f" on the {split} split.",
            "Look at it on the Review page, or fuse it once: either makes them.",
        )
    return found


def _halves(
    services: Services, slug: str, snapshot: Snapshot, split: str, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """(for tuning, for judging); raises BadRequest unless both have something to find."""
    samples = snapshot.split(split)
    with services.database(slug).read() as db:
        known = image_store.of_ids(db, [sample.image_id for sample in samples])
    is_tuning = split_in_halves(samples, {key: image.source_key for key, image in known.items()}, seed)
    halves = tuple(
        tuple(sample for sample, chosen in zip(samples, mask, strict=True) if chosen)
        for mask in (is_tuning, ~is_tuning)
    )
    if not all(any((~sample.is_crowd).any() for sample in half) for half in halves):
        raise BadRequest(
            f"The {split} split has too few labelled images of different sources to tune on one half and judge on the"
            f" other ({len(samples)} images).",
            "Choose another split, or label more images and train again.",
        )
    return halves


def _count_trials(num_members: int) -> int:
    """About how many there are: at most so many that the bar never goes back."""
    subsets = 2**num_members if num_members <= MOST_FOR_ALL_SUBSETS else num_members**2
    return sum(num_trials(method, num_members) + 4 for method in METHODS) + 4 * num_members + subsets


def _name(services: Services, slug: str, member: PredictionSet) -> str:
    if member.checkpoint_id is None:
        return member.name or f"Set {member.id}"
    database = services.database(slug)
    epoch = review.checkpoint_name(runs.get_checkpoint(database, member.checkpoint_id))
    return f"{runs.get_run(database, member.run_id).name}, {epoch}"


def _predict_ms(services: Services, slug: str, member: PredictionSet) -> float | None:
    """As measured last on this machine for this model at this size; None for an ensemble."""
    if member.checkpoint_id is None:
        return None
    config = runs.get_run(services.database(slug), member.run_id).config
    wanted = (config.get("model"), config.get("image_size"))
    fitting = [one for one in timings.all_of(services.workspace) if (one["model"], one["image_size"]) == wanted]
    return 1000 * fitting[-1]["predict_s"] if fitting else None


def _judgement(result: dict[str, Any]) -> dict[str, Any]:
    """verdict, is_gain, gain: the best method against the member that is best where it counts, on unseen images."""
    row = result["methods"][result["best"]]
    best = max(result["members"], key=lambda member: member["judged"]["score"])
    gain = row["judged"]["score"] - best["judged"]["score"]
    is_gain = gain >= SMALLEST_GAIN
    smallest = result["smallest"]["members"]
    enough = (
        f"; {len(smallest)} of the {len(result['members'])} members are enough"
        if is_gain and len(smallest) < len(result["members"])
        else ""
    )
    verdict = (
        f"{'Gain' if is_gain else 'No gain'}: {row['judged']['score']:.3f} with {NAMES[row['method']]}, "
        f"{best['judged']['score']:.3f} for the best member ({best['name']}), by {result['metric_title']} on "
        f"{result['num_judging_images']} images that tuning did not see{enough}."
    )
    return {"verdict": verdict, "is_gain": is_gain, "gain": gain}
