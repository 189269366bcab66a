"""What reading an export turned up: findings for the report, and the refusal that ends an import."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

KINDS = ("quarantined", "skipped", "missing", "warning", "fixed", "unlisted", "note")


class ExportRefused(ValueError):
    """The whole export is refused.

    ``message`` says what must hold, what was found and where; ``hint`` says what to do. ``code`` is 'same_name' when
    the user may confirm merging two classes of one name, else empty.
    """

    def __init__(self, message: str, hint: str = "", code: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.message = message
        self.hint = hint
        self.code = code


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the import report.

    ``kind`` is one of KINDS, ``code`` a stable short name of the case, ``where`` the file it concerns, ``count`` how
    many boxes or images the line stands for.
    """

    kind: str
    code: str
    message: str
    split: str = ""
    where: str = ""
    count: int = 1


class FindingLog:
    """Collects findings; of each kind and code the first ``listed`` are kept one by one, the rest only counted.

    So a file with a million bad boxes costs no more memory than one with a hundred.
    """

    def __init__(self, listed: int = 200) -> None:
        self._listed = listed
        self._findings: list[Finding] = []
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._unlisted: Counter[tuple[str, str, str]] = Counter()

    def add(self, kind: str, code: str, message: str, *, split: str = "", where: str = "", count: int = 1) -> None:
        """Note one finding; see :class:`Finding`."""
        key = (kind, code, split)
        self._counts[key] += 1
        if self._counts[key] <= self._listed:
            self._findings.append(Finding(kind, code, message, split, where, count))
        else:
            self._unlisted[key] += count

    def all(self) -> list[Finding]:
        """What was noted, with one closing line for each group that was too long to list."""
        closing = [
            Finding(kind, code, f"and {count} more like these", split, "", count)
            for (kind, code, split), count in self._unlisted.items()
        ]
        return self._findings + closing


def group_findings(findings: Iterable[Finding], examples: int = 50) -> list[dict[str, Any]]:
    """Findings of one kind, code and split together, JSON-able, gravest kind first.

    ``count`` covers all of them; at most ``examples`` are listed, so that a report of a bad export stays small.
    """
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for finding in findings:
        key = (finding.kind, finding.code, finding.split)
        group = groups.setdefault(
            key, {"kind": finding.kind, "code": finding.code, "split": finding.split, "count": 0, "examples": []}
        )
        group["count"] += finding.count
        if len(group["examples"]) < examples:
            group["examples"].append({"where": finding.where, "message": finding.message, "count": finding.count})
    return sorted(groups.values(), key=lambda group: (KINDS.index(group["kind"]), group["code"], group["split"]))
