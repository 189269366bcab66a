"""Reading one COCO document, tolerant of what real exports hold; every repair and every loss becomes a finding.

Boxes are xywh here: they come out as xyxy float pixels, not yet clipped (the true size of an image is known only when
its file is read, see ``fit``), nor judged (that takes the whole export, see ``box_frame``). Imports no torch.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from app.pipeline.data.findings import ExportRefused, Finding, FindingLog
from app.pipeline.data.json_file import collector_paused, load_json
from app.pipeline.data.layout_names import source_key
from app.pipeline.data.source import has_unsafe_parts

MAX_NAME_LENGTH = 200
MAX_EXTRA_DEPTH = 20
MAX_ID = 2**53  # larger integers do not survive JavaScript

OWN_MARK = "anchorage_labels"  # true in the ``info`` of labels we exported: their classes and splits are all meant

_NUMBERS = frozenset((int, float))  # exact types: true and false are no numbers
_READABLE = frozenset((int, float, str))

Box = tuple[float, float, float, float]
Key = int | str


@dataclass(slots=True)
class ParsedAnnotation:
    """A box as read. ``bbox`` is xyxy, unclipped; ``source_bbox_xywh`` holds the four numbers of the file."""

    coco_id: int | None
    category_id: int
    bbox: Box
    is_crowd: bool
    segmentation: Any
    source_bbox_xywh: Box


@dataclass(slots=True)
class ParsedImage:
    """An image as listed. ``member`` is its file in the source, ``width`` and ``height`` the declared ones, if any.

    ``source_key`` is shared by the copies of one source image, '' where the source is not known.
    """

    file_name: str
    member: str | None
    split: str
    coco_id: int
    width: int | None
    height: int | None
    source_key: str
    extra: dict[str, Any] | None = None
    annotations: list[ParsedAnnotation] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ParsedCategory:
    """A class as listed."""

    id: int
    name: str
    supercategory: str


@dataclass(frozen=True, slots=True)
class ParsedCoco:
    """One document. ``used_category_ids`` are those that any annotation names, kept or not.

    ``is_own``: we exported it, so nothing in it is a guess of another tool's that the import should second-guess.
    """

    label: str
    images: list[ParsedImage]
    categories: list[ParsedCategory]
    used_category_ids: frozenset[int]
    findings: list[Finding]
    is_own: bool = False


def xywh_to_xyxy(bbox_xywh: Box) -> Box:
    """Corner, width and height to two corners."""
    x, y, width, height = bbox_xywh
    return x, y, x + width, y + height


def xyxy_to_xywh(bbox: Box) -> Box:
    """Two corners to corner, width and height."""
    x1, y1, x2, y2 = bbox
    return x1, y1, x2 - x1, y2 - y1


def looks_like_coco(document: Any) -> bool:
    """Whether a parsed JSON file is a COCO file of boxes (not captions, results or a tool's settings)."""
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        return False
    return isinstance(document.get("categories"), list) or isinstance(document.get("annotations"), list)


def parse_coco(data: bytes, label: str) -> ParsedCoco:
    """Read a COCO document; ``label`` names it in messages.

    Raises ExportRefused when it cannot be read unambiguously: broken JSON, no object at the top, an image id twice, a
    category id with two names.
    """
    with collector_paused():
        document, findings = load_json(data, label)
        return parse_document(document, label, findings)


def parse_document(document: Any, label: str, findings: list[Finding] | None = None) -> ParsedCoco:
    """As :func:`parse_coco`, from JSON that was loaded already."""
    if not isinstance(document, dict):
        raise ExportRefused(
            f"{label}: the top level must be an object with images, annotations and categories, "
            f"found {_type_name(document)}.",
            "Export the dataset as COCO.",
        )
    log = FindingLog()
    categories, category_ids = _parse_categories(_list_of(document, "categories", label), label, log)
    images, skipped = _parse_images(_list_of(document, "images", label), label, log)
    rows = _list_of(document, "annotations", label)
    used = _parse_annotations(rows, images, skipped, category_ids, label, log)
    info = document.get("info")
    is_own = isinstance(info, dict) and info.get(OWN_MARK) is True
    return ParsedCoco(
        label, list(images.values()), categories, frozenset(used), [*(findings or []), *log.all()], is_own
    )


def _parse_categories(rows: list[Any], label: str, log: FindingLog) -> tuple[list[ParsedCategory], dict[Key, int]]:
    """The classes, and the id each is kept under (ids that are no whole numbers from 0 get a free one)."""
    keys = [_key(row.get("id")) if isinstance(row, dict) else None for row in rows]
    free = max([key for key in keys if isinstance(key, int) and 0 <= key < MAX_ID], default=0)
    categories: dict[int, ParsedCategory] = {}
    ids: dict[Key, int] = {}
    for row, key in zip(rows, keys, strict=True):
        if key is None:
            log.add("skipped", "bad_category", f"a category without a usable id: {_shown(row)}", where=label)
            continue
        if isinstance(key, int) and 0 <= key < MAX_ID:
            category_id = key
        else:
            free += 1
            category_id = ids.get(key, free)
            log.add("fixed", "category_id", f"category id {key!r} became {category_id}", where=label)
        name = _category_name(row.get("name"), category_id, label, log)
        supercategory = row.get("supercategory")
        category = ParsedCategory(category_id, name, supercategory if isinstance(supercategory, str) else "")
        known = categories.get(category_id)
        if known is not None and known.name != name:
            raise ExportRefused(
                f"{label}: category id {category_id} stands for both {known.name!r} and {name!r}.",
                "Give each class its own id and import again.",
            )
        if known is not None:
            log.add("fixed", "category_twice", f"category {name!r} was listed twice", where=label)
        categories[category_id], ids[key] = category, category_id
    return list(categories.values()), ids


def _category_name(value: Any, category_id: int, label: str, log: FindingLog) -> str:
    """A printable name without surrounding blanks; it is text everywhere, whatever it looks like."""
    given = value if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""
    name = "".join(letter for letter in given if letter.isprintable()).strip()
    if not name:
        log.add("fixed", "category_name", f"category {category_id} had no name", where=label)
        return f"class {category_id}"
    if len(name) > MAX_NAME_LENGTH:
        log.add("fixed", "category_name", f"the name of category {category_id} was cut to 200 letters", where=label)
    elif name != given:
        log.add("fixed", "category_name", f"the name of category {category_id} was tidied to {name!r}", where=label)
    return name[:MAX_NAME_LENGTH]


def _parse_images(rows: list[Any], label: str, log: FindingLog) -> tuple[dict[Key, ParsedImage], set[Key]]:
    """Images by the key annotations name them with, and the keys of images that were left out."""
    keys = [_key(row.get("id")) if isinstance(row, dict) else None for row in rows]
    free = max([key for key in keys if isinstance(key, int)], default=-1)
    images: dict[Key, ParsedImage] = {}
    skipped: set[Key] = set()
    for row, key in zip(rows, keys, strict=True):
        if key is None:
            log.add("skipped", "bad_image_entry", f"an image entry without a usable id: {_shown(row)}", where=label)
            continue
        if key in images or key in skipped:
            raise ExportRefused(
                f"{label}: image id {key!r} is used twice.", "Boxes cannot be told apart; export the dataset again."
            )
        problem = _name_problem(row.get("file_name"))
        if problem:
            log.add("skipped", "file_name", f"image {key!r}: {problem}", where=label)
            skipped.add(key)
            continue
        coco_id = key if isinstance(key, int) else (free := free + 1)
        if not isinstance(row["id"], int):
            log.add("fixed", "image_id", f"image id {_shown(row['id'])} became {coco_id}", where=label)
        extra = _read_extra(row, log)
        name = row["file_name"]
        sides = _side(row.get("width")), _side(row.get("height"))
        images[key] = ParsedImage(name, None, "", coco_id, *sides, source_key(name, extra), extra)
    return images, skipped


def _name_problem(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        return f"file_name must be a text, found {_shown(name)}"
    return f"file_name {name[:200]!r} points outside the export" if has_unsafe_parts(name) else ""


def _parse_annotations(
    rows: list[Any],
    images: dict[Key, ParsedImage],
    skipped: set[Key],
    category_ids: dict[Key, int],
    label: str,
    log: FindingLog,
) -> set[int]:
    """Append the usable boxes to their images; returns the ids of all categories that any row names."""
    used: set[int] = set()
    seen: set[int] = set()
    num_repeated = 0
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            log.add("skipped", "bad_annotation", f"annotation number {position} is no object", where=label)
            continue
        category_id = category_ids.get(_key(row.get("category_id")))
        if category_id is not None:
            used.add(category_id)
        image_key = _key(row.get("image_id"))
        image = images.get(image_key)
        if image is None:
            code = "of_skipped_image" if image_key in skipped else "unknown_image"
            message = f"{_name_of(row, position)} belongs to image {_shown(row.get('image_id'))}, which is not there"
            log.add("skipped", code, message, where=label)
            continue
        if category_id is None:
            message = f"{_name_of(row, position)} has category {_shown(row.get('category_id'))}, which is not listed"
            log.add("skipped", "unknown_category", message, where=image.file_name)
            continue
        bbox_xywh = _read_bbox(row, position, image.file_name, log)
        if bbox_xywh is None:
            continue
        coco_id = _key(row.get("id"))
        if not isinstance(coco_id, int) or coco_id in seen:
            coco_id, num_repeated = None, num_repeated + 1
        else:
            seen.add(coco_id)
        is_crowd = _is_set(row.get("iscrowd", row.get("is_crowd", 0)))
        segmentation = _read_segmentation(row, position, image.file_name, log)
        image.annotations.append(
            ParsedAnnotation(coco_id, category_id, xywh_to_xyxy(bbox_xywh), is_crowd, segmentation, bbox_xywh)
        )
    if num_repeated:
        message = "annotations without an id of their own; they get one on export"
        log.add("fixed", "annotation_id", message, where=label, count=num_repeated)
    return used


def _read_bbox(row: dict[str, Any], position: int, where: str, log: FindingLog) -> Box | None:
    """The four finite numbers of a box with positive sides, or None with a finding."""
    value = row.get("bbox")
    if type(value) is list and len(value) == 4 and _NUMBERS.issuperset(map(type, value)):
        x, y, width, height = map(float, value)
        if width > 0 and height > 0 and math.isfinite(x + width) and math.isfinite(y + height):
            return x, y, width, height  # nearly every box of nearly every file: the rest below costs three times more
    name = _name_of(row, position)
    if "bbox" not in row and (value := _box_of_polygons(row.get("segmentation"))) is not None:
        log.add("fixed", "bbox_from_polygon", f"{name} had no bbox; it was taken from its polygon", where=where)
    if not isinstance(value, list | tuple) or len(value) != 4:
        log.add("skipped", "bbox", f"{name}: bbox must be four numbers, found {_shown(value)}", where=where)
        return None
    numbers = [_number(item) for item in value]
    if None in numbers or not math.isfinite(numbers[0] + numbers[2]) or not math.isfinite(numbers[1] + numbers[3]):
        log.add("skipped", "bbox", f"{name}: bbox must be four finite numbers, found {_shown(value)}", where=where)
        return None
    if any(isinstance(item, str) for item in value):
        log.add("fixed", "bbox_text", f"{name}: numbers written as text were read as numbers", where=where)
    if numbers[2] <= 0 or numbers[3] <= 0:
        message = f"{name}: width and height must be above 0, found {numbers[2]:g} x {numbers[3]:g}"
        log.add("skipped", "degenerate", message, where=where)
        return None
    return tuple(numbers)


def _name_of(row: dict[str, Any], position: int) -> str:
    return f"annotation {_shown(row['id']) if 'id' in row else f'number {position}'}"


def _shown(value: Any) -> str:
    """The beginning of a value, for messages; whatever it holds."""
    try:
        return repr(value)[:80]
    except RecursionError:
        return "lists in lists, too deep to show"


def _is_set(value: Any) -> bool:
    return value is True or _number(value) == 1


def _box_of_polygons(segmentation: Any) -> list[float] | None:
    if not isinstance(segmentation, list):
        return None
    numbers = [_number(item) for part in segmentation if isinstance(part, list) for item in part]
    if len(numbers) < 6 or len(numbers) % 2 or None in numbers:
        return None
    xs, ys = numbers[0::2], numbers[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _read_segmentation(row: dict[str, Any], position: int, where: str, log: FindingLog) -> Any:
    """Polygons or run lengths as COCO has them, or None: with a finding where there was something else."""
    value = row.get("segmentation")
    if not value:
        return None
    if not (_are_polygons(value) or _is_run_lengths(value)):
        message = f"{_name_of(row, position)}: segmentation must be polygons or run lengths; the box came without it"
        log.add("skipped", "segmentation", message, where=where)
        return None
    return value


def _are_polygons(value: Any) -> bool:
    """Lists of numbers, which some tools write as text."""
    return isinstance(value, list) and all(isinstance(part, list) and _are_numbers(part) for part in value)


def _is_run_lengths(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"counts", "size"}:
        return False
    counts, size = value["counts"], value["size"]
    is_size = isinstance(size, list) and len(size) == 2 and _are_numbers(size)
    return is_size and (isinstance(counts, str) or (isinstance(counts, list) and _are_numbers(counts)))


def _are_numbers(values: list[Any]) -> bool:
    return _NUMBERS.issuperset(map(type, values)) or None not in map(_number, values)


def _read_extra(row: dict[str, Any], log: FindingLog) -> dict[str, Any] | None:
    """What else the export tells of an image, to leave as it came; None, with a finding, when it is nested too deep."""
    extra = row.get("extra")
    if not isinstance(extra, dict):
        return None
    if _is_deeper(extra, MAX_EXTRA_DEPTH):
        message = f"extra is nested more than {MAX_EXTRA_DEPTH} levels deep; the image came without it"
        log.add("skipped", "extra", message, where=row["file_name"])
        return None
    return extra


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects hold one another more than ``levels`` deep; level by level, not by recursion."""
    current = [value]
    for _ in range(levels + 1):
        current = [item for item in current if isinstance(item, list | dict)]
        if not current:
            return False
        current = [item for one in current for item in (one.values() if isinstance(one, dict) else one)]
    return True


def _key(value: Any) -> Key | None:
    """An id to look things up by: 7, 7.0 and "7" are one; other texts stand for themselves; None if unusable."""
    if type(value) is int:
        return value if abs(value) < MAX_ID else None
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < MAX_ID else None
    return None


def _number(value: Any) -> float | None:
    """A finite float from a number or its text; None otherwise."""
    if type(value) not in _READABLE:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _side(value: Any) -> int | None:
    number = _number(value)
    return round(number) if number is not None and 1 <= number < MAX_ID else None


def _list_of(document: dict[str, Any], name: str, label: str) -> list[Any]:
    value = document.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ExportRefused(f"{label}: {name} must be a list, found {_type_name(value)}.", "Export it as COCO.")
    return value


def _type_name(value: Any) -> str:
    names = {list: "a list", dict: "an object", str: "a text", type(None): "nothing", bool: "true or false"}
    return names.get(type(value), "a number")
