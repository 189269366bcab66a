"""What an import brought, mended and left out, as the report that is kept and shown."""

from collections import Counter
from typing import Any

from app.pipeline.data.export_layout import ParsedExport
from app.pipeline.data.findings import Finding, group_findings
from app.pipeline.data.split import find_leaks
from app.records import SPLITS
from app.services.import_batch import Batch
from app.services.import_plan import PlannedClass

MAX_LEAKS_LISTED = 50


def build_report(source: str, export: ParsedExport, batch: Batch, plan: list[PlannedClass]) -> dict[str, Any]:
    """JSON-able report.

    ``images``, ``annotations``, ``categories`` count what was added (classes: those of the export); ``splits`` images
    by split; ``per_split`` adds boxes, quarantined images and boxes by class; ``fixed``, ``quarantined``, ``skipped``,
    ``missing``, ``unlisted``, ``warnings`` count; ``findings`` lists them in groups; ``leakage`` names sources that lie
    in more than one split.
    """
    findings = [*export.findings, *batch.findings]
    leaks = find_leaks((image.parsed.source_key, image.parsed.split) for image in batch.images)
    per_split = {split: _split_summary(batch, plan, split) for split in SPLITS}
    per_split = {split: summary for split, summary in per_split.items() if summary["images"]}
    return {
        "source": source,
        "images": len(batch.images),
        "annotations": sum(len(image.boxes) for image in batch.images),
        "categories": len({planned.target_id for planned in plan}),
        "splits": {split: summary["images"] for split, summary in per_split.items()},
        "per_split": per_split,
        "classes": [planned.as_dict() for planned in plan],
        "fixed": _count(findings, "fixed"),
        "quarantined": _count(findings, "quarantined"),
        "skipped": _count(findings, "skipped"),
        "missing": _count(findings, "missing"),
        "unlisted": _count(findings, "unlisted"),
        "warnings": _count(findings, "warning"),
        "leakage": {
            "sources": len(leaks),
            "examples": {key: list(splits) for key, splits in list(leaks.items())[:MAX_LEAKS_LISTED]},
        },
        "findings": group_findings(findings),
    }


def _split_summary(batch: Batch, plan: list[PlannedClass], split: str) -> dict[str, Any]:
    name_of = {planned.source_id: planned.target_name for planned in plan}
    images = [image for image in batch.images if image.parsed.split == split]
    counts = Counter(name_of[box.category_id] for image in images for box in image.boxes)
    return {
        "images": len(images),
        "annotations": sum(counts.values()),
        "empty": sum(not image.boxes for image in images),
        "quarantined": sum(bool(image.problem) for image in images),
        "classes": {name: counts[name] for name in dict.fromkeys(name_of.values())},
    }


def _count(findings: list[Finding], kind: str) -> int:
    return sum(finding.count for finding in findings if finding.kind == kind)
