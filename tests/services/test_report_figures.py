import re
import xml.etree.ElementTree as ET

import pytest

from app.services.report_figures import draw_bars, draw_intervals, draw_lines


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_the_axes_of_curves_carry_round_numbers():
    svg = draw_lines("By epochs", "epochs", "mAP50", [("One", [1, 9, 27], [0.1, 0.5, 0.9])])
    assert [text for text in texts(svg) if text in {"5", "10", "15", "20", "25"}] == ["5", "10", "15", "20", "25"]
    assert not [text for text in texts(svg) if re.fullmatch(r"\d+\.\d+", text) and text not in ("0.25", "0.5", "0.75")]


def test_the_axis_of_intervals_is_round_around_a_named_zero():
    svg = draw_intervals("Differences", [("mAP", -0.428, -0.465, -0.363), ("mAP75", -0.663, -0.75, -0.544)])
    assert [text for text in texts(svg) if re.fullmatch(r"[+−]?[\d.]+", text)] == ["−0.5", "0", "+0.5"]


def test_equal_sides_are_drawn():
    assert texts(draw_intervals("Differences", [("F1", 0.0, 0.0, 0.0)])).count("0") == 1


@pytest.mark.parametrize("name", ["Half the rate & a longer warm-up, " * 3 + "again", "宽" * 60, "W" * 80])
def test_a_name_too_long_for_its_place_keeps_both_ends_and_is_told_whole(name):
    other = "Short"
    for svg in (
        draw_bars("Bars", (name, other), [("Missed", 0.1, 0.2)]),
        draw_lines("By epochs", "epochs", "mAP50", [(name, [1], [1]), (other, [1], [1])]),
    ):
        (label,) = [text for text in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text") if len(text)]
        whole, short = label[0].text, label[0].tail
        assert whole == name and len(short) < len(name)
        assert short[:5] == name[:5] and short[-5:] == name[-5:] and "…" in short
        assert texts(svg).count(other) == 1


def test_bars_are_told_apart_by_bars_and_curves_by_lines():
    bars = draw_bars("Bars", ("One", "Two"), [("Missed", 0.1, 0.2)])
    assert bars.count("<line") == 0 and bars.count("<rect") == 1 + 2 + 2  # the page, the samples, the values
    lines = draw_lines("By epochs", "epochs", "mAP50", [("One", [1], [1]), ("Two", [1], [1])])
    assert lines.count('stroke-width="3"') == 2 and lines.count("<rect") == 1
