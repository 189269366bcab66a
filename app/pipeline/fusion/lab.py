"""The ensemble lab: methods tuned on one half of the images and judged on the other, and what each member is good for.

Nothing that was chosen is judged where it was chosen: weights, IoU, skip threshold, score threshold, the best method
and the smallest subset come from the tuning half; the figures that count are those of the judging half. Imports no
torch.

Legend: T members; a half is a part of the images with their labels and every member's detections on them.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from app.pipeline.data.categories import CategoryMap
from app.pipeline.data.snapshot import Sample
from app.pipeline.data.split import SplitItem, group_aware_split
from app.pipeline.ensemble import METHODS, FusionOptions, fuse_columns
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.selection import selection_score
from app.pipeline.fusion.columns import Columns, MemberColumns
from app.pipeline.fusion.judging import Figures, Judge
from app.pipeline.fusion.tune import tune
from app.pipeline.types import Detections

NEAR_BEST = 0.002  # of mAP, 0.2 points of 100: a smaller ensemble may be that much worse than the best
MOST_FOR_ALL_SUBSETS = 6  # members; beyond, subsets are found by leaving out one after the other
TIMED_ROUNDS = 3
IMAGES_AT_ONCE = 200
_UNFUSED = FusionOptions()  # of a member alone, whose detections stand as they are

Tick = Callable[[str], None]
Read = Callable[[Sequence[int]], Mapping[int, Detections]]


@dataclass(frozen=True, eq=False)
class Half:
    """Images with labels, and the members' detections on them as fusing wants them.

    ``read``, of each member: its detections on images, by id. Those of a member as they are, are read when it is judged
    alone: kept for all of them they would be more than half of the memory.
    """

    truth: GroundTruth
    judge: Judge
    columns: MemberColumns
    read: tuple[Read, ...]

    @classmethod
    def of(cls, samples: Sequence[Sample], categories: CategoryMap, read: Sequence[Read]) -> "Half":
        """From the samples of this half; some hundred images are read at a time."""
        truth = GroundTruth.from_samples(samples, categories)
        parts = []
        for start in range(0, len(samples), IMAGES_AT_ONCE):
            piece = samples[start : start + IMAGES_AT_ONCE]
            ids = [sample.image_id for sample in piece]
            parts.append(MemberColumns.from_detections([one(ids) for one in read], piece))
        return cls(truth, Judge(truth), MemberColumns.joined(parts), tuple(read))

    def of_member(self, index: int) -> DetectionColumns:
        """The detections of one member as they are."""
        return DetectionColumns.from_detections(self.truth, self.read[index](self.truth.image_ids.tolist()))

    def figures_of(self, chosen: Sequence[int], options: FusionOptions, threshold: float | None = None) -> Figures:
        """Figures of :meth:`fused`."""
        return self.judge.judge(self.fused(chosen, options), threshold)

    def seconds_to_fuse(self, options: FusionOptions) -> float:
        """Of an image: the quickest of a few rounds, since anything else on the machine only adds."""
        rounds = []
        for _ in range(TIMED_ROUNDS):
            began = time.perf_counter()
            fuse_columns(self.columns, options)
            rounds.append(time.perf_counter() - began)
        return min(rounds) / self.columns.num_images

    def fused(self, chosen: Sequence[int], options: FusionOptions) -> DetectionColumns:
        """Some members fused, as they would be stored; of one member, its own detections as they are."""
        if len(chosen) == 1:
            return self.of_member(chosen[0])
        columns = self.columns if len(chosen) == self.columns.num_members else self.columns.of_members(chosen)
        weights = tuple(options.weights[index] for index in chosen) if options.weights else ()
        return _as_stored(fuse_columns(columns, options.model_copy(update={"weights": weights})))


def _as_stored(fused: Columns) -> DetectionColumns:
    return DetectionColumns(
        fused.image_index,
        fused.to_pixels().astype(np.float64),
        np.clip(fused.scores, 0, 1).astype(np.float32).astype(np.float64),
        fused.labels.astype(np.int64),
    )


def split_in_halves(samples: Sequence[Sample], sources: Mapping[int, str], seed: int) -> np.ndarray:
    """Which samples are for tuning, bool [I]; the others judge. Images of one source stay together.

    sources: image id to the key of its source; an image without one, or with "", is a source of its own. Classes are
    spread as evenly as the sources allow; the same seed gives the same halves.
    """
    items = [
        SplitItem(sources.get(sample.image_id) or f"{sample.image_id}/", frozenset(sample.labels.tolist()))
        for sample in samples
    ]
    return np.array([name == "tune" for name in group_aware_split(items, {"tune": 0.5, "judge": 0.5}, seed)])


def run_lab(
    views: Sequence[str],
    open_halves: Callable[[str], tuple[Half, Half]],
    metric: str,
    methods: Sequence[str] = METHODS,
    tick: Tick = lambda message: None,
    on_resampled: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Tune and judge every method with each of ``views``, and take the best ensemble apart.

    open_halves: gives the halves (for tuning, for judging) of the same members as they predict with some views; only
    those of one are in memory. ``tick`` is called before each trial with the name of its method, ``on_resampled`` while
    the noise is measured, with how many resamples of how many are done.

    ``alone``: views, member, ``tuned`` and ``judged`` (Figures as dicts with ``score``, by the selection ``metric``).
    ``methods``: views, method, options, ``plain`` (judged with the options as they come), tuned, judged, fuse_ms (an
    image). ``best``: index in ``methods``, the best on the tuning half. ``contributions``: of each member, the judged
    figures of the best method without it (``without``), what it brings (``score`` and ``map``, the whole less that),
    and the ``noise`` of that score.
    ``smallest``: the fewest members whose mAP on the tuning half is within NEAR_BEST of the best subset's: ``members``
    (indices), tuned, judged, and ``num_tried``. Judged F1 uses the score threshold of the tuning half.
    ``best_alone``: index in ``alone``, the best on the tuning half. ``noise``: the judged score of ``best`` less that
    of ``best_alone``. Each ``noise`` is what Difference.to_json gives.
    """
    alone: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for name in views:
        measure = _Measure(*open_halves(name), metric, tick)
        alone += [{"views": name, "member": index, **measure.both([index], _UNFUSED)} for index in measure.everyone]
        rows += [{"views": name, **measure.method(method)} for method in methods]
    best = max(range(len(rows)), key=lambda index: rows[index]["tuned"]["score"])
    if rows[best]["views"] != views[-1]:
        measure = _Measure(*open_halves(rows[best]["views"]), metric, tick)
    options = FusionOptions.model_validate(rows[best]["options"])
    found = {
        "alone": alone,
        "methods": rows,
        "best": best,
        "contributions": measure.contributions(options, rows[best]["judged"]),
        "smallest": measure.smallest(options),
    }
    best_alone = max(range(len(alone)), key=lambda index: alone[index]["tuned"]["score"])
    row = alone[best_alone]
    judging, fused = measure.judging, measure.judging.fused(measure.everyone, options)
    num_parts = len(measure.everyone) + 1

    def hear_of(part: int) -> Callable[[int, int], None]:
        return lambda done, total: on_resampled(part * total + done, num_parts * total)

    for left_out, brought in enumerate(found["contributions"]):
        others = judging.fused([index for index in measure.everyone if index != left_out], options)
        thresholds = (brought["without"]["threshold"], rows[best]["judged"]["threshold"])
        brought["noise"] = _measure_noise(judging.truth, (others, fused), thresholds, metric, hear_of(left_out))
    if row["views"] != rows[best]["views"]:
        del measure, judging
        judging = open_halves(row["views"])[1]
    two = (judging.of_member(row["member"]), fused)
    thresholds = (row["judged"]["threshold"], rows[best]["judged"]["threshold"])
    noise = _measure_noise(judging.truth, two, thresholds, metric, hear_of(num_parts - 1))
    return {**found, "best_alone": best_alone, "noise": noise}


