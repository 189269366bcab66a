"""Looking for faults in the labels: where a model that is sure disagrees with them, as they are now."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.errors import BadRequest, NotFound
from app.pipeline.evaluate.coco_numbers import evaluate_columns
from app.pipeline.evaluate.columns import GroundTruth
from app.pipeline.evaluate.label_audit import KINDS
from app.pipeline.evaluate.matching import box_ious
from app.records import IgnoredSuspect, Image, Job
from app.services import comparison_sides, review
from app.services.audited_labels import Audit, AuditedLabels, audit
from app.services.comparison_sides import Chosen, Side
from app.services.context import Services
from app.services.judging_time import AGAIN_S, FIGURES_S, SUSPECTS_S, OnPart, guess_s, tell_nobody
from app.store import categories, ignored_suspects, images
from app.store.database import ProjectDatabase

MAX_PAGE = 500
SAME_SUSPECT_IOU = 0.7  # nearly all boxes that another checkpoint puts on one object, and no other; see decision 15
MAX_NEARBY = 40
NEARBY_MARGIN = 1.5  # of the longer side of a suspect: how far around it other labels are told
FIGURES = ("map50", "f1")


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which suspects to list: of a kind, with a class (predicted or labeled), from a score on.

    ``min_score`` is where the first set's F1 is best unless given.
    """

    kind: str | None = None
    category_id: int | None = None
    min_score: float | None = None


def audit_sides(
    services: Services,
    slug: str,
    sides: Sequence[Side],
    wanted_split: str = "",
    chosen: AuditFilter | None = None,
    limit: int = 100,
    on_change: Callable[[Job], None] | None = None,
    on_part: OnPart = tell_nobody,
) -> dict[str, Any]:
    """Audit with runs, checkpoints or stored sets, predicting first where that was not done; blocks.

    As :func:`audit_sets`, with ``judged``: see :func:`judge_again`; and ``by``: set, run, name, checkpoint (its file,
    None of an ensemble) and split of each; run, checkpoint and split are those of the first. Stored sets are of their
    own split, the others of the one that is wanted, else valid. Raises NotFound, BadRequest, and UserError when
    predicting failed.
    """
    asked = [
        comparison_sides.predict(
            services, slug, side, comparison_sides.choose_split(services, slug, [side], wanted_split), on_change
        )
        for side in dict.fromkeys(sides)
    ]
    set_ids = list(dict.fromkeys(one.record.id for one in asked))

    def guess(each_s: float) -> float:
        return sum(guess_s(services, slug, set_id, each_s) for set_id in set_ids)

    on_part("Looking for suspects", guess(FIGURES_S + SUSPECTS_S))
    audited = audit_sets(services, slug, set_ids, chosen, limit=limit)
    on_part("Judging on the labels as they are now", guess(AGAIN_S))
    judged, by = judge_again(services, slug, set_ids), [_name(one) for one in asked]
    first = {name: by[0][name] for name in ("run", "split", "checkpoint")}
    return {**first, **audited, "judged": judged, "by": by}


def _name(one: Chosen) -> dict[str, Any]:
    return {
        "set": one.record.id,
        "run": one.run.id,
        "name": f"{one.run.name}, {one.detail}",
        "checkpoint": one.checkpoint.file_name if one.checkpoint else None,
        "split": one.record.split,
    }


def category_id_of(services: Services, slug: str, name: str) -> int:
    """The class of a name, for a filter; raises NotFound."""
    with services.database(slug).read() as db:
        known = {item.name: item.id for item in categories.all_of(db)}
    if name not in known:
        raise NotFound(f"There is no class {name[:40]!r} in this project.", f"Its classes: {', '.join(known)}.")
    return known[name]


