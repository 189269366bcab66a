"""Tables of the command line: aligned columns within the width of a terminal, long names cut in the middle."""

import textwrap
from collections.abc import Sequence

WIDTH = 100
GAP = 2
MAX_TEXT = 24  # of a column of names beside the one that takes what room there is
MIN_TEXT = 12
NONE = "-"  # what cannot be told


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], align: str, indent: int = 0) -> list[str]:
    """Lines of at most WIDTH characters: the heads, then one a row.

    align, a letter a column: "r" numbers, "l" names of at most MAX_TEXT, "f" the names that get the room that is left,
    "w" words that are wrapped, in the last column. Numbers are never cut, so a table of many is wider than WIDTH.
    """
    widths = [max(len(text) for text in column) for column in zip(heads, *rows, strict=True)]
    widths = [min(width, MAX_TEXT) if kind == "l" else width for width, kind in zip(widths, align, strict=True)]
    taken = indent + GAP * (len(align) - 1)
    for kind in "fw":
        if kind in align:
            place = align.index(kind)
            others = sum(width for at, width in enumerate(widths) if at != place)
            widths[place] = min(widths[place], max(WIDTH - taken - others, MIN_TEXT))
    return [line for row in (heads, *rows) for line in _lines(row, widths, align, indent)]


def _lines(row: Sequence[str], widths: Sequence[int], align: str, indent: int) -> list[str]:
    cells = [
        text.rjust(width) if kind == "r" else shorten(text, width).ljust(width)
        for text, width, kind in zip(row, widths, align, strict=True)
        if kind != "w"
    ]
    start = " " * indent + (" " * GAP).join(cells)
    if align[-1] != "w":
        return [start.rstrip()]
    start += " " * GAP
    return [line.rstrip() for line in wrap(row[-1], start, start=" " * len(start))] or [start.rstrip()]


def wrap(text: str, before: str = "", *, start: str = "") -> list[str]:
    """A sentence in lines of at most WIDTH characters behind ``before``, each but the first behind ``start``."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=before, subsequent_indent=start, break_long_words=False, break_on_hyphens=False
    )


def shorten(text: str, width: int) -> str:
    """A name without its middle where it is longer than ``width``: what tells names apart is often their end."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def number(value: float | None, digits: int = 3) -> str:
    """A figure as on the screen; a dash where there is none (COCO's -1)."""
    return NONE if value is None or value < 0 else f"{value:.{digits}f}"
