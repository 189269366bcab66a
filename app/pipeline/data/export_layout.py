"""Finding the splits, JSON files and images of an export in any layout, and merging them. Imports no torch."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from app.pipeline.data.box_frame import judge_boxes
from app.pipeline.data.coco import ParsedCategory, ParsedCoco, ParsedImage, looks_like_coco, parse_document
from app.pipeline.data.findings import ExportRefused, Finding, FindingLog
from app.pipeline.data.json_file import collector_paused, load_json
from app.pipeline.data.layout_names import image_members, parent_of, source_key, split_of
from app.pipeline.data.merge_categories import merge_categories
from app.pipeline.data.source import MAX_JSON_BYTES, Source
from app.pipeline.data.split import SPLITS, find_leaks, split_order

COCO_SUFFIX = "annotations.coco.json"
_APPLE_DOUBLE = b"\x00\x05\x16\x07"


@dataclass(slots=True)
class ParsedExport:
    """A whole export, merged.

    ``images`` are those whose file is in the source (unlisted files too, without boxes); ``split`` is empty where the
    export does not say. ``splits`` are those it has itself; ``leaks`` maps a source to the splits its copies lie in.
    ``is_own``: all of it was exported by us.
    """

    categories: list[ParsedCategory]
    images: list[ParsedImage]
    findings: list[Finding]
    splits: tuple[str, ...] = ()
    leaks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    is_own: bool = False


@dataclass(slots=True)
class _Document:
    """A COCO file of the export: its member name and the split its place or name tells."""

    member: str
    split: str
    coco: ParsedCoco


def read_export(source: Source, *, merge_same_names: bool = False, allow_bare: bool = False) -> ParsedExport:
    """Read every COCO file of a source and find the images they list.

    ``merge_same_names`` confirms that two classes of one name are one; without it they are refused (code
    'same_name'). ``allow_bare`` accepts a source of images without any JSON. Raises ExportRefused.
    """
    with collector_paused():
        log = FindingLog()
        documents = _read_documents(source, log)
        if not documents:
            return _bare_export(source, allow_bare, log)
        is_own = all(document.coco.is_own for document in documents)
        if not is_own:
            judge_boxes([image for document in documents for image in document.coco.images], source.label, log)
        categories, findings = merge_categories([document.coco for document in documents], merge_same_names)
        images, claimed = _merge_images(source, documents, log)
        images += _unlisted_images(source, images, claimed, documents, log)
        leaks = _note_leaks(images, log)
        _note_twins(categories, log)
        splits = tuple(split for split in SPLITS if any(image.split == split for image in images))
        parsed = [replace(f, split=d.split) for d in documents for f in d.coco.findings]
        found = [*source.findings, *parsed, *findings, *log.all()]
        return ParsedExport(categories, images, found, splits, leaks, is_own)


def _read_documents(source: Source, log: FindingLog) -> list[_Document]:
    """The COCO files: those with Roboflow's name if there are any, else all; raises ExportRefused."""
    names = sorted(name for name in source.members if name.lower().endswith(".json"))
    certain = [name for name in names if name.lower().endswith(COCO_SUFFIX)]
    if certain and len(certain) < len(names):
        others = len(names) - len(certain)
        log.add("note", "other_json", f"{others} JSON file(s) that are no {COCO_SUFFIX} were not read", count=others)
    documents: list[_Document] = []
    rejected: list[str] = []
    for name in certain or names:
        data = source.read(name, MAX_JSON_BYTES)
        if data.startswith(_APPLE_DOUBLE):
            log.add("note", "apple_double", "a macOS side file was ignored", where=name)
            continue
        loaded, findings = load_json(data, name)
        if not certain and not looks_like_coco(loaded):
            rejected.append(name)
            continue
        coco = parse_document(loaded, name, findings)
        if not coco.categories and loaded.get("annotations"):
            rejected.append(name)
            continue
        documents.append(_Document(name, split_of(name), coco))
    if rejected and not documents:
        raise ExportRefused(
            f"{source.label}: {rejected[0]} is no COCO file: it must be an object with images, annotations and a "
            "non-empty list of categories.",
            "Export the dataset as COCO (object detection).",
        )
    for name in rejected:
        log.add("note", "other_json", "a JSON file without boxes and classes was not read", where=name)
    return sorted(documents, key=lambda document: split_order(document.split))


def _bare_export(source: Source, allow_bare: bool, log: FindingLog) -> ParsedExport:
    """Images without any JSON; raises ExportRefused, saying what was found, unless they are wanted."""
    pictures = image_members(source.members)
    if not allow_bare or not pictures:
        endings = sorted({name.rsplit("/", 1)[-1].rpartition(".")[2].lower() for name in source.members})[:8]
        found = f"{len(source.members)} file(s) ({', '.join(endings)}), {len(pictures)} of them pictures"
        raise ExportRefused(
            f"{source.label} holds no COCO file (*.json); found {found if source.members else 'no files'}.",
            "Export the dataset as COCO, or start a project from bare images." if pictures else "Choose another path.",
        )
    images = [
        ParsedImage(name, name, split_of(name), index, None, None, source_key(name))
        for index, name in enumerate(pictures)
    ]
    log.add("note", "bare_images", "there was no COCO file; the pictures came without boxes", count=len(images))
    splits = tuple(split for split in SPLITS if any(image.split == split for image in images))
    leaks = _note_leaks(images, log)
    return ParsedExport([], images, [*source.findings, *log.all()], splits, leaks)


