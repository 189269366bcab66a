"""The ensemble lab as the user sees it: which predictions to fuse, how, and whether it is worth it.

A lab is a job; its result stays with it. It works on stored predictions; those that are missing it makes first, and
they stay.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from app.errors import BadRequest, Cancelled, NotFound
from app.jobs.compile_kernels import PARTS
from app.pipeline.data.snapshot import Sample, Snapshot
from app.pipeline.ensemble import METHODS, SHORT_NAMES
from app.pipeline.evaluate.difference import NUM_RESAMPLES, explain_outcome
from app.pipeline.evaluate.selection import DEFAULT_METRIC, TITLES, explain_moves
from app.pipeline.fusion.lab import MOST_FOR_ALL_SUBSETS, NEAR_BEST, Half, run_lab, split_in_halves
from app.pipeline.fusion.tune import num_trials
from app.pipeline.views import relative_cost
from app.records import Job
from app.services import ensembling, jobs, lab_members, models, set_costs, truths
from app.services.compiling import ONLY_ONCE, wait_until_compiled
from app.services.context import Services
from app.services.lab_members import VIEW_TITLES, Member
from app.services.time_left import TimeLeft
from app.store import images as image_store
from app.store import jobs as job_store
from app.store import predictions, runs

KIND = "ensemble_lab"
MAX_KEPT = 1000  # labs that are listed
PREDICTING, TRYING, RESAMPLING = "predicting", "trying", "resampling"
# Until the first of them are timed: seconds for an image in one view on a slow machine, for one of a trial, and for one
# of a resample.
PREDICT_GUESS_S, TRIAL_GUESS_S, RESAMPLE_GUESS_S = 0.5, 3e-5, 5e-6

Predict = Callable[[int, str, str, Callable[[int], None]], None]


def request_lab(
    services: Services,
    slug: str,
    *,
    run_id: int | None = None,
    checkpoint_ids: Sequence[int] = (),
    set_ids: Sequence[int] = (),
    top: int = 3,
    split: str = "valid",
    views: Sequence[str] = (),
    seed: int = 0,
) -> Job:
    """Queue a lab over checkpoints (of any runs on the same images) and stored sets, or the best ``top`` of a run.

    views: test-time augmentations that the checkpoints predict with, each compared with the others; by default that of
    the first member's run. What has no stored predictions yet is predicted by the job.
    Raises NotFound, and BadRequest when there are fewer than two members or more than twenty, when their classes or
    images differ, or when the split cannot be halved.
    """
    chosen = {"run_id": run_id, "checkpoint_ids": checkpoint_ids, "set_ids": set_ids, "top": top, "split": split}
    members = lab_members.choose(services, slug, **chosen)
    names = lab_members.choose_views(services, slug, members, views)
    _halves(services, slug, truths.load_truth(services, slug, lab_members.truth_of(members)), split, seed)
    entries = [member.as_payload() for member in members]
    payload = {"members": entries, "views": names, "split": split, "seed": seed}
    return jobs.enqueue(services, slug, KIND, payload)


def carry_out(
    services: Services,
    slug: str,
    payload: dict[str, Any],
    *,
    predict: Predict,
    on_progress: Callable[[float, float, str, float | None], None] = lambda done, total, message, left_s: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Do a queued lab inside its job; the result is what :func:`lab` gives, but for the costs.

    predict(checkpoint_id, split, views, tell) makes and stores predictions, telling how many images are done;
    on_progress gets the share done, 1, what is being done, and the seconds left; 0, 0 and None while that is unknown.
    Raises Cancelled when asked to stop: whole sets of predictions stay, nothing else.
    """
    members = lab_members.load(services, slug, payload["members"])
    split, views = payload["split"], payload["views"]
    run_id = lab_members.truth_of(members)
    snapshot = truths.load_truth(services, slug, run_id)
    halves = _halves(services, slug, snapshot, split, payload["seed"])
    missing = lab_members.find_missing(services, slug, members, split, views)
    num_images, num_tried = sum(map(len, halves)), 0
    time_left = TimeLeft()
    time_left.add(PREDICTING, round(num_images * sum(relative_cost(name) for _, name in missing)), PREDICT_GUESS_S)
    time_left.add(TRYING, _count_trials(len(members), len(views)), TRIAL_GUESS_S * num_images * len(members))
    num_resamples = (len(members) + 1) * NUM_RESAMPLES  # of each member's part, and of the whole
    time_left.add(RESAMPLING, num_resamples, RESAMPLE_GUESS_S * num_images)

    def tell(message: str) -> None:
        on_progress(time_left.share, 1.0, message, time_left.left_s)

    def heed_stop() -> None:
        if should_stop():
            raise Cancelled("The lab was stopped; nothing of it is kept.")

    def tell_preparing() -> None:
        heed_stop()
        on_progress(0.0, 0.0, f"Preparing the fusion, {ONLY_ONCE}", None)

    _predict_missing(missing, split, num_images, predict, time_left, tell)
    wait_until_compiled(services, tuple(PARTS), tell_preparing)
    time_left.skip()
    opened = ""

    def open_halves(name: str) -> tuple[Half, Half]:
        nonlocal opened
        opened = f" with {VIEW_TITLES[name]}" if len(views) > 1 else ""
        sets = lab_members.sets_of(services, slug, members, split, name)
        return _read_halves(services, slug, [found.id for found in sets], halves, snapshot)

    def tick(method: str) -> None:
        nonlocal num_tried
        heed_stop()
        time_left.move_to(TRYING, num_tried)
        num_tried += 1
        tell(f"Trying {SHORT_NAMES[method]}{opened}")

    def resampled(done: int, total: int) -> None:
        heed_stop()
        time_left.move_to(RESAMPLING if done else TRYING, done or num_tried)
        tell("Measuring the noise")

    metric = runs.get_run(services.database(slug), run_id).config.get("selection_metric", DEFAULT_METRIC)
    found_out = run_lab(views, open_halves, metric, tick=tick, on_resampled=resampled)
    on_progress(1.0, 1.0, "Judged", 0.0)
    result = {
        "split": split,
        "views": views,
        "seed": payload["seed"],
        "metric": metric,
        "metric_title": TITLES[metric],
        "num_tuning_images": len(halves[0]),
        "num_judging_images": len(halves[1]),
        "near_best": NEAR_BEST,
        "num_trials": num_tried,
        "num_predicted": len(missing),
        "truth": truths.note_common(services, slug, _runs_behind(services, slug, members), split),
        "members": [
            {"name": member.name, "run": member.run_id, "checkpoint_id": member.checkpoint_id}
            | {"stored_views": member.stored_views}
            for member in members
        ],
        "sets": {
            name: [found.id for found in lab_members.sets_of(services, slug, members, split, name)] for name in views
        },
        **found_out,
    }
    return {**result, **_judge_best(result)}