def audit_sets(
    services: Services,
    slug: str,
    set_ids: Sequence[int],
    chosen: AuditFilter | None = None,
    *,
    after: str = "",
    limit: int = 100,
) -> dict[str, Any]:
    """A page of suspects, the surest first, from the predictions of one set or of several.

    With several, each image is judged by the first set whose run did not train on it, where there is one: give the sets
    of a cross-validation, and every image is judged out of sample. Suspects that were ignored are left out.

    suspects: key, kind (one of KINDS), image (id, file_name, width, height, sha256, rotation, split), image_id and
    file_name again, annotation_id, labeled, labeled_id and label_box (None for a missing box), box (predicted; xyxy
    pixels), predicted, predicted_id, score, iou, nearby (labeled boxes around: x1, y1, x2, y2, category id), in_sample
    (whether the model was trained on the image) and set. counts: suspects by kind, whatever kind was asked for; images,
    in_sample: how many images were judged, and how many of them in sample; skipped: images that were deleted or turned
    since; ignored: how many suspects of these images are, ignored_in_project: how many are in all. total and left: how
    many there are, and come after this page. ``next``, the key of its last one, is the ``after`` of the following page,
    however many of it are mended meanwhile; None at the end. Raises NotFound, BadRequest.
    """
    chosen = chosen or AuditFilter()
    if not 1 <= limit <= MAX_PAGE:
        raise BadRequest(f"A page has 1 to {MAX_PAGE} entries; got {limit}.")
    found, min_score = _open(services, slug, set_ids, chosen)
    is_ignored, num_ignored = _find_ignored(services, slug, found)
    is_meant = ~is_ignored & _has_class(found, chosen.category_id)
    counts = {kind: int((is_meant & (found.suspects.kind == number)).sum()) for number, kind in enumerate(KINDS)}
    if chosen.kind is not None:
        is_meant &= found.suspects.kind == KINDS.index(chosen.kind)
    total = int(is_meant.sum())
    if after:
        is_meant &= found.is_behind(found.row_of(after))
    rows = np.flatnonzero(is_meant)
    suspects = _describe(services, slug, found, rows[:limit])
    left = max(len(rows) - limit, 0)
    return {
        "min_score": min_score,
        "images": found.truth.num_images,
        "in_sample": int(found.is_seen.sum()),
        "skipped": found.skipped,
        "counts": counts,
        "ignored": int(is_ignored.sum()),
        "ignored_in_project": num_ignored,
        "suspects": suspects,
        "total": total,
        "left": left,
        "next": suspects[-1]["key"] if left else None,
    }


def open_suspect(
    services: Services, slug: str, set_ids: Sequence[int], key: str, chosen: AuditFilter | None = None
) -> dict[str, Any]:
    """One suspect of an audit by its key, None when the labels agree by now or it was ignored; and the one behind it.

    ``next`` is the following suspect of the filter, None at the end. Raises NotFound, BadRequest.
    """
    chosen = chosen or AuditFilter()
    found, _ = _open(services, slug, set_ids, chosen)
    detection = found.row_of(key)
    is_meant = ~_find_ignored(services, slug, found)[0]
    here = np.flatnonzero(is_meant & (found.suspects.detection == detection))
    is_meant &= found.is_behind(detection) & _has_class(found, chosen.category_id)
    if chosen.kind is not None:
        is_meant &= found.suspects.kind == KINDS.index(chosen.kind)
    behind = np.flatnonzero(is_meant)
    described = _describe(services, slug, found, [*here[:1], *behind[:1]])
    return {
        "suspect": described[0] if len(here) else None,
        "next": described[-1] if len(behind) else None,
        "left": len(behind),
    }


def judge_again(services: Services, slug: str, set_ids: Sequence[int]) -> dict[str, Any]:
    """What the predictions are worth against the labels as they are now, beside those that the runs began with.

    before and after: map50 and f1 (-1 without a labeled box); images: how many were judged; changed: how many of them
    have other boxes or classes now. Both are over the same images, those that are still what was predicted. A class
    that came since counts as one that the model does not find. Raises NotFound, BadRequest.
    """
    labels = AuditedLabels.read(services, slug, set_ids)
    before, after = (evaluate_columns(truth, labels.detections) for truth in (labels.frozen, labels.now))
    return {
        "before": {name: getattr(before, name) for name in FIGURES},
        "after": {name: getattr(after, name) for name in FIGURES},
        "images": labels.now.num_images,
        "changed": _count_changed(labels),
    }


def ignore(
    services: Services,
    slug: str,
    *,
    image_id: int,
    kind: str,
    predicted_id: int,
    labeled_id: int | None,
    box: Sequence[float],
    score: float,
) -> dict[str, Any]:
    """Remember that a suspect is none, so that it does not come back, from a later model either.

    It is the same suspect when a model predicts the same class with an IoU of SAME_SUSPECT_IOU or more, and disagrees
    in the same way with a label of the same class. Returns it as :func:`list_ignored` does.

    Raises NotFound, BadRequest.
    """
    if kind not in KINDS:
        raise BadRequest(f"A kind of suspect is one of {', '.join(KINDS)}; got {kind!r}.")
    if not all(math.isfinite(value) for value in box) or not (box[2] > box[0] and box[3] > box[1]):
        raise BadRequest(f"The box of a suspect must have an area, got {list(box)}.")
    database = services.database(slug)
    with database.write() as db:
        images.get(db, image_id)
        for category_id in (predicted_id, labeled_id):
            if category_id is not None:
                categories.get(db, category_id)
        row = ignored_suspects.insert(
            db,
            image_id=image_id,
            kind=kind,
            predicted_id=predicted_id,
            labeled_id=labeled_id,
            bbox=box,
            score=score,
        )
    return _describe_ignored(database, [row])[0]


