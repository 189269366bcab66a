"""One list of classes from the lists of all splits; ids are the key, names settle what ids leave open."""

from collections import defaultdict

from app.pipeline.data.coco import ParsedCategory, ParsedCoco
from app.pipeline.data.findings import ExportRefused, Finding


def merge_categories(
    documents: list[ParsedCoco], merge_same_names: bool = False
) -> tuple[list[ParsedCategory], list[Finding]]:
    """The classes of all documents, in order of first appearance, and what was changed.

    Annotations are renumbered in place where a document gives an id another name than the first one did. The id-0
    placeholder goes only if no annotation of any document names it, other classes exist, and another tool wrote the
    export. Raises ExportRefused (code 'same_name') for two ids of one name unless ``merge_same_names``.
    """
    findings: list[Finding] = []
    categories: dict[int, ParsedCategory] = {}
    used: set[int] = set()
    for document in documents:
        renumbering = _reconcile(document, categories, findings)
        used |= {renumbering.get(category_id, category_id) for category_id in document.used_category_ids}
        _renumber([document], renumbering)
    is_own = all(document.is_own for document in documents)
    if 0 in categories and 0 not in used and len(categories) > 1 and not is_own:
        placeholder = categories.pop(0)
        message = f"class {placeholder.name!r} (id 0) has no boxes in any split: the export's placeholder was dropped"
        findings.append(Finding("fixed", "placeholder_category", message))
    _merge_names(documents, categories, merge_same_names, findings)
    return list(categories.values()), findings


def _reconcile(document: ParsedCoco, categories: dict[int, ParsedCategory], findings: list[Finding]) -> dict[int, int]:
    """Add a document's classes; returns which of its ids must become which (ids that mean another class elsewhere)."""
    renumbering: dict[int, int] = {}
    is_first = not categories
    by_name = {category.name: category_id for category_id, category in categories.items()}
    free = max([*categories, *(category.id for category in document.categories)], default=0)
    for category in document.categories:
        known = categories.get(category.id)
        if known is not None and known.name == category.name:
            continue
        if known is None and (is_first or category.name not in by_name):
            categories[category.id] = category
            if not is_first:
                message = f"class {category.name!r} is listed only in some splits"
                findings.append(Finding("note", "category_lists_differ", message, where=document.label))
            continue
        target = by_name.get(category.name)
        if target is None:
            free = target = free + 1
            categories[target] = ParsedCategory(target, category.name, category.supercategory)
        renumbering[category.id] = target
        message = f"class {category.name!r} has id {category.id} here and {target} elsewhere; {target} is used"
        findings.append(Finding("fixed", "category_ids_differ", message, where=document.label))
    return renumbering


def _merge_names(
    documents: list[ParsedCoco],
    categories: dict[int, ParsedCategory],
    merge_same_names: bool,
    findings: list[Finding],
) -> None:
    ids_of_name: dict[str, list[int]] = defaultdict(list)
    for category in categories.values():
        ids_of_name[category.name].append(category.id)
    renumbering: dict[int, int] = {}
    for name, ids in ids_of_name.items():
        if len(ids) == 1:
            continue
        listed = ", ".join(map(str, ids))
        if not merge_same_names:
            raise ExportRefused(
                f"Two classes are named {name!r} (ids {listed}).",
                "Confirm that they are one class, or rename one of them in the export.",
                code="same_name",
            )
        for other in ids[1:]:
            renumbering[other] = ids[0]
            del categories[other]
        findings.append(Finding("fixed", "same_name", f"classes {listed}, all named {name!r}, became one"))
    _renumber(documents, renumbering)


def _renumber(documents: list[ParsedCoco], renumbering: dict[int, int]) -> None:
    if not renumbering:
        return
    for document in documents:
        for image in document.images:
            for annotation in image.annotations:
                annotation.category_id = renumbering.get(annotation.category_id, annotation.category_id)