def list_labs(services: Services, slug: str) -> list[dict[str, Any]]:
    """Finished labs in short, newest first: id, created_at, split, views, names (of members), and what they came to:
    verdict, outcome, is_gain and gain."""
    kept = ("split", "views", "verdict", "is_gain", "gain")
    return [
        {"id": job.id, "created_at": job.created_at, **{name: job.result[name] for name in kept}}
        | {"outcome": job.result.get("outcome")}
        | {"names": [member["name"] for member in job.result["members"]]}
        for job in job_store.list_jobs(services.database(slug), ("done",), MAX_KEPT, KIND)
        if "views" in job.result  # not those of a version that had one table only
    ]


def lab(services: Services, slug: str, job_id: int) -> dict[str, Any]:
    """What a lab found: :func:`run_lab`'s tables with ``members`` (name, run, checkpoint_id), ``sets`` (ids of the
    members' predictions by views), ``truth`` (on whose labels it was judged: what :func:`truths.note_common` tells,
    with ``words``), ``outcome``, ``verdict``, ``is_gain`` and ``gain``. A lab of a version that did not measure the
    noise has None for ``noise`` and ``outcome``, one that knew one dataset only None for ``truth``. Rows of ``methods``
    have the method's short ``name``.

    cost_ms, of rows of ``alone`` and ``methods``: an image through the members and the fusing. ``costs`` says how that
    was measured: ``how`` is predicting (while the members' predictions were made, on ``devices``), alone (their models
    at their image size, on a quiet machine) or None, and cost_ms with it. num_passes: the same as multiples of one
    member in one view; None with a member that is an ensemble itself. Raises NotFound.
    """
    job = jobs.get(services, slug, job_id)
    if job.kind != KIND or job.state != "done":
        raise NotFound(f"Job {job_id} is no finished lab (it is {job.kind}, {job.state}).")
    return _as_lab(services, slug, job)


