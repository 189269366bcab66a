"""A comparison as one file to read or send: HTML or Markdown, figures inside, nothing loaded.

What the report says is made once, as blocks; each format writes the blocks in its own way.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from app.errors import BadRequest
from app.pipeline.evaluate.difference import OUTCOMES, words_of_sides
from app.pipeline.evaluate.error_words import KIND_TITLES
from app.pipeline.evaluate.selection import TITLES
from app.services.comparing import LETTERS, explain_reached
from app.services.report_figures import draw_bars, draw_intervals, draw_lines
from app.services.run_notes import PARTS
from app.store.files import replacing

SUFFIXES = (".html", ".md")
_LONG_WORD = 20  # letters; longer ones are broken behind such marks, or anywhere
_PIECE = re.compile(r"[^-_./]{1,12}[-_./]*|[-_./]+")
_NEGATIVE = re.compile(r"(?<![\w.-])-(?=\d+\.\d{3}(?!\d))")  # a figure below zero, as figures are written here


@dataclass(frozen=True)
class Heading:
    """A heading of a level, 1 the title's."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Text; line breaks stay."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of texts below their heads."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A drawing (SVG text) with what it shows in words."""

    title: str
    svg: str


Block = Heading | Paragraph | Table | Figure


def check_report_path(path: Path) -> None:
    """Raise BadRequest unless the name tells HTML or Markdown."""
    if path.suffix.lower() not in SUFFIXES:
        raise BadRequest(f"A report is an .html or an .md file; got {path.name!r}.")


def write_report(comparison: dict[str, Any], project: str, path: Path) -> None:
    """Write what :func:`comparing.compare` gave to ``path``, whole or not at all. Raises BadRequest."""
    check_report_path(path)
    text = render(comparison, project, path.suffix.lower())
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(comparison: dict[str, Any], project: str, suffix: str) -> str:
    """The report as the text of a file with one of :data:`SUFFIXES`."""
    blocks = compose(comparison, project)
    return to_html(blocks) if suffix == ".html" else to_markdown(blocks)


def compose(comparison: dict[str, Any], project: str) -> list[Block]:
    """The report's blocks, from the verdict down to the notes."""
    sides = comparison["runs"]
    names = _names(sides)
    first, second = comparison["pair"]
    letters = sides[first]["letter"], sides[second]["letter"]
    of_pair = names[first], names[second]
    blocks: list[Block] = [
        Heading(1, " and ".join(of_pair)),
        Paragraph("\n".join(_introduce(side, name, letters) for side, name in zip(sides, names, strict=True))),
        Paragraph(_with_minus(comparison["verdict"])),
        Paragraph(_about(comparison, project)),
        Heading(2, "Figures"),
        _figures_table(comparison, of_pair, letters),
        Figure("Differences with their 95 % intervals", _draw_differences(comparison, letters)),
        Paragraph(
            "The intervals come from resampling the images (paired bootstrap): both are judged on the same draws. "
            f"An interval without 0 is a difference beyond chance; one with 0 is {OUTCOMES['noise'].lower()}. The "
            "smallest detectable difference is the one that images like these would show in four of five cases."
        ),
        Heading(2, "Options that differ"),
        *_options(comparison, names),
        Heading(2, "Curves"),
        *_curves(comparison, names),
        Heading(2, "Classes"),
        _classes_table(comparison, of_pair, letters),
        Heading(2, "What keeps AP50 down"),
        *_budgets(comparison, _heads(of_pair, letters)),
        Heading(2, "Notes"),
    ]
    for name, item in _by_run(comparison, names):
        blocks.append(Heading(3, name))
        blocks += [Paragraph(f"{part.capitalize()}: {item['notes'][part] or '–'}") for part in PARTS]
    return blocks


def _names(sides: list[dict[str, Any]]) -> tuple[str, ...]:
    """What the sides are called; those of one name also by what tells them apart."""
    names = tuple(item["name"] for item in sides)
    if len(set(names)) == len(names):
        return names
    key = "run" if len({item["run"] for item in sides}) == len(names) else "set"
    return tuple(f"{item['name']} ({key} {item[key]})" for item in sides)


