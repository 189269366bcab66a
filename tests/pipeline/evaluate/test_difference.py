"""One rule and one wording for what is more than chance."""

from dataclasses import replace

import pytest

from app.pipeline.evaluate.difference import Difference, explain_noise, explain_outcome, turn_around, words_of_sides


def make_difference(difference, low, high, detectable=0.02, first=0.6):
    share = 0.9 if difference > 0 else 0.1
    second = first + difference
    return Difference(first, 0.5, 0.7, second, 0.5, 0.7, difference, low, high, share, detectable)


@pytest.mark.parametrize(
    ("given", "outcome", "expected"),
    [
        ((0.012, 0.003, 0.02), "gain", "Gain: Said. The difference is +0.012, 95 % interval +0.003 to +0.020."),
        (
            (0.012, -0.003, 0.02),
            "noise",
            "Within the noise: Said. The difference is +0.012, 95 % interval -0.003 to +0.020; these images would show"
            " one of 0.020 or more.",
        ),
        ((0.012, 0.0, 0.02), "noise", None),  # an interval that begins at 0 holds it
        ((-0.012, -0.02, -0.003), "worse", "Worse: Said. The difference is -0.012, 95 % interval -0.020 to -0.003."),
        ((0.0004, 0.0001, 0.0009), "noise", "Too small to show: Said."),
        ((-0.0004, -0.0009, 0.0001), "noise", None),
        ((0.0, 0.0, 0.0, 0.0), "noise", "Within the noise: Said. It is the same, whichever images are drawn."),
        ((0.0, 0.0, 0.0, 0.0, -1.0), None, "The split has no labeled box, so there is nothing to compare by."),
    ],
    ids=["gain", "noise", "edge", "worse", "too small", "small and unsure", "same", "nothing"],
)
def test_outcome_goes_by_whether_the_interval_holds_0(given, outcome, expected):
    difference = make_difference(*given)
    told = difference.to_json()
    assert (told["outcome"], told["is_clear"]) == (outcome, outcome in ("gain", "worse"))
    if expected:
        assert explain_outcome("Said", told) == expected


def test_one_image_tells_nothing_of_chance():
    given = make_difference(0.3, 0.3, 0.3)
    told = replace(given, num_images=1).to_json()
    assert (told["outcome"], words_of_sides(told, "AB")) == ("noise", "within the noise (one image)")
    assert words_of_sides(given.to_json(), "AB") == words_of_sides(replace(given, num_images=2).to_json(), "AB")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((0.3, 0.2, 0.4), "B is better"),
        ((-0.3, -0.4, -0.2), "A is better"),
        ((0.3, -0.2, 0.4), "within the noise"),
        ((0.0004, 0.0001, 0.0009), "too small to show"),
    ],
)
def test_of_two_sides_the_better_one_is_named(given, words):
    assert words_of_sides(make_difference(*given).to_json(), "AB") == words


def test_a_difference_turned_around_is_that_of_the_other():
    told = make_difference(0.012, 0.003, 0.02).to_json()
    turned = turn_around(told)
    assert (turned["first"], turned["second"], turned["difference"]) == (told["second"], told["first"], -0.012)
    assert (turned["low"], turned["high"], turned["outcome"]) == (-0.02, -0.003, "worse")
    assert turn_around(turned) == pytest.approx(told)


def test_noise_says_what_these_images_could_show():
    told = make_difference(0.012, -0.003, 0.02).to_json()
    assert explain_noise(told, "mAP50") == (
        "+0.012 mAP50, 95 % interval -0.003 to +0.020. These images would show one of 0.020 or more."
    )
