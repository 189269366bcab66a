"""Figures of a report as SVG text that stands on its own: no script, no font, no address of anywhere else.

Colors are those of the screen's light theme; the first is blue, the second orange and dashed, all with dashes of their
own, so that they differ without color too. What is within the noise is gray.
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from unicodedata import east_asian_width

WIDTH_PX, HEIGHT_PX = 640, 280
ROW_PX = 34
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 44
_NAMES = 160  # pixels at the left where rows have names
_LEGEND = 20  # pixels below the title where they are told apart
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#44aa99", "#7b8794")
_DASHES = ("", "6 4", "2 3", "10 4", "8 3 2 3", "4 2")
_NOISE = 6  # the place of gray
_TEXT, _GRID = "#1a232e", "#d9dee4"

Series = tuple[str, Sequence[float], Sequence[float]]  # name, x, y


def draw_lines(
    title: str, x_title: str, y_title: str, series: Sequence[Series], places: Sequence[int] = range(6)
) -> str:
    """Up to six curves over a common x, each in the color of its place; y from 0 to 1."""
    right = max((x for _, xs, _ in series for x in xs), default=1.0) or 1.0

    def place(x: float, y: float) -> str:
        return f"{_across(x, 0, right):.1f},{_down(y):.1f}"

    parts = []
    for y in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_line(_LEFT, _down(y), WIDTH_PX - _RIGHT, _down(y), _GRID))
        parts.append(_text(_LEFT - 8, _down(y) + 4, f"{y:g}", "end"))
    for x in _ticks(right):
        parts.append(_text(_across(x, 0, right), HEIGHT_PX - _BOTTOM + 18, f"{x:g}", "middle"))
    for number, (_, xs, ys) in zip(places, series, strict=False):
        points = " ".join(place(x, y) for x, y in zip(xs, ys, strict=True))
        dash = f' stroke-dasharray="{_DASHES[number]}"' if number else ""
        parts.append(f'<polyline points="{points}" fill="none" stroke="{_COLORS[number]}" stroke-width="2"{dash}/>')
        parts += [_dot(place(x, y), number) for x, y in zip(xs, ys, strict=True)] if len(xs) < 60 else []
    parts.append(_text(WIDTH_PX / 2, HEIGHT_PX - 8, x_title, "middle"))
    return _frame(
        f"{title}: {y_title}", parts + _legend([name for name, _, _ in series], _line_sample, places), HEIGHT_PX
    )


def draw_intervals(title: str, rows: Sequence[tuple[str, float, float, float]], places: Sequence[int] = (0, 1)) -> str:
    """Name, difference, low and high of each row, around a line at 0, in the color of the better one's place."""
    reach = max((abs(value) for _, *values in rows for value in values), default=0.0) * 1.1 or 1.0
    height = _TOP + ROW_PX * len(rows) + _BOTTOM
    zero = _across(0, -reach, reach, _NAMES)
    parts = [_line(zero, _TOP, zero, height - _BOTTOM, _TEXT)]
    for tick in sorted({sign * tick for tick in _ticks(reach, 3) for sign in (-1, 1)}):
        at = _across(tick, -reach, reach, _NAMES)
        parts += [_line(at, _TOP, at, height - _BOTTOM, _GRID)] if tick else []
        parts.append(_text(at, height - _BOTTOM + 18, f"{tick:+g}".replace("-", "−") if tick else "0", "middle"))
    for number, (name, difference, low, high) in enumerate(rows):
        y = _TOP + ROW_PX * (number + 0.5)
        begin, end = (_across(value, -reach, reach, _NAMES) for value in (low, high))
        color = _NOISE if low <= 0 <= high else places[difference > 0]
        parts.append(_line(begin, y, end, y, _COLORS[color], 3))
        parts.append(_dot(f"{_across(difference, -reach, reach, _NAMES):.1f},{y:.1f}", color, 5))
        parts.append(_text(_NAMES - 8, y + 4, name, "end", _NAMES - 16))
    return _frame(title, parts, height)