def request_ensemble(services: Services, slug: str, job_id: int, row: int) -> Job:
    """Queue the ensemble of a row of a lab's ``methods``, with its options and its score threshold.

    Raises NotFound, also where a member's predictions were replaced since, and BadRequest for a row that is not there.
    """
    found = lab(services, slug, job_id)
    if not 0 <= row < len(found["methods"]):
        raise BadRequest(f"The lab has rows 0 to {len(found['methods']) - 1}, not {row}.")
    chosen = found["methods"][row]
    views = "" if len(found["views"]) == 1 else f", {VIEW_TITLES[chosen['views']]}"
    return ensembling.request_ensemble(
        services,
        slug,
        set_ids=found["sets"][chosen["views"]],
        split=found["split"],
        options=chosen["options"],
        score_threshold=chosen["judged"]["threshold"],
        note=f"{views}, tuned",
    )


def request_measurement(services: Services, slug: str, job_id: int) -> Job:
    """Queue the measuring of a model that a lab's costs wait for; raises NotFound, and BadRequest when none is left."""
    find_ms = lab_members.prediction_times(services, slug)
    for member in lab(services, slug, job_id)["members"]:
        if find_ms(member["run"], "off") is None:
            config = runs.get_run(services.database(slug), member["run"]).config
            return models.start_measuring(services, slug, [config["model"]], config)
    raise BadRequest("The models of this lab's members are measured already.")


def run(
    services: Services, slug: str, on_change: Callable[[Job], None] | None = None, **request: Any
) -> dict[str, Any]:
    """Queue a lab, wait for it and return it; arguments of :func:`request_lab`. Raises UserError when it failed."""
    queued = request_lab(services, slug, **request)
    return lab(services, slug, jobs.wait_until_done(services, slug, queued.id, "The lab", on_change).id)


def _as_lab(services: Services, slug: str, job: Job) -> dict[str, Any]:
    result, truth = job.result, job.result.get("truth")
    members, find_ms = result["members"], lab_members.prediction_times(services, slug)

    predicted = set_costs.cost_of_all(services, slug, [set_id for ids in result["sets"].values() for set_id in ids])

    def find_cost(index: int, views: str) -> float | None:
        if predicted:
            return set_costs.cost_of_all(services, slug, [result["sets"][views][index]]).ms
        own = members[index]["stored_views"] or views
        return None if own == lab_members.FUSED else find_ms(members[index]["run"], own)

    def cost(numbers: Sequence[int], views: str, fuse_ms: float = 0.0) -> dict[str, Any]:
        each = [members[index]["stored_views"] or views for index in numbers]
        passes = None if lab_members.FUSED in each else sum(map(relative_cost, each))
        known = [find_cost(index, views) for index in numbers]
        return {"cost_ms": None if None in known else sum(known) + fuse_ms, "num_passes": passes}

    everyone = range(len(members))
    is_measured = all(find_cost(index, views) is not None for views in result["views"] for index in everyone)
    return {
        "id": job.id,
        "created_at": job.created_at,
        "noise": None,
        "outcome": None,
        **result,
        **(_judge_best(result) if result.get("noise") else {}),  # in today's words
        "truth": truth and {**truth, "words": truths.explain(services, slug, truth, result["split"])},
        "costs": {
            "how": "predicting" if predicted else "alone" if is_measured else None,
            "devices": list(predicted.devices) if predicted else [],
        },
        "alone": [{**row, **cost([row["member"]], row["views"])} for row in result["alone"]],
        "methods": [
            {**row, "name": SHORT_NAMES[row["method"]], **cost(everyone, row["views"], row["fuse_ms"])}
            for row in result["methods"]
        ],
    }


