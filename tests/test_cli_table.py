"""Tables of the command line."""

import pytest

from app.cli_table import WIDTH, number, shorten, table


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [("abcdefgh", 8, "abcdefgh"), ("abcdefghi", 8, "abcd…ghi"), ("abcdefghi", 7, "abc…ghi"), ("abc", 1, "…")],
    ids=["fits", "even", "odd", "nothing"],
)
def test_long_names_lose_their_middle(name, width, expected):
    assert shorten(name, width) == expected


def test_columns_are_aligned_and_one_of_names_gives_way():
    lines = table(("class", "AP", "kind"), [["x" * 150, "0.1", "y" * 60], ["b", "10.25", ""]], "frl")
    assert [len(line) for line in lines[:2]] == [WIDTH - 24 + len("kind"), WIDTH]
    assert lines[1].count("…") == 2 and lines[2].startswith("b ") and not lines[2].endswith(" ")
    end = lines[0].index("AP") + 2
    assert [line[:end].endswith(text) for line, text in zip(lines[1:], ("0.1", "10.25"), strict=True)] == [True, True]


def test_words_are_wrapped_in_their_column():
    lines = table(("a", "advice"), [["x", "word " * 40], ["y", ""]], "lw", indent=2)
    assert max(map(len, lines)) <= WIDTH
    assert lines[1].startswith("  x  word") and lines[2].startswith("     word") and lines[-1] == "  y"


def test_figures_that_were_not_measured_are_dashes():
    assert [number(value) for value in (None, -1.0, 0.0, 0.12345)] == ["-", "-", "0.000", "0.123"]