def _measure_noise(
    truth: GroundTruth,
    two: tuple[DetectionColumns, DetectionColumns],
    thresholds: tuple[float, float],
    metric: str,
    on_progress: Callable[[int, int], None],
) -> dict[str, Any]:
    from app.pipeline.evaluate.bootstrap import compare_sets  # loads numba

    return compare_sets(truth, *two, on_progress=on_progress, thresholds=thresholds).figures[metric].to_json()


@dataclass(frozen=True)
class _Measure:
    """Trials on both halves."""

    tuning: Half
    judging: Half
    metric: str
    tick: Tick

    @property
    def everyone(self) -> range:
        """The members by number."""
        return range(self.tuning.columns.num_members)

    def both(self, chosen: Sequence[int], options: FusionOptions) -> dict[str, Any]:
        """``tuned`` and ``judged`` figures of some members fused."""
        tuned = self._try(self.tuning, chosen, options)
        judged = self._try(self.judging, chosen, options, tuned.threshold)
        return {"tuned": self._as_dict(tuned), "judged": self._as_dict(judged)}

    def method(self, method: str) -> dict[str, Any]:
        plain, everyone = FusionOptions(method=method), self.everyone

        def score(options: FusionOptions) -> float:
            return self._score(self._try(self.tuning, everyone, options))

        options = tune(plain, len(everyone), score)
        return {
            "method": method,
            "options": options.model_dump(mode="json"),
            "plain": self.both(everyone, plain)["judged"],
            **self.both(everyone, options),
            "fuse_ms": 1000 * self.judging.seconds_to_fuse(options),
        }

    def contributions(self, options: FusionOptions, whole: Mapping[str, float]) -> list[dict[str, Any]]:
        rows = []
        for left_out in self.everyone:
            others = [index for index in self.everyone if index != left_out]
            without = self.both(others, options)["judged"]
            rows.append({"without": without, **{name: whole[name] - without[name] for name in ("score", "map")}})
        return rows

    def smallest(self, options: FusionOptions) -> dict[str, Any]:
        tried = {chosen: self._try(self.tuning, chosen, options).map for chosen in self._subsets(options)}
        enough = max(tried.values()) - NEAR_BEST
        chosen = min((item for item in tried if tried[item] >= enough), key=lambda item: (len(item), -tried[item]))
        return {"members": list(chosen), "num_tried": len(tried), **self.both(chosen, options)}

    def _subsets(self, options: FusionOptions) -> Iterable[tuple[int, ...]]:
        """All of them; of many members, those left when the most dispensable one leaves each time."""
        everyone = self.everyone
        if len(everyone) <= MOST_FOR_ALL_SUBSETS:
            for size in range(1, len(everyone) + 1):
                yield from combinations(everyone, size)
            return
        left = tuple(everyone)
        yield left
        while len(left) > 1:
            fewer = [tuple(index for index in left if index != out) for out in left]
            left = max(fewer, key=lambda chosen: self._try(self.tuning, chosen, options).map)
            yield left

    def _try(
        self, half: Half, chosen: Sequence[int], options: FusionOptions, threshold: float | None = None
    ) -> Figures:
        self.tick(options.method)
        return half.figures_of(chosen, options, threshold)

    def _score(self, figures: Figures) -> float:
        return selection_score(self.metric, asdict(figures))

    def _as_dict(self, figures: Figures) -> dict[str, float]:
        return {**asdict(figures), "score": self._score(figures)}
