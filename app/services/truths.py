"""What predictions are judged on: the frozen dataset of one run, or what those of several runs have in common.

One rule wherever several stand in one table: their classes are the same, only images that all of them have in the split
count, and the labels are those of the newest run. To be fused, predictions must be of the very same images. An image is
the same as long as its size and rotation are, in which boxes are measured.
"""

import hashlib
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from app.errors import BadRequest, NotFound
from app.pipeline.data.categories import CategoryMap
from app.pipeline.data.snapshot import Sample, Samples, Snapshot, load_snapshot
from app.records import SPLITS, PredictionSet, Run
from app.services.context import Services
from app.services.lru_cache import LruCache
from app.store import predictions, runs
from app.store.database import ProjectDatabase

MAX_NAMED = 3  # images of a refusal; the others are counted

_snapshots = LruCache(4)
_splits = LruCache(1000)  # some hundred bytes each
_notes = LruCache(200)


def load_truth(services: Services, slug: str, run_id: int) -> Snapshot:
    """The dataset frozen at the start of a run; raises NotFound when its file is gone."""
    path = _path(services, slug, run_id)
    return _snapshots.get(_file_key(path, run_id), lambda: load_snapshot(path))


@dataclass(frozen=True, slots=True)
class Split:
    """What is known of a run's split without its labels. Predictions of splits with one ``key`` can be fused."""

    num_images: int
    key: str


def splits_of(services: Services, slug: str, run_id: int) -> dict[str, Split]:
    """All splits of a run's dataset by name; read once, and remembered long after the dataset was let go.

    Raises NotFound when the dataset's file is gone.
    """

    def read() -> dict[str, Split]:
        snapshot = load_truth(services, slug, run_id)
        found = {name: snapshot.split(name) for name in SPLITS}
        return {name: Split(len(samples), _key_of(snapshot.categories, samples)) for name, samples in found.items()}

    return _splits.get(_file_key(_path(services, slug, run_id), run_id), read)


def newest(run_ids: Collection[int]) -> int:
    """The run whose labels count."""
    return max(run_ids)


def runs_behind(database: ProjectDatabase, *records: PredictionSet) -> set[int]:
    """The runs of stored predictions; of an ensemble also those of its members, as far as these are still stored."""
    stored = {one.id: one for one in predictions.list_sets(database)}
    waiting, known = list(records), {record.id for record in records}
    found = set()
    while waiting:
        record = waiting.pop()
        found.add(record.run_id)
        members = [stored[number] for number in record.members if number in stored and number not in known]
        waiting += members
        known |= {member.id for member in members}
    return found


# ---- may they be fused? ----------------------------------------------------------------------------------------------


def require_same_images(services: Services, slug: str, run_ids: Collection[int], split: str) -> None:
    """Raise BadRequest, naming a run and what differs, unless all runs have the same classes, and the same images in
    the split. Labels may differ."""
    last = newest(run_ids)
    wanted = splits_of(services, slug, last)[split].key
    for run_id in sorted(set(run_ids) - {last}, reverse=True):
        if splits_of(services, slug, run_id)[split].key == wanted:
            continue
        one, other = (load_truth(services, slug, number) for number in (run_id, last))
        _require_same_classes(one, other, run_id, last)
        texts = _name_differences(one, other, run_id, last, split)
        more = f"; and {len(texts) - MAX_NAMED} more" if len(texts) > MAX_NAMED else ""
        raise BadRequest(
            f"The {split} images of run {run_id} are not those of run {last}, so that their predictions cannot be"
            f" fused: {'; '.join(texts[:MAX_NAMED])}{more}.",
            f"Choose checkpoints of runs with the same {split} images (labels may differ), or train again on the images"
            " as they are now. Compare judges two runs on the images that both have.",
        )


def _require_same_classes(one: Snapshot, other: Snapshot, run_id: int, last: int) -> None:
    names = one.categories.names, other.categories.names
    if names[0] == names[1]:
        return
    place = next((n for n, (a, b) in enumerate(zip(*names, strict=False)) if a != b), min(map(len, names)))
    called = [f"{each[place]!r}" if place < len(each) else "missing" for each in names]
    raise BadRequest(
        f"Run {run_id} and run {last} were trained on different classes, so that their figures do not mean the same:"
        f" class {place + 1} is {called[0]} in run {run_id} and {called[1]} in run {last}.",
        "Choose runs with the same classes in the same order, or train again on the classes as they are now.",
    )