def draw_bars(
    title: str, names: Sequence[str], rows: Sequence[tuple[str, float, float]], places: Sequence[int] = (0, 1)
) -> str:
    """Name and two values of each row, as a pair of bars from 0 in the colors of their places."""
    reach = max((value for _, *values in rows for value in values), default=0.0) * 1.15 or 1.0
    left, begin = _NAMES, _TOP + _LEGEND
    parts = []
    for number, (name, *values) in enumerate(rows):
        top = begin + ROW_PX * number + 4
        parts.append(_text(left - 8, top + ROW_PX / 2, name, "end", left - 16))
        for at, value in enumerate(values):
            width = (WIDTH_PX - left - 60) * value / reach
            y = top + at * 13
            parts.append(_bar(left, y, width, places[at]))
            parts.append(_text(left + width + 6, y + 10, f"{value:.3f}", "start"))
    return _frame(title, parts + _legend(names, _bar_sample, places), begin + ROW_PX * len(rows) + 16)


def _ticks(end: float, most: int = 6) -> list[float]:
    """Round numbers from 0 up to ``end``, at most ``most`` steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(end / most))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * most >= end)
    return [round(number * step, 9) for number in range(math.floor(end / step) + 1)]


def _across(value: float, low: float, high: float, left: float = _LEFT) -> float:
    return left + (WIDTH_PX - left - _RIGHT) * (value - low) / (high - low)


def _down(value: float) -> float:
    return HEIGHT_PX - _BOTTOM - (HEIGHT_PX - _TOP - _LEGEND - _BOTTOM) * value


def _legend(names: Sequence[str], sample: Callable[[float, int], str], places: Sequence[int]) -> list[str]:
    """A line below the title; ``sample`` draws what the name of a place stands for, 22 pixels from x on."""
    parts, room = [], (WIDTH_PX - 8 - _RIGHT) / max(2, len(names))
    for number, name in enumerate(names):
        x = 8 + room * number
        parts += [sample(x, places[number]), _text(x + 28, 40, name, "start", room - 40)]
    return parts


def _line_sample(x: float, number: int) -> str:
    return _line(x, 36, x + 22, 36, _COLORS[number], 3, _DASHES[number])


def _bar_sample(x: float, number: int) -> str:
    return _bar(x, 30, 22, number)


def _frame(title: str, parts: Sequence[str], height: float) -> str:
    # The namespace is a name, not an address that anything is loaded from.
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {height:.0f}" width="{WIDTH_PX}" role="img"'
        f' aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{_text(8, 20, title, "start")}{"".join(parts)}</svg>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{color}" stroke-width="{width:g}"{dashed}/>'


def _dot(place: str, number: int, radius: float = 2.5) -> str:
    x, y = place.split(",")
    return f'<circle cx="{x}" cy="{y}" r="{radius:g}" fill="{_COLORS[number]}"/>'


def _bar(x: float, y: float, width: float, number: int) -> str:
    opacity = 1 if number == 0 else 0.75
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="11"'
    return f'<rect {place} fill="{_COLORS[number]}" fill-opacity="{opacity}"/>'


def _text(x: float, y: float, text: str, anchor: str, room: float = math.inf) -> str:
    """Text that takes about ``room`` pixels at most: its middle is left out, and told where it is pointed at."""
    short = _shorten(text, room)
    whole = f"<title>{escape(text)}</title>" if short != text else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_TEXT}">{whole}{escape(short)}</text>'


def _shorten(text: str, room: float) -> str:
    """Names that are long often begin alike and end alike, so both ends stay."""
    if sum(map(_width, text)) <= room:
        return text
    kept = len(text) - 1
    while kept > 2 and sum(map(_width, _ends(text, kept))) > room:
        kept -= 1
    return _ends(text, kept)


def _ends(text: str, kept: int) -> str:
    return f"{text[: kept - kept // 2].rstrip()}…{text[len(text) - kept // 2 :].lstrip()}"


def _width(letter: str) -> float:
    """Pixels of a letter of 12 pixels, on the safe side: nobody knows the font that it will be shown in."""
    if east_asian_width(letter) in "WF":
        return 12.5
    return 9.0 if letter.isupper() or letter in "mw—…@%" else 7.0