def _merge_images(
    source: Source, documents: list[_Document], log: FindingLog
) -> tuple[list[ParsedImage], dict[str, ParsedImage]]:
    """Images that have a file, each file once, and the files they claim."""
    finder = _ImageFinder(image_members(source.members, certain_only=False), documents)
    claimed: dict[str, ParsedImage] = {}
    images: list[ParsedImage] = []
    for document in documents:
        for image in document.coco.images:
            member = finder.find(document, image.file_name)
            image.split = document.split or (split_of(member) if member else "")
            if member is None:
                message = f"listed, with {len(image.annotations)} box(es), but not in the export"
                log.add("missing", "image", message, split=image.split, where=image.file_name)
                continue
            first = claimed.get(member)
            if first is not None:
                _join(first, image, log)
                continue
            image.member = member
            claimed[member] = image
            images.append(image)
    return images, claimed


def _join(first: ParsedImage, again: ParsedImage, log: FindingLog) -> None:
    """A file that is listed twice is one image with the boxes of both entries."""
    first.annotations += again.annotations
    log.add(
        "fixed",
        "listed_twice",
        "listed more than once; the boxes were joined",
        split=first.split,
        where=first.file_name,
    )


class _ImageFinder:
    """Looks up the file of an image by its listed name, near the JSON file that lists it."""

    def __init__(self, pictures: Iterable[str], documents: list[_Document]) -> None:
        self._by_base: dict[str, list[str]] = defaultdict(list)
        for name in pictures:
            self._by_base[_folded(name).rsplit("/", 1)[-1]].append(name)
        self._splits_of_folder: dict[str, set[str]] = defaultdict(set)
        for document in documents:
            self._splits_of_folder[parent_of(document.member)].add(document.split)

    def find(self, document: _Document, file_name: str) -> str | None:
        """The member for a listed name: beside the JSON, in images/ near it, else the one file that it can mean."""
        wanted = "/".join(part for part in _folded(file_name).replace("\\", "/").split("/") if part not in ("", "."))
        base = _folded(parent_of(document.member))
        candidates = [
            name
            for name in self._by_base.get(wanted.rsplit("/", 1)[-1], [])
            if not self._is_of_other_split(name, document)
        ]
        if not candidates:
            return None
        exact = [f"{base}/{wanted}".strip("/"), f"{base}/images/{wanted}".strip("/")]
        ranked = sorted(candidates, key=lambda name: self._distance(name, wanted, base, exact, document.split))
        best = ranked[0]
        if len(ranked) > 1 and self._distance(best, wanted, base, exact, document.split) == self._distance(
            ranked[1], wanted, base, exact, document.split
        ):
            return None
        return best

    def _distance(self, name: str, wanted: str, base: str, exact: list[str], split: str) -> tuple[int, int, int, int]:
        """Smaller is likelier: the exact places, then names that end as listed, the same split, the nearest folder."""
        folded = _folded(name)
        place = exact.index(folded) if folded in exact else len(exact)
        ends_alike = folded == wanted or folded.endswith("/" + wanted)
        common = sum(1 for _ in _common_parts(parent_of(folded), base))
        return place, not ends_alike, bool(split) and split_of(name) != split, -common

    def _is_of_other_split(self, name: str, document: _Document) -> bool:
        """Whether a file lies in the folder of another split: the same name there is another picture."""
        if document.split and split_of(name) not in ("", document.split):
            return True
        folder = parent_of(name)
        while True:
            splits = self._splits_of_folder.get(folder)
            if splits is not None:
                return document.split not in splits
            if not folder:
                return False
            folder = parent_of(folder)


def _unlisted_images(
    source: Source,
    images: list[ParsedImage],
    claimed: dict[str, ParsedImage],
    documents: list[_Document],
    log: FindingLog,
) -> list[ParsedImage]:
    """Pictures that no JSON lists, kept without boxes in the split of their folder."""
    free = max((image.coco_id for image in images), default=-1)
    beside = {parent_of(document.member): document.split for document in documents}
    unlisted = []
    for name in image_members(source.members):
        if name in claimed:
            continue
        free += 1
        split = split_of(name) or beside.get(parent_of(name), "")
        file_name = name.rsplit("/", 1)[-1]
        unlisted.append(ParsedImage(file_name, name, split, free, None, None, source_key(file_name)))
        log.add("unlisted", "image", "in the export but in no JSON; kept without boxes", split=split, where=name)
    return unlisted


def _note_leaks(images: list[ParsedImage], log: FindingLog) -> dict[str, tuple[str, ...]]:
    leaks = find_leaks((image.source_key, image.split) for image in images if image.split)
    for key, splits in leaks.items():
        log.add("warning", "leakage", f"copies of one source lie in {' and '.join(splits)}", where=key)
    return leaks


def _note_twins(categories: list[ParsedCategory], log: FindingLog) -> None:
    """Classes that differ only in case are kept apart, but the user should know."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for category in categories:
        spellings[category.name.strip().casefold()].append(category.name)
    for names in spellings.values():
        if len(names) > 1:
            twins = ", ".join(repr(name) for name in names)
            log.add("warning", "case_twins", f"classes that differ only in spelling: {twins}")


def _common_parts(first: str, second: str) -> Iterable[str]:
    for one, other in zip(first.split("/"), second.split("/"), strict=False):
        if one != other:
            return
        yield one


def _folded(name: str) -> str:
    """Composed Unicode: macOS writes names decomposed into zips, JSON files usually hold them composed."""
    return unicodedata.normalize("NFC", name)