def _runs_behind(services: Services, slug: str, members: Sequence[Member]) -> set[int]:
    stored = [member.stored for member in members if member.stored]
    return {member.run_id for member in members} | truths.runs_behind(services.database(slug), *stored)


def _predict_missing(
    missing: Sequence[tuple[Member, str]],
    split: str,
    num_images: int,
    predict: Predict,
    time_left: TimeLeft,
    tell: Callable[[str], None],
) -> None:
    """Predict one after the other; the time of a set goes by the pixels of its views."""
    before = 0.0
    for number, (member, views) in enumerate(missing, 1):
        cost = relative_cost(views)
        text = f"Predicting {number} of {len(missing)}: {member.name}, {VIEW_TITLES[views]}"

        def note(done: int, before: float = before, cost: float = cost, text: str = text) -> None:
            time_left.move_to(PREDICTING, round(before + done * cost))
            tell(f"{text}, image {done} of {num_images}")

        tell(text)
        predict(member.checkpoint_id, split, views, note)
        before += num_images * cost
        time_left.move_to(PREDICTING, round(before))


def _read_halves(
    services: Services,
    slug: str,
    set_ids: Sequence[int],
    halves: Sequence[Sequence[Sample]],
    snapshot: Snapshot,
) -> tuple[Half, Half]:
    database = services.database(slug)
    read = [partial(predictions.read_detections, database, set_id) for set_id in set_ids]
    tuning, judging = (Half.of(samples, snapshot.categories, read) for samples in halves)
    return tuning, judging


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
            f"The {split} split has too few labeled images of different sources to tune on one half and judge on the"
            f" other ({len(samples)} images).",
            "Choose another split, or label more images and train again.",
        )
    return halves


def _count_trials(num_members: int, num_views: int) -> int:
    """About how many there are."""
    subsets = 2**num_members if num_members <= MOST_FOR_ALL_SUBSETS else num_members**2
    each = sum(num_trials(method, num_members) + 4 for method in METHODS) + 2 * num_members
    return each * num_views + 2 * num_members + subsets


def _judge_best(result: dict[str, Any]) -> dict[str, Any]:
    """verdict, outcome, is_gain, gain: the best method against what is best alone where it counts, on images that
    tuning did not see."""
    row, best = result["methods"][result["best"]], result["alone"][result["best_alone"]]
    outcome = result["noise"]["outcome"]
    is_gain = outcome == "gain"
    smallest = result["smallest"]["members"]
    enough = (
        f"; {len(smallest)} of the {len(result['members'])} members are enough"
        if is_gain and len(smallest) < len(result["members"])
        else ""
    )
    names = "that member by itself", SHORT_NAMES[row["method"]]
    moved = explain_moves(result["metric"], best["judged"], row["judged"], *names)
    has_several = len(result["views"]) > 1
    with_views = f" ({VIEW_TITLES[row['views']]})" if has_several else ""
    alone_views = f", {VIEW_TITLES[best['views']]}" if has_several else ""
    text = (
        f"{row['judged']['score']:.3f} with {SHORT_NAMES[row['method']]}{with_views}, "
        f"{best['judged']['score']:.3f} for the member that was best in tuning "
        f"({result['members'][best['member']]['name']}{alone_views}),"
        f" by {result['metric_title']} on {result['num_judging_images']} images that tuning did not see{enough}"
    )
    verdict = explain_outcome(text, result["noise"]) + moved
    gain = row["judged"]["score"] - best["judged"]["score"]
    return {"verdict": verdict, "outcome": outcome, "is_gain": is_gain, "gain": gain}