def _name_differences(one: Snapshot, other: Snapshot, run_id: int, last: int, split: str) -> list[str]:
    """What stands between the images of two runs, in words; those of the newer run first."""
    theirs, own = one.split(split), other.split(split)
    lacking = np.setdiff1d(own.image_ids, theirs.image_ids).tolist()
    beyond = np.setdiff1d(theirs.image_ids, own.image_ids).tolist()
    shared = np.intersect1d(own.image_ids, theirs.image_ids)
    is_turned = (own.of_images(shared).sizes != theirs.of_images(shared).sizes).any(axis=1)
    texts = [f"{_name(own.find(number))} {_place(one.samples.find(number), run_id)}" for number in lacking]
    texts += [f"{_name(theirs.find(number))} {_place(other.samples.find(number), last)}" for number in beyond]
    for number in shared[is_turned].tolist():
        before, now = theirs.find(number), own.find(number)
        texts.append(f"{_name(now)} is {_frame(before)} in run {run_id} and {_frame(now)} in run {last}")
    return texts


def _name(sample: Sample) -> str:
    return f"image {sample.image_id} ({sample.file_name})"


def _place(sample: Sample | None, run_id: int) -> str:
    if sample is None:
        return f"is not in run {run_id}"
    return f"is in {sample.split} of run {run_id}" + (", which was trained on it" if sample.split == "train" else "")


def _frame(sample: Sample) -> str:
    turned = f", turned by {sample.rotation} degrees" if sample.rotation else ""
    return f"{sample.width} x {sample.height} pixels{turned}"


# ---- what they have in common ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Common:
    """What several runs are judged on: ``samples``, with the labels of the newest run's ``snapshot``.

    num_left_out: images of the split that not all of them have there, or not turned the same. note: what is to be told,
    as :func:`note_common` gives it.
    """

    snapshot: Snapshot
    samples: Samples
    num_left_out: int
    note: dict[str, Any]


def find_common(services: Services, slug: str, run_ids: Collection[int], split: str) -> Common:
    """What all runs have in a split. Raises NotFound, and BadRequest for different classes, and for no common image."""
    last = newest(run_ids)
    snapshot = load_truth(services, slug, last)
    own = snapshot.split(split)
    is_common, ids_of_any = np.ones(len(own), bool), own.image_ids
    relabeled, trained_on = {}, {last: snapshot.split("train").image_ids}
    for run_id in sorted(set(run_ids) - {last}, reverse=True):
        other = load_truth(services, slug, run_id)
        _require_same_classes(other, snapshot, run_id, last)
        theirs = other.split(split)
        is_same, relabeled[run_id] = _match(own, theirs)
        is_common &= is_same
        ids_of_any = np.union1d(ids_of_any, theirs.image_ids)
        trained_on[run_id] = other.split("train").image_ids
    if not is_common.any():
        raise BadRequest(f"The runs share no image of the {split} split.", "Choose another split.")
    samples = own.select(is_common)
    left_out = np.setdiff1d(ids_of_any, samples.image_ids)
    counts = {run_id: int((is_other & is_common).sum()) for run_id, is_other in relabeled.items()}
    is_training = split == "train"  # then that they were trained on them is no news
    kept_out = {} if is_training else {one: int(np.isin(left_out, ids).sum()) for one, ids in trained_on.items()}
    note = {
        "run": last,
        "relabeled": [{"run": run_id, "images": count} for run_id, count in counts.items() if count],
        "seen": [] if is_training else _find_seen(services, slug, trained_on, samples.image_ids),
        "left_out_seen": [{"run": run_id, "images": count} for run_id, count in kept_out.items() if count],
    }
    return Common(snapshot, samples, len(left_out), note)


def note_common(services: Services, slug: str, run_ids: Collection[int], split: str) -> dict[str, Any]:
    """What is to be told of judging runs on one truth; remembered.

    run: whose labels count. relabeled: run and images, how many have other labels now than in an older run. seen: run,
    images and by: how many of the images the runs ``by``, whose weights it began with, had in training. left_out_seen:
    run and images, how many of those left out it had in training. Raises as :func:`find_common`.
    """
    key = tuple(_file_key(_path(services, slug, run_id), run_id) for run_id in sorted(set(run_ids)))
    return _notes.get((key, split), lambda: find_common(services, slug, run_ids, split).note)


