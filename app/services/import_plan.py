"""How the classes of an export become classes of a project: by name, unless the user says otherwise."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import ImportRefused
from app.pipeline.data.coco import ParsedCategory
from app.pipeline.data.export_layout import ParsedExport
from app.records import Category


@dataclass(frozen=True, slots=True)
class PlannedClass:
    """One class of the export and where its boxes go: ``target_name``, class ``target_id`` of the project."""

    source_id: int
    name: str
    supercategory: str
    target_id: int
    target_name: str
    is_new: bool  # the project does not have the target yet
    is_first: bool  # of those that go to this target
    num_boxes: int

    def as_dict(self) -> dict[str, Any]:
        """What the screen shows of it before the import."""
        return {
            "name": self.name,
            "target": self.target_name,
            "is_new": self.is_new,
            "boxes": self.num_boxes,
        }


def plan_classes(
    imported: Sequence[ParsedCategory],
    existing: Sequence[Category],
    num_boxes: Mapping[int, int],
    mapping: Mapping[str, str] | None = None,
) -> list[PlannedClass]:
    """Map each imported class to the project's class of that name, or to a new one under its own id if that is free.

    mapping: name in the export -> name in the project, for those that go elsewhere than to their own name. Classes of
    one name share a target. num_boxes: by imported id. Raises ImportRefused when the mapping names a class that the
    export does not have.
    """
    mapping = {name: target.strip() for name, target in (mapping or {}).items() if target.strip()}
    unknown = sorted(set(mapping) - {category.name for category in imported})
    if unknown:
        raise ImportRefused(
            f"The mapping names {', '.join(map(repr, unknown))}, which the export does not have.",
            f"Its classes are: {', '.join(category.name for category in imported)}.",
        )
    id_of = {category.name: category.id for category in existing}
    known = set(id_of)
    taken = set(id_of.values())
    planned = []
    for category in imported:
        target = class_name(mapping.get(category.name, category.name), category.id)
        is_first = target not in id_of
        if is_first:
            id_of[target] = category.id if category.id not in taken else _free_id(taken, imported)
            taken.add(id_of[target])
        planned.append(
            PlannedClass(
                source_id=category.id,
                name=category.name,
                supercategory=category.supercategory,
                target_id=id_of[target],
                target_name=target,
                is_new=target not in known,
                is_first=is_first,
                num_boxes=num_boxes.get(category.id, 0),
            )
        )
    return planned


def count_boxes(export: ParsedExport) -> dict[int, int]:
    """Boxes by class id of the export."""
    return dict(Counter(box.category_id for image in export.images for box in image.annotations))


def class_name(name: str, category_id: int) -> str:
    """A name the project accepts: control characters become blanks, surrounding blanks go."""
    text = "".join(letter if letter.isprintable() else " " for letter in name).strip()[:200]
    return text or f"class {category_id}"


def _free_id(taken: set[int], imported: Iterable[ParsedCategory]) -> int:
    """Above every id of the project and of the export, so that no later class loses its own."""
    return max(taken | {category.id for category in imported}) + 1