def take_back(services: Services, slug: str, ignored_id: int) -> None:
    """Let an ignored suspect come up again; raises NotFound."""
    with services.database(slug).write() as db:
        ignored_suspects.remove(db, ignored_id)


def list_ignored(services: Services, slug: str, after: int | None = None, limit: int = 100) -> dict[str, Any]:
    """A page of ignored suspects, newest first: id, kind, image, box, predicted, labeled, their ids, score, created_at.

    ``total`` of them; ``left`` come after this page; ``next`` is the ``after`` of the following one, or None.
    """
    database = services.database(slug)
    with database.read() as db:
        rows = ignored_suspects.page(db, before=after, limit=min(max(limit, 1), MAX_PAGE))
        total = ignored_suspects.count(db)
        left = len(ignored_suspects.page(db, before=rows[-1].id, limit=-1)) if rows else 0
    return {
        "suspects": _describe_ignored(database, rows),
        "total": total,
        "left": left,
        "next": rows[-1].id if left else None,
    }


def _open(services: Services, slug: str, set_ids: Sequence[int], chosen: AuditFilter) -> tuple[Audit, float]:
    """The audit that a filter asks for, and the smallest score."""
    if not set_ids:
        raise BadRequest("An audit needs predictions.", "Name a set of them.")
    if chosen.kind is not None and chosen.kind not in KINDS:
        raise BadRequest(f"A kind of suspect is one of {', '.join(KINDS)}; got {chosen.kind!r}.")
    min_score = chosen.min_score
    if min_score is None:
        min_score = max(review.judge(services, slug, set_ids[0]).evaluation.f1_threshold, 0.0)
    if not 0 <= min_score <= 1:
        raise BadRequest(f"The smallest score must lie in 0..1, got {min_score}.")
    return audit(services, slug, set_ids, min_score), min_score


def _has_class(found: Audit, category_id: int | None) -> np.ndarray:
    """bool [S]: predicted as this class or labeled so; all without one."""
    suspects, ids = found.suspects, found.truth.categories.ids
    if category_id is None:
        return np.ones(len(suspects.kind), bool)
    label = ids.index(category_id) + 1 if category_id in ids else 0
    is_labeled = suspects.truth >= 0
    is_labeled[is_labeled] = found.truth.labels[suspects.truth[is_labeled]] == label
    return is_labeled | (found.detections.labels[suspects.detection] == label)


def _find_ignored(services: Services, slug: str, found: Audit) -> tuple[np.ndarray, int]:
    """bool [S]: which suspects are ignored ones, predicted then or again; and how many the project has."""
    with services.database(slug).read() as db:
        rows = ignored_suspects.all_of(db)
    by_image: dict[int, list[IgnoredSuspect]] = {}
    for row in rows:
        by_image.setdefault(row.image_id, []).append(row)
    is_ignored = np.zeros(len(found.suspects.kind), bool)
    image_ids = found.truth.image_ids[found.detections.image_index[found.suspects.detection]]
    for number in np.flatnonzero(np.isin(image_ids, list(by_image))).tolist():
        is_ignored[number] = _is_one_of(found, number, by_image[int(image_ids[number])])
    return is_ignored, len(rows)


def _is_one_of(found: Audit, number: int, rows: Iterable[IgnoredSuspect]) -> bool:
    suspects, names = found.suspects, found.truth.categories
    detection, truth = int(suspects.detection[number]), int(suspects.truth[number])
    labeled_id = names.id_of(int(found.truth.labels[truth])) if truth >= 0 else None
    what = (KINDS[suspects.kind[number]], names.id_of(int(found.detections.labels[detection])), labeled_id)
    same = [row.bbox for row in rows if (row.kind, row.predicted_id, row.labeled_id) == what]
    if not same:
        return False
    here = found.detections.boxes[[detection]].repeat(len(same), axis=0)
    return bool((box_ious(here, np.array(same), np.zeros(len(same), bool)) >= SAME_SUSPECT_IOU).any())


