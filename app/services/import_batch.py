"""The images of an export that will be added: checked, fitted to their true size, each with a split."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import ImportRefused
from app.pipeline.data.coco import ParsedAnnotation, ParsedImage
from app.pipeline.data.export_layout import ParsedExport
from app.pipeline.data.findings import Finding
from app.pipeline.data.fit import fit_to_image
from app.pipeline.data.image import ImageInfo
from app.pipeline.data.split import fill_missing_splits, find_leaks
from app.records import Annotation, NewImage
from app.services.staging import StagedImage


@dataclass(frozen=True, slots=True)
class BatchImage:
    """An image to add; ``boxes`` are clipped, ``problem`` says why it is quarantined."""

    parsed: ParsedImage
    staged: StagedImage
    boxes: list[ParsedAnnotation]
    problem: str

    def as_new(self, coco_id: int) -> NewImage:
        """The row to insert. A quarantined image keeps the size its labels state, to leave as it came."""
        extra: dict[str, Any] = {"extra": self.parsed.extra} if self.parsed.extra else {}
        if self.problem:
            extra |= {"width": self.parsed.width, "height": self.parsed.height}
        return NewImage(
            file_name=self.parsed.file_name,
            sha256=self.staged.sha256,
            extension=self.staged.extension,
            width=self.staged.width,
            height=self.staged.height,
            split=self.parsed.split,
            source_key=self.parsed.source_key,
            coco_id=coco_id,
            needs_rendering=self.staged.needs_rendering,
            extra=extra,
            problem=self.problem,
        )

    def annotations(self, image_id: int, target_of: Mapping[int, int]) -> list[Annotation]:
        """The boxes as rows; ``target_of`` maps the export's class ids to the project's."""
        return [
            Annotation(
                id=0,
                image_id=image_id,
                category_id=target_of[box.category_id],
                bbox=box.bbox,
                is_crowd=box.is_crowd,
                segmentation=box.segmentation,
                coco_id=box.coco_id,
                source_bbox_xywh=box.source_bbox_xywh,
            )
            for box in self.boxes
        ]


@dataclass(frozen=True, slots=True)
class Batch:
    """What is added, and the findings of checking it."""

    images: list[BatchImage]
    findings: list[Finding]


def gather(export: ParsedExport, staged: Mapping[str, StagedImage], known_hashes: set[str]) -> Batch:
    """Keep the usable images that the project does not have yet, and give a split to those without.

    Raises ImportRefused when nothing is left to add.
    """
    findings: list[Finding] = []
    kept: list[BatchImage] = []
    for parsed in export.images:
        image = staged[parsed.member]
        where = {"split": parsed.split, "where": parsed.file_name}
        if image.problem:
            findings.append(Finding("skipped", "unusable_image", image.problem, **where))
        elif image.sha256 in known_hashes:
            message = "the project has this very picture already; the one there was left as it is"
            findings.append(Finding("skipped", "already_there", message, **where))
        else:
            info = ImageInfo(image.extension, image.width, image.height, image.needs_rendering)
            fitted = fit_to_image(parsed, info)
            findings += fitted.findings
            kept.append(BatchImage(parsed, image, fitted.annotations, fitted.problem))
    if not kept:
        raise _nothing_left(export, findings)
    contents = [image.staged.sha256 for image in kept]
    findings += fill_missing_splits([image.parsed for image in kept], contents, is_own=export.is_own)
    return Batch(kept, [*findings, *_deep_values(kept), *_identical_in_two_splits(kept)])


def _nothing_left(export: ParsedExport, findings: list[Finding]) -> ImportRefused:
    if not export.images:
        missing = sum(finding.count for finding in export.findings if finding.kind == "missing")
        detail = f"; {missing} are listed, but their files are missing" if missing else ""
        return ImportRefused(f"The export holds no images{detail}.", "Export it again with its images.")
    if all(finding.code == "already_there" for finding in findings):
        return ImportRefused(f"All {len(export.images)} images are in the project already.", "There is nothing to add.")
    first = findings[0]
    return ImportRefused(
        f"None of the {len(export.images)} images can be used; {first.where}: {first.message}.", "Export them again."
    )


def _deep_values(images: list[BatchImage]) -> list[Finding]:
    deep = [image.parsed.file_name for image in images if image.staged.is_deep]
    message = (
        f"{len(deep)} picture(s) have more than 8 bits: all of their range is shown and trained on, by its high byte; "
        "if they look dark, choose the values to show on the Data page"
    )
    return [Finding("note", "deep_values", message, where=deep[0], count=len(deep))] if deep else []


def _identical_in_two_splits(images: list[BatchImage]) -> list[Finding]:
    leaks = find_leaks((image.staged.sha256, image.parsed.split) for image in images)
    names = {image.staged.sha256: image.parsed.file_name for image in images}
    return [
        Finding("warning", "identical_images", f"the same picture lies in {' and '.join(splits)}", where=names[key])
        for key, splits in leaks.items()
    ]
