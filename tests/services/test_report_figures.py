import re

from app.services.report_figures import draw_intervals, draw_lines


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_the_axes_of_curves_carry_round_numbers():
    svg = draw_lines("By epochs", "epochs", "mAP50", [("One", [1, 9, 27], [0.1, 0.5, 0.9])])
    assert [text for text in texts(svg) if text in {"5", "10", "15", "20", "25"}] == ["5", "10", "15", "20", "25"]
    assert not [text for text in texts(svg) if re.fullmatch(r"\d+\.\d+", text) and text not in ("0.25", "0.5", "0.75")]


def test_the_axis_of_intervals_is_round_around_a_named_zero():
    svg = draw_intervals("Differences", [("mAP", -0.428, -0.465, -0.363), ("mAP75", -0.663, -0.75, -0.544)])
    assert [text for text in texts(svg) if re.fullmatch(r"[+-]?[\d.]+", text)] == ["-0.5", "0", "+0.5"]


def test_equal_sides_are_drawn():
    assert texts(draw_intervals("Differences", [("F1", 0.0, 0.0, 0.0)])).count("0") == 1
