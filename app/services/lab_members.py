"""Who takes part in an ensemble lab: checkpoints and stored sets, in which views, and what must be predicted first."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import BadRequest, UserError
from app.pipeline.views import relative_cost
from app.records import PredictionSet
from app.services import ensembling, review, truths
from app.services.context import Services
from app.store import predictions, runs, timings

FUSED = "fused"  # the views of a member that is an ensemble itself
AS_STORED = "stored"  # the views of a lab whose members are all stored sets
VIEW_TITLES = {**review.VIEW_TITLES, AS_STORED: "as stored"}


@dataclass(frozen=True)
class Member:
    """A checkpoint, which predicts in the views of each table; or a stored set, which is the same in all of them."""

    run_id: int
    name: str
    checkpoint_id: int | None
    stored: PredictionSet | None = None

    @property
    def stored_views(self) -> str | None:
        """The views of a stored set; None of a checkpoint, which predicts in any."""
        if self.stored is None:
            return None
        return self.stored.test_time_augmentation if self.checkpoint_id is not None else FUSED

    def as_payload(self) -> dict[str, Any]:
        """What :func:`load` finds it by."""
        return {"set_id": self.stored.id} if self.stored else {"checkpoint_id": self.checkpoint_id}


def choose(
    services: Services,
    slug: str,
    *,
    run_id: int | None,
    checkpoint_ids: Sequence[int],
    set_ids: Sequence[int],
    top: int,
    split: str,
) -> list[Member]:
    """The named checkpoints and stored sets, or the best ``top`` of a run.

    Raises NotFound, and BadRequest for a set of another split, a split that is empty, other than 2 to 20 members, and
    runs with other classes, or other images in the split.
    """
    database = services.database(slug)
    if not checkpoint_ids and not set_ids:
        checkpoint_ids = [item.id for item in ensembling.choose_members(services, slug, run_id, None, top)]
    entries = [{"checkpoint_id": number} for number in dict.fromkeys(checkpoint_ids)]
    entries += [{"set_id": number} for number in dict.fromkeys(set_ids)]
    for number in set_ids:
        if (found := predictions.get_set(database, number).split) != split:
            raise BadRequest(f"Prediction set {number} is of the {found} split, not of {split}.")
    if not ensembling.MIN_MEMBERS <= len(entries) <= ensembling.MAX_MEMBERS:
        raise BadRequest(
            f"A lab has {ensembling.MIN_MEMBERS} to {ensembling.MAX_MEMBERS} members; there are {len(entries)}.",
            "Choose other checkpoints or stored predictions.",
        )
    members = load(services, slug, entries)
    run_ids = {member.run_id for member in members}
    review.check_split(services, slug, truths.newest(run_ids), split)
    truths.require_same_images(services, slug, run_ids, split)
    return members


def truth_of(members: Sequence[Member]) -> int:
    """The run whose labels all are judged on, and by whose selection metric."""
    return truths.newest([member.run_id for member in members])


def choose_views(services: Services, slug: str, members: Sequence[Member], wanted: Sequence[str]) -> list[str]:
    """The views to compare, each once; by default those that the first member's run is judged with.

    Raises BadRequest for unknown ones, and when a stored set is what a checkpoint predicts in one of them.
    """
    checkpoint_ids = {member.checkpoint_id for member in members if member.stored is None}
    if not checkpoint_ids:
        return [AS_STORED]
    run = runs.get_run(services.database(slug), members[0].run_id)
    views = list(dict.fromkeys(wanted)) or [review.judgement_of(run).test_time_augmentation]
    if unknown := [name for name in views if name not in review.VIEW_TITLES]:
        raise BadRequest(f"Views are {', '.join(review.VIEW_TITLES)}; got {unknown[0]!r}.")
    for member in members:
        twice = member.stored and member.checkpoint_id in checkpoint_ids
        if twice and member.stored.test_time_augmentation in views:
            raise BadRequest(
                f"{member.name} would be a member twice: as a checkpoint, and as stored predictions in the same views.",
                "Take one of the two out.",
            )
    return views


def load(services: Services, slug: str, entries: Iterable[dict[str, Any]]) -> list[Member]:
    """Members as :meth:`Member.as_payload` wrote them; raises NotFound for one that is gone."""
    database = services.database(slug)
    found: list[tuple[int, int | None, PredictionSet | None]] = []
    for entry in entries:
        if "set_id" in entry:
            stored = predictions.get_set(database, entry["set_id"])
            found.append((stored.run_id, stored.checkpoint_id, stored))
        else:
            checkpoint = runs.get_checkpoint(database, entry["checkpoint_id"])
            found.append((checkpoint.run_id, checkpoint.id, None))
    has_several_runs = len({run_id for run_id, _, _ in found}) > 1
    return [
        Member(run_id, _name(services, slug, run_id, checkpoint_id, stored, has_several_runs), checkpoint_id, stored)
        for run_id, checkpoint_id, stored in found
    ]


def find_missing(
    services: Services, slug: str, members: Sequence[Member], split: str, views: Sequence[str]
) -> list[tuple[Member, str]]:
    """Which members have no stored predictions in which views."""
    database = services.database(slug)
    return [
        (member, name)
        for name in views
        for member in members
        if member.stored is None and predictions.find_set(database, member.checkpoint_id, split, name) is None
    ]


def sets_of(services: Services, slug: str, members: Sequence[Member], split: str, views: str) -> list[PredictionSet]:
    """The members' stored predictions in some views; raises UserError for one that has none."""
    database = services.database(slug)
    sets = [member.stored or predictions.find_set(database, member.checkpoint_id, split, views) for member in members]
    for member, found in zip(members, sets, strict=True):
        if found is None:
            raise UserError(f"{member.name} left no predictions.", "The log of the job says why.")
    return sets


def prediction_times(services: Services, slug: str) -> Callable[[int, str], float | None]:
    """Milliseconds an image, by run and views: from what was measured last on this machine for the run's model at its
    size. None where nothing was, or where the run is gone."""
    configs = {run.id: run.config for run in runs.list_runs(services.database(slug))}
    measured = {(one["model"], one["image_size"]): one["predict_s"] for one in timings.all_of(services.workspace)}

    def find(run_id: int, views: str) -> float | None:
        config = configs.get(run_id, {})
        seconds = measured.get((config.get("model"), config.get("image_size")))
        return None if seconds is None else 1000 * seconds * relative_cost(views)

    return find


def _name(
    services: Services,
    slug: str,
    run_id: int,
    checkpoint_id: int | None,
    stored: PredictionSet | None,
    has_several_runs: bool,
) -> str:
    database = services.database(slug)
    if checkpoint_id is None:
        name = review.ensemble_title(stored)
    else:
        checkpoint = runs.get_checkpoint(database, checkpoint_id)
        name = review.set_name(stored, checkpoint) if stored else review.checkpoint_name(checkpoint)
    return f"{runs.get_run(database, run_id).name}, {name}" if has_several_runs else name
