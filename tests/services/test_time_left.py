import pytest

from app.services.time_left import TimeLeft


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_part_goes_by_a_guess_until_its_first_units_are_timed():
    clock = Clock()
    time_left = TimeLeft(clock)
    time_left.add("reading", 10, guess_s=5.0)
    time_left.add("writing", 4, guess_s=0.5)
    assert (time_left.left_s, time_left.share) == (52, 0)
    clock.now = 4.0
    time_left.move_to("reading", 2)
    assert time_left.left_s == pytest.approx(8 * 2 + 2)
    assert time_left.share == pytest.approx(4 / 22)
    clock.now = 6.0
    time_left.move_to("reading", 10)
    assert time_left.left_s == pytest.approx(2)


def test_the_share_never_falls_when_the_pace_does():
    clock = Clock()
    time_left = TimeLeft(clock)
    time_left.add("reading", 10, guess_s=1.0)
    time_left.add("writing", 10, guess_s=1.0)
    clock.now = 10.0
    time_left.move_to("reading", 10)
    assert time_left.share == 0.5
    clock.now = 20.0
    time_left.move_to("writing", 1)  # ten times as slow as it was guessed to be
    assert (time_left.left_s, time_left.share) == (90, 0.5)


def test_more_units_than_expected_are_no_debt():
    time_left = TimeLeft(Clock())
    time_left.add("trying", 2, guess_s=1.0)
    time_left.move_to("trying", 5)
    assert time_left.left_s == 0
