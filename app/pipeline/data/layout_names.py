"""What the names in an export tell: which split a file belongs to, which files are pictures,
which pictures are copies of one source."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}
PICTURE_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".mpo")
_OTHER_ENDINGS = (".json", ".txt", ".md", ".yaml", ".yml", ".xml", ".csv", ".html", ".pdf", ".py")

# Roboflow marks each exported copy with .rf.<suffix>: 32 hex digits, or since 2026 20 letters and digits.
_COPY_SUFFIX = re.compile(r"\.rf\.(?:[0-9a-fA-F]{32}|[0-9A-Za-z]{20})(?=\.[A-Za-z0-9]+$|$)")


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
        return sorted(name for name in names if name.lower().endswith(PICTURE_ENDINGS))
    return sorted(name for name in names if not name.lower().endswith(_OTHER_ENDINGS))


def source_key(file_name: str, extra: Mapping[str, Any] | None = None) -> str:
    """The key that augmented copies of one source image share; '' where nothing tells the source.

    A plain name tells nothing: numbered exports use 000001.jpg in every split, for other pictures. Told by
    ``extra["name"]`` where the export has it, else by the name without its ``.rf.<suffix>``. Both spell a source alike:
    ``a b.png`` and ``a-b_png.rf.<suffix>.jpg`` give one key.
    """
    told = extra.get("name") if extra else None
    if isinstance(told, str) and told.strip():
        return _spelled_alike(told)
    match = _COPY_SUFFIX.search(file_name)
    if match is None:
        return ""
    return _spelled_alike(file_name[: match.start()].replace("\\", "/").rsplit("/", 1)[-1])


def _spelled_alike(name: str) -> str:
    return re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", name)).strip("-").casefold() or name
