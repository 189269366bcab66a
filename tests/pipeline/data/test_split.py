"""Splitting: copies of a source stay together, classes keep their shares, one seed gives one split."""

import random
from collections import Counter, defaultdict

import pytest

from app.pipeline.data.coco import ParsedAnnotation, ParsedImage
from app.pipeline.data.layout_names import source_key
from app.pipeline.data.split import SplitItem, fill_missing_splits, find_leaks, group_aware_split

FRACTIONS = {"train": 0.7, "valid": 0.2, "test": 0.1}
HEX = "6ded21509ae54a8ef114aa0c0f6c1b2d"
BASE62 = "aZ09bY18cX27dW36eV45"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"000793_jpg.rf.{HEX}.jpg", f"000793_jpg.rf.{'0' * 32}.jpg"),
        (f"img_png.rf.{BASE62}.jpg", f"img_png.rf.{HEX}.png"),
        (f"images/a_jpg.rf.{HEX}.jpg", f"a_jpg.rf.{BASE62}.jpg"),
    ],
)
def test_copies_of_a_source_share_its_key(one, other):
    assert source_key(one) == source_key(other)


def test_told_source_name_agrees_with_the_file_name():
    assert source_key("x.jpg", {"name": "a b.png"}) == source_key(f"a-b_png.rf.{HEX}.jpg")


@pytest.mark.parametrize("extra", [None, {}, {"name": ""}, {"name": 5}, {"user_tags": ["a"]}])
def test_unusable_extra_falls_back_to_the_name(extra):
    assert source_key(f"a_jpg.rf.{HEX}.jpg", extra) == "a-jpg"
    assert source_key("a.jpg", extra) == ""


@pytest.mark.parametrize(
    "name",
    ["000001.jpg", "train/000001.jpg", f"a.rf.{HEX[:31]}.jpg"],
    ids=["a number", "with a folder", "no suffix of the right length"],
)
def test_plain_name_tells_no_source(name):
    assert source_key(name) == ""


def make_items(num_sources=200, seed=0) -> list[SplitItem]:
    """Three copies of each source; class 3 is rare, a tenth is empty."""
    rng = random.Random(seed)
    items = []
    for n in range(num_sources):
        classes = set() if n % 10 == 0 else {1} if rng.random() < 0.7 else {1, 2}
        if n % 20 == 1:
            classes |= {3}
        items += [SplitItem(f"s{n}", frozenset(classes))] * 3
    rng.shuffle(items)
    return items


def test_copies_stay_together_and_shares_are_kept():
    items = make_items()
    splits = group_aware_split(items, FRACTIONS, seed=1)
    of_key = defaultdict(set)
    for item, split in zip(items, splits, strict=True):
        of_key[item.key].add(split)
    assert all(len(where) == 1 for where in of_key.values())
    shares = {name: count / len(items) for name, count in Counter(splits).items()}
    assert shares == pytest.approx(FRACTIONS, abs=0.03)


@pytest.mark.parametrize("category", [1, 2, 3, None])
def test_every_class_keeps_its_share(category):
    items = make_items()
    splits = group_aware_split(items, FRACTIONS, seed=1)
    has = [category in item.category_ids or (category is None and not item.category_ids) for item in items]
    counts = Counter(split for split, is_in in zip(splits, has, strict=True) if is_in)
    for name, share in FRACTIONS.items():
        assert counts[name] / sum(has) == pytest.approx(share, abs=0.06)


def test_one_seed_gives_one_split_and_order_does_not_matter():
    items = make_items()
    first = dict(zip((item.key for item in items), group_aware_split(items, FRACTIONS, seed=3), strict=True))
    items.reverse()
    again = dict(zip((item.key for item in items), group_aware_split(items, FRACTIONS, seed=3), strict=True))
    other = dict(zip((item.key for item in items), group_aware_split(items, FRACTIONS, seed=4), strict=True))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("num_sources", "expected"), [(0, set()), (1, {"train"}), (2, {"train", "valid"}), (3, {"train", "valid", "test"})]
)
def test_few_sources_fill_train_first(num_sources, expected):
    items = [SplitItem(str(n), frozenset({1})) for n in range(num_sources)]
    assert set(group_aware_split(items, FRACTIONS, seed=0)) == expected