def explain(services: Services, slug: str, note: Mapping[str, Any], split: str) -> list[str]:
    """A note as sentences; none where nothing stands out."""
    if not (note["relabeled"] or note["seen"] or note["left_out_seen"]):
        return []
    names = {run.id: run.name for run in runs.list_runs(services.database(slug))}

    def title(run_id: int) -> str:
        name = names.get(run_id, "")
        return f"run {run_id}" + (f" ({name})" if name and name != f"Run {run_id}" else "")

    texts = []
    if note["relabeled"]:
        first, *others = note["relabeled"]
        since = [f"{_images(first['images'], f'of {split} ')} relabeled since {title(first['run'])}"]
        since += [f"{item['images']} since {title(item['run'])}" for item in others]
        texts.append(f"Judged on the labels of {title(note['run'])}; {', '.join(since)}.")
    for item in note["seen"]:
        by = " and ".join(title(run_id) for run_id in item["by"])
        texts.append(
            f"{_images(item['images'], f'of {split} ')} trained on by {by}, whose weights {title(item['run'])} began"
            " with: its figures are flattered."
        )
    for item in note["left_out_seen"]:
        images = _images(item["images"], "left out ")
        texts.append(f"{images} trained on by {title(item['run'])} and would have flattered it.")
    return texts


def _images(count: int, which: str) -> str:
    return f"1 image {which}was" if count == 1 else f"{count} images {which}were"


def _match(own: Samples, theirs: Samples) -> tuple[np.ndarray, np.ndarray]:
    """bool [I] twice, of ``own``: which images are the same in the other run, and which of them have other labels."""
    is_same, is_relabeled = np.zeros((2, len(own)), bool)
    places = np.flatnonzero(np.isin(own.image_ids, theirs.image_ids))
    mine, others = own.select(places), theirs.of_images(own.image_ids[places])
    is_same[places] = (mine.sizes == others.sizes).all(axis=1)
    is_relabeled[places] = _has_other_labels(mine, others)
    return is_same, is_relabeled


def _has_other_labels(one: Samples, other: Samples) -> np.ndarray:
    """bool [I], of the same images; the order of an image's boxes means nothing."""
    is_other = one.num_boxes != other.num_boxes
    places = np.flatnonzero(~is_other)
    mine, theirs = (_sorted_boxes(samples.select(places)) for samples in (one, other))
    is_other[places[mine[(mine != theirs).any(axis=1), 0].astype(np.int64)]] = True
    return is_other


def _sorted_boxes(samples: Samples) -> np.ndarray:
    """float64 [M, 7]: place of the image, label, is_crowd and box, in order."""
    boxes, labels, is_crowd = samples.boxes()
    rows = np.column_stack([np.repeat(np.arange(len(samples)), samples.num_boxes), labels, is_crowd, boxes])
    return rows[np.lexsort(rows.T[::-1])]


def _find_seen(services: Services, slug: str, run_ids: Collection[int], image_ids: np.ndarray) -> list[dict[str, Any]]:
    """Of each run that began with weights of others: how many of the images these had in training."""
    known, found = {run.id: run for run in runs.list_runs(services.database(slug))}, []
    for run_id in run_ids:
        is_seen, by = np.zeros(len(image_ids), bool), []
        for earlier in _began_with(services, slug, run_id, known):
            is_known = np.isin(image_ids, load_truth(services, slug, earlier).split("train").image_ids)
            is_seen |= is_known
            by += [earlier] if is_known.any() else []
        if by:
            found.append({"run": run_id, "images": int(is_seen.sum()), "by": by})
    return found


def _began_with(services: Services, slug: str, run_id: int, known: Mapping[int, Run]) -> Sequence[int]:
    """The earlier runs whose weights a run learned on from, the latest first, as far as they are still there."""
    found = []
    while (earlier := _source_of(services, slug, known[run_id])) in known and _path(services, slug, earlier).is_file():
        found.append(earlier)
        run_id = earlier
    return found


def _source_of(services: Services, slug: str, run: Run) -> int | None:
    """The earlier run in whose folder the weights lay that a run began with."""
    given = run.config.get("weights_file", "") if run.config.get("pretrained") == "file" else ""
    folder = Path(given).expanduser().resolve().parent
    if folder.parent != services.files(slug).runs.resolve() or not folder.name.isdecimal():
        return None
    return int(folder.name) if int(folder.name) < run.id else None


# ---- files and keys --------------------------------------------------------------------------------------------------


def _path(services: Services, slug: str, run_id: int) -> Path:
    return services.files(slug).run(run_id) / "dataset.json"


def _file_key(path: Path, run_id: int) -> tuple[Hashable, ...]:
    """The number of a run that was deleted can come again, so that its file counts."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise NotFound(f"The frozen dataset of run {run_id} is missing ({path.name} in its folder).") from None
    return path, status.st_mtime_ns, status.st_size


def _key_of(categories: CategoryMap, samples: Samples) -> str:
    order = np.argsort(samples.image_ids, kind="stable")
    parts = orjson.dumps(categories.names), samples.image_ids[order].tobytes(), samples.sizes[order].tobytes()
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:24]