def _introduce(side: dict[str, Any], name: str, letters: tuple[str, str]) -> str:
    more = "" if side["letter"] in letters else " (in options, curves and notes)"
    return f"{side['letter']}: {name}{more}"


def _by_run(comparison: dict[str, Any], names: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    """What belongs to runs, with whose it is: of sides of one run it is the run's, once."""
    of_run: dict[int, list[tuple[str, dict[str, Any]]]] = {}
    for name, side in zip(names, comparison["runs"], strict=True):
        of_run.setdefault(side["run"], []).append((name, side))
    return [
        (
            f"{each[0][1]['letter']} {each[0][0]}"
            if len(each) == 1
            else f"Run {run}, of {' and '.join(side['letter'] for _, side in each)}",
            each[0][1],
        )
        for run, each in of_run.items()
    ]


def _with_minus(text: str) -> str:
    """Text whose negative figures have a minus in place of the hyphen that commands print."""
    return _NEGATIVE.sub("−", text)


def to_html(blocks: list[Block]) -> str:
    """One self-contained page."""
    title = next(block.text for block in blocks if isinstance(block, Heading))
    body = "\n".join(_block_as_html(block) for block in blocks)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def to_markdown(blocks: list[Block]) -> str:
    """Markdown whose figures are inside as data."""
    return "\n\n".join(_block_as_markdown(block) for block in blocks) + "\n"


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#1a232e;max-width:760px;margin:32px auto;padding:0 16px;"
    "overflow-wrap:break-word}"
    "table{border-collapse:collapse}td,th{border-bottom:1px solid #d9dee4;padding:4px 12px 4px 0;text-align:left;"
    "vertical-align:top}td:first-child{min-width:8em}p{white-space:pre-line}svg{max-width:100%;height:auto}figure{margin:0}"
)


def _block_as_html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Figure):
        return f"<figure>{block.svg}</figure>"
    heads = "".join(f"<th>{_breakable(head)}</th>" for head in block.heads)
    rows = "".join(
        f"<tr>{''.join(f'<td>{_breakable(_with_minus(cell))}</td>' for cell in row)}</tr>\n" for row in block.rows
    )
    return f"<table>\n<tr>{heads}</tr>\n{rows}</table>"


def _breakable(text: str) -> str:
    """Text for a cell: a word that would make its column too wide, such as a name without a space, may go on below."""
    return " ".join("<wbr>".join(map(escape, _pieces(word))) for word in text.split(" "))


def _pieces(word: str) -> list[str]:
    return [word] if len(word) <= _LONG_WORD else _PIECE.findall(word)