def test_no_share_is_refused():
    with pytest.raises(ValueError, match="share above 0"):
        group_aware_split([], {"train": 0}, seed=0)


def test_keys_in_two_splits_are_found():
    pairs = [("a", "valid"), ("a", "train"), ("b", "train"), ("b", "train"), ("c", "test"), ("", "train"), ("", "test")]
    assert find_leaks(pairs) == {"a": ("train", "valid")}


def make_images(**splits: int) -> list[ParsedImage]:
    images = []
    for split, number in splits.items():
        for n in range(number):
            name = f"{split}{n}.png"
            box = ParsedAnnotation(None, 1, (0, 0, 5, 5), False, None, (0, 0, 5, 5))
            images.append(ParsedImage(name, name, "" if split == "none" else split, n, 64, 48, name, None, [box]))
    return images


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"none": 100}, {"train": 70, "valid": 20, "test": 10}),
        ({"train": 100}, {"train": 70, "valid": 20, "test": 10}),
        ({"train": 80, "test": 20}, {"train": 64, "valid": 16, "test": 20}),
        ({"train": 90, "valid": 10}, {"train": 90, "valid": 10}),
        ({"train": 80, "valid": 10, "test": 10}, {"train": 80, "valid": 10, "test": 10}),
        ({"test": 100}, {"train": 70, "valid": 20, "test": 10}),
        ({"valid": 50, "test": 10}, {"train": 40, "valid": 10, "test": 10}),
        ({"train": 80, "valid": 10, "none": 10}, {"train": 90, "valid": 10}),
    ],
)
def test_missing_splits_are_made(given, expected):
    images = make_images(**given)
    findings = fill_missing_splits(images)
    counts = Counter(image.split for image in images)
    assert set(counts) == set(expected)
    for name, number in expected.items():
        assert counts[name] == pytest.approx(number, abs=1)
    assert bool([f for f in findings if f.code == "splits_made"]) == (given.get("train", 0) != expected["train"] != 90)


def test_images_of_one_plain_name_are_no_group():
    images = make_images(none=10)
    for image in images:
        image.file_name, image.source_key = "000001.jpg", ""
    fill_missing_splits(images)
    assert Counter(image.split for image in images) == {"train": 7, "valid": 2, "test": 1}


def test_nothing_to_split_is_no_error():
    assert fill_missing_splits([]) == []


def plain(*names: str) -> list[ParsedImage]:
    """Unsplit images of plain names, or of the source that a name tells."""
    return [ParsedImage(name, name, "", n, 64, 48, source_key(name), None, []) for n, name in enumerate(names)]


def test_equal_pictures_under_other_names_get_one_split():
    """Ten pictures, each under three plain names; the first is also a copy of a source that has two more."""
    images = plain(*(f"{copy}-{number}.png" for number in range(10) for copy in range(3)))
    contents = [f"{number:064x}" for number in range(10) for _ in range(3)]
    images += plain(*(f"cat_jpg.rf.{HEX[:-1]}{digit}.jpg" for digit in range(3)))
    contents += [contents[0], "a" * 64, "b" * 64]
    fill_missing_splits(images, contents)
    assert {image.split for image in images} == {"train", "valid", "test"}
    assert find_leaks(zip(contents, (image.split for image in images), strict=True)) == {}
    assert len({image.split for image in [*images[:3], *images[-3:]]}) == 1


def test_different_pictures_are_divided_as_without_their_contents():
    names = [f"{number}.png" for number in range(40)]
    bare, hashed = plain(*names), plain(*names)
    fill_missing_splits(bare)
    fill_missing_splits(hashed, [f"{number:064x}" for number in range(40)])
    assert [image.split for image in hashed] == [image.split for image in bare]
