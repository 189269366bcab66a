"""Dividing images into train, valid and test: copies of one source stay together, classes keep their shares.

Imports no torch.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.pipeline.data.coco import ParsedImage
from app.pipeline.data.findings import Finding

SPLITS = ("train", "valid", "test")
DEFAULT_FRACTIONS = {"train": 0.7, "valid": 0.2, "test": 0.1}

_EMPTY = None  # the "class" of images without objects, so that they are spread evenly too


@dataclass(frozen=True, slots=True)
class SplitItem:
    """What splitting needs of an image: the key its copies share, and the classes in it."""

    key: str
    category_ids: frozenset[int]


def split_order(name: str) -> int:
    """Sort key: train, valid, test, then anything else."""
    return SPLITS.index(name) if name in SPLITS else len(SPLITS)


def group_aware_split(items: Sequence[SplitItem], fractions: Mapping[str, float], seed: int) -> list[str]:
    """A split name for each item, in order; items of one key always get one split. The same seed gives the same split.

    Iterative stratification (Sechidis et al. 2011, "On the Stratification of Multi-Label Data") over groups: the
    rarest class first, each group to the split that still lacks most of that class. Every split with a share gets a
    group as long as there are enough. Raises ValueError when no share is positive.
    """
    shares = {name: share for name, share in fractions.items() if share > 0}
    if not shares:
        raise ValueError(f"at least one split must have a share above 0, got {dict(fractions)}")
    groups: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        groups[item.key].append(index)
    keys = sorted(groups)
    random.Random(seed).shuffle(keys)
    contents = {key: _count_classes(items, groups[key]) for key in keys}
    chosen = _stratify(keys, contents, {key: len(groups[key]) for key in keys}, shares)
    _fill_empty_splits(chosen, {key: len(groups[key]) for key in keys}, shares)
    return [chosen[item.key] for item in items]


def find_leaks(pairs: Iterable[tuple[Hashable, str]]) -> dict[Any, tuple[str, ...]]:
    """Keys (of sources or of contents) that lie in more than one split, with those splits in order; '' is no key."""
    where: dict[Hashable, set[str]] = defaultdict(set)
    for key, split in pairs:
        if key != "":
            where[key].add(split)
    return {key: tuple(sorted(splits, key=split_order)) for key, splits in where.items() if len(splits) > 1}


def fill_missing_splits(
    images: Sequence[ParsedImage], contents: Sequence[str] = (), seed: int = 42, *, is_own: bool = False
) -> list[Finding]:
    """Give images a split where the export lacks one, in place; returns what was done as findings.

    Images of unknown split join train first. No valid split: one is cut out of train (with a test split, where that
    is missing too). No train split: everything but test is divided anew. A missing test split alone is left so.
    ``contents``: a hash of each picture, or nothing; equal ones get one split, whatever they are called. ``is_own``: we
    exported them, so that the splits are those the user wants, even if all is train.
    """
    if not images:
        return []
    had = {image.split for image in images if image.split}
    for image in images:
        image.split = image.split or "train"
    if is_own:
        return []
    present = {image.split for image in images}
    if {"train", "valid"} <= present:
        return [] if "test" in present else [Finding("note", "no_test", "the export has no test split; none was made")]
    groups = _groups_of(images, contents)
    chosen = [number for number, image in enumerate(images) if image.split != "test"] or list(range(len(images)))
    pool = [images[number] for number in chosen]
    keeps_test = "test" in present and len(pool) < len(images)
    fractions = {"train": 0.8, "valid": 0.2} if keeps_test else DEFAULT_FRACTIONS
    items = [
        SplitItem(groups[number], frozenset(a.category_id for a in images[number].annotations)) for number in chosen
    ]
    for image, split in zip(pool, group_aware_split(items, fractions, seed), strict=True):
        image.split = split
    counts = Counter(image.split for image in images)
    made = ", ".join(f"{name} {counts[name]}" for name in SPLITS if counts[name])
    found = f"only {', '.join(sorted(had, key=split_order))}" if had else "no splits"
    message = f"the export had {found}; images were divided by source and class: {made}"
    return [Finding("note", "splits_made", message, count=len(pool))]


def _groups_of(images: Sequence[ParsedImage], contents: Sequence[str]) -> list[str]:
    """A key for each image that those of its source share, those of its picture, theirs, and so on.

    It is that of the group's first image, so that a split without equal pictures goes by sources alone.
    """
    own = [image.source_key or f"{number}/{image.file_name}" for number, image in enumerate(images)]
    leader: dict[str, str] = {}

    def find(key: str) -> str:
        while (above := leader.get(key, key)) != key:
            key = above
        return key

    first_with: dict[str, str] = {}
    for key, content in zip(own, contents, strict=False):
        earlier, later = find(first_with.setdefault(content, key)), find(key)
        if earlier != later:
            leader[later] = earlier
    return [find(key) for key in own]


def _count_classes(items: Sequence[SplitItem], indices: Iterable[int]) -> Counter:
    """In how many of the items each class occurs."""
    return Counter(category for index in indices for category in items[index].category_ids or {_EMPTY})


def _stratify(
    keys: Sequence[str], contents: Mapping[str, Counter], sizes: Mapping[str, int], shares: Mapping[str, float]
) -> dict[str, str]:
    total = sum(shares.values())
    num_images = sum(sizes.values())
    totals = sum(contents.values(), Counter())
    wanted = {name: {c: n * share / total for c, n in totals.items()} for name, share in shares.items()}
    room = {name: num_images * share / total for name, share in shares.items()}
    of_class: dict[Any, list[str]] = defaultdict(list)
    for key in keys:
        for category in contents[key]:
            of_class[category].append(key)
    chosen: dict[str, str] = {}
    for category in sorted(totals, key=lambda c: (len(of_class[c]), c is _EMPTY, c or 0)):
        # Large groups first: they are the hardest to place well.
        for key in sorted(of_class[category], key=lambda key: -sizes[key]):
            if key in chosen:
                continue
            split = max(shares, key=lambda name: (wanted[name][category], room[name]))
            chosen[key] = split
            room[split] -= sizes[key]
            for other, count in contents[key].items():
                wanted[split][other] -= count
    return chosen


def _fill_empty_splits(chosen: dict[str, str], sizes: Mapping[str, int], shares: Mapping[str, float]) -> None:
    """Move the smallest group of the fullest split to each split that got none, while that leaves no split empty."""
    for name in shares:
        counts = Counter(chosen.values())
        donor, num_groups = counts.most_common(1)[0] if counts else ("", 0)
        if counts[name] == 0 and num_groups > 1:
            key = min((key for key, split in chosen.items() if split == donor), key=lambda key: sizes[key])
            chosen[key] = name
