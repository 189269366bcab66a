"""What the names in an export tell: which split a file belongs to, which files are pictures."""

import re
from collections.abc import Iterable

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}
_PICTURE_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".mpo")
_OTHER_ENDINGS = (".json", ".txt", ".md", ".yaml", ".yml", ".xml", ".csv", ".html", ".pdf", ".py")


def split_of(name: str) -> str:
    """The split that a path tells: the nearest folder named for one, else a word of the JSON file's name, else ''."""
    *folders, file = name.lower().split("/")
    for folder in reversed(folders):
        if split := _SPLIT_NAMES.get(re.sub(r"[\d_\-. ]+$", "", folder)):
            return split
    if not file.endswith(".json"):
        return ""
    words = [word for word in re.split(r"[^a-z]+", file.removesuffix(".json")) if word]
    return next((_SPLIT_NAMES[word] for word in words if word in _SPLIT_NAMES), "")


def parent_of(name: str) -> str:
    """The folder part of a member name, '' at the root."""
    return name.rpartition("/")[0]


def image_members(names: Iterable[str], *, certain_only: bool = True) -> list[str]:
    """Member names that are pictures by their ending, sorted.

    With ``certain_only`` off also unknown endings: a listed image may be called anything, its bytes decide.
    """
    if certain_only:
        return sorted(name for name in names if name.lower().endswith(_PICTURE_ENDINGS))
    return sorted(name for name in names if not name.lower().endswith(_OTHER_ENDINGS))