def _describe(services: Services, slug: str, found: Audit, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Suspects for a screen or a script."""
    at = found.detections.image_index[found.suspects.detection[list(numbers)]]
    with services.database(slug).read() as db:
        known = images.of_ids(db, found.truth.image_ids[np.unique(at)].tolist())
        names = {item.id: item.name for item in categories.all_of(db)}
    return [
        _describe_one(found, number, known[int(found.truth.image_ids[index])], names)
        for number, index in zip(numbers, at.tolist(), strict=True)
    ]


def _describe_one(found: Audit, number: int, image: Image, names: dict[int, str]) -> dict[str, Any]:
    detection, row = int(found.suspects.detection[number]), int(found.suspects.truth[number])
    index = int(found.detections.image_index[detection])
    ids = found.truth.categories
    predicted_id = ids.id_of(int(found.detections.labels[detection]))
    labeled_id = ids.id_of(int(found.truth.labels[row])) if row >= 0 else None
    return {
        "key": found.key_of(detection),
        "kind": KINDS[found.suspects.kind[number]],
        "image": _describe_image(image),
        "image_id": image.id,
        "file_name": image.file_name,
        "annotation_id": int(found.annotation_ids[row]) if row >= 0 else None,
        "label_box": found.truth.boxes[row].tolist() if row >= 0 else None,
        "box": found.detections.boxes[detection].tolist(),
        "score": float(found.detections.scores[detection]),
        "iou": float(found.suspects.iou[number]),
        "labeled": names.get(labeled_id) if labeled_id is not None else None,
        "labeled_id": labeled_id,
        "predicted": names.get(predicted_id, str(predicted_id)),
        "predicted_id": predicted_id,
        "nearby": _nearby(found, detection, row),
        "in_sample": bool(found.is_seen[index]),
        "set": int(found.set_ids[index]),
    }


def _nearby(found: Audit, detection: int, labeled: int) -> list[list[float]]:
    """Labeled boxes around a suspect, without the one it is about: x1, y1, x2, y2, category id."""
    index, truth = found.detections.image_index[detection], found.truth
    x1, y1, x2, y2 = found.detections.boxes[detection].tolist()
    margin = NEARBY_MARGIN * max(x2 - x1, y2 - y1)
    start, end = np.searchsorted(truth.image_index, [index, index + 1])
    boxes = truth.boxes[start:end]
    is_near = (boxes[:, 0] < x2 + margin) & (boxes[:, 2] > x1 - margin)
    is_near &= (boxes[:, 1] < y2 + margin) & (boxes[:, 3] > y1 - margin)
    rows = [row for row in (start + np.flatnonzero(is_near)).tolist() if row != labeled]
    return [[*truth.boxes[row].tolist(), truth.categories.id_of(int(truth.labels[row]))] for row in rows[:MAX_NEARBY]]


def _describe_image(image: Image) -> dict[str, Any]:
    return {
        name: getattr(image, name) for name in ("id", "file_name", "width", "height", "sha256", "rotation", "split")
    }


def _describe_ignored(database: ProjectDatabase, rows: Sequence[IgnoredSuspect]) -> list[dict[str, Any]]:
    with database.read() as db:
        known = images.of_ids(db, [row.image_id for row in rows])
        names = {item.id: item.name for item in categories.all_of(db)}
    return [
        {
            "id": row.id,
            "kind": row.kind,
            "image": _describe_image(known[row.image_id]),
            "box": list(row.bbox),
            "label_box": None,
            "nearby": [],
            "score": row.score,
            "predicted": names[row.predicted_id],
            "predicted_id": row.predicted_id,
            "labeled": names[row.labeled_id] if row.labeled_id is not None else None,
            "labeled_id": row.labeled_id,
            "created_at": row.created_at,
        }
        for row in rows
    ]


def _count_changed(labels: AuditedLabels) -> int:
    """Images whose boxes, classes or crowds are other ones now, in whatever order they are stored."""
    changed = 0
    for now, then in zip(_boxes_by_image(labels.now), _boxes_by_image(labels.frozen), strict=True):
        changed += not (now.shape == then.shape and np.allclose(_sorted(now), _sorted(then), rtol=0, atol=0.005))
    return changed


def _boxes_by_image(truth: GroundTruth) -> Iterator[np.ndarray]:
    """The boxes of each image with label and crowd, float64 [N, 6]."""
    ends = np.searchsorted(truth.image_index, np.arange(truth.num_images + 1)).tolist()
    for rows in map(slice, ends[:-1], ends[1:]):
        yield np.column_stack([truth.boxes[rows], truth.labels[rows], truth.is_crowd[rows]])


def _sorted(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(np.round(rows, 2).T[::-1])]