def _block_as_markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {_plain(block.text)}"
    if isinstance(block, Paragraph):
        return "  \n".join(_plain(line) for line in block.text.splitlines())
    if isinstance(block, Figure):
        return f"![{_plain(block.title)}](data:image/svg+xml;base64,{b64encode(block.svg.encode()).decode()})"
    rows = [[_plain(_with_minus(cell)) for cell in row] for row in block.rows]
    lines = [[_plain(head) for head in block.heads], ["---"] * len(block.heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def _about(comparison: dict[str, Any], project: str) -> str:
    text = f"Project {project}, split {comparison['split']}: {comparison['images']} images that both have."
    if comparison["left_out"]:
        text += f" {comparison['left_out']} images that only one of them has are left out."
    return " ".join([text, *comparison["truth"]["words"]])


def _figures_table(comparison: dict[str, Any], names: tuple[str, str], letters: tuple[str, str]) -> Table:
    rows = []
    for figure, item in comparison["differences"].items():
        rows.append(
            (
                TITLES[figure],
                f"{item['first']:.3f} ({item['first_low']:.3f} to {item['first_high']:.3f})",
                f"{item['second']:.3f} ({item['second_low']:.3f} to {item['second_high']:.3f})",
                f"{item['difference']:+.3f} ({item['low']:+.3f} to {item['high']:+.3f}), "
                + words_of_sides(item, letters),
                f"{100 * item['share_better']:.1f} %",
                f"{item['detectable']:.3f}",
            )
        )
    heads = ("", *_heads(names, letters), _difference(letters), f"{letters[1]} better in", "Smallest detectable")
    return Table(heads, tuple(rows))


def _heads(names: tuple[str, ...], letters: Sequence[str]) -> list[str]:
    return [f"{letter} {name}" for letter, name in zip(letters, names, strict=True)]


def _difference(letters: tuple[str, str]) -> str:
    return f"{letters[1]} less {letters[0]}"


def _draw_differences(comparison: dict[str, Any], letters: tuple[str, str]) -> str:
    rows = [
        (TITLES[figure], item["difference"], item["low"], item["high"])
        for figure, item in comparison["differences"].items()
    ]
    return draw_intervals(f"{_difference(letters)}, with 95 % intervals", rows, comparison["pair"])


def _options(comparison: dict[str, Any], names: tuple[str, ...]) -> list[Block]:
    if not comparison["config"]:
        return [Paragraph("None: all were set alike.")]
    heads = _heads(names, [side["letter"] for side in comparison["runs"]])
    return [Table(("Option", *heads), tuple((row["title"], *row["texts"]) for row in comparison["config"]))]


def _curves(comparison: dict[str, Any], names: tuple[str, ...]) -> list[Block]:
    every_run = _by_run(comparison, names)
    of_run = [(name, item["curves"]) for name, item in every_run if item["curves"]["best"]]
    places = [LETTERS.index(item["letter"]) for _, item in every_run if item["curves"]["best"]]
    missing = [name for name, item in every_run if not item["curves"]["best"]]
    blocks: list[Block] = [Paragraph(f"Never validated: {', '.join(missing)}.")] if missing else []
    if not of_run:
        return blocks
    for x_name, title, scale in (("epoch", "epochs", 1.0), ("elapsed_s", "minutes of training", 1 / 60)):
        series = []
        for name, each in of_run:
            points = [
                (x * scale, y)
                for x, y in zip(each[x_name], each["map50"], strict=True)
                if x is not None and y is not None
            ]
            series.append((name, [x for x, _ in points], [y for _, y in points]))
        blocks.append(Figure(f"mAP50 by {title}", draw_lines(f"By {title}", title, TITLES["map50"], series, places)))
    if comparison["truth"]["relabeled"]:
        blocks.append(Paragraph("Each curve was judged while its run trained, on the labels of that time."))
    if comparison["reached"]:
        blocks.append(Paragraph(explain_reached(comparison["reached"])))
    return blocks


def _classes_table(comparison: dict[str, Any], names: tuple[str, str], letters: tuple[str, str]) -> Table:
    rows = []
    for item in comparison["per_class"]:
        first, second, difference = item["first"]["ap50"], item["second"]["ap50"], item["difference"]
        told = f"{difference['difference']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})"
        values = (f"{first:.3f}", f"{second:.3f}", told) if first >= 0 else ("–", "–", "–")
        rows.append((item["name"], str(item["num_truth"]), *values, words_of_sides(difference, letters)))
    return Table(("AP50", "Objects", *_heads(names, letters), _difference(letters), "In words"), tuple(rows))


def _budgets(comparison: dict[str, Any], heads: list[str]) -> list[Block]:
    budgets = [comparison["runs"][place]["error_budget"] for place in comparison["pair"]]
    kinds = [
        (KIND_TITLES[first["kind"]], first["d_ap50"], second["d_ap50"])
        for first, second in zip(*(each["kinds"] for each in budgets), strict=True)
    ]
    title = "AP50 that mending it alone would bring"
    advice = tuple((KIND_TITLES[row["kind"]], row["advice"]) for row in budgets[0]["kinds"])
    figure = Figure(title, draw_bars(title, heads, kinds, comparison["pair"]))
    return [figure, Table(("Kind of error", "What helps"), advice)]
