"""Where the time goes, on a clock that the test sets."""

import pytest

from app.pipeline.timeline import PARTS, HostMark, Timeline


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def timeline(clock):
    return Timeline(lambda: HostMark(clock))


def spend(timeline, clock, **seconds):
    for part, duration in seconds.items():
        timeline.enter(part)
        clock.now += duration


def test_shares_are_those_of_the_time_since_the_last_report(timeline, clock):
    spend(timeline, clock, forward=1.0, backward=2.0, optimizer=1.0)
    shares = timeline.take_shares()
    assert set(shares) == set(PARTS)
    assert (shares["forward"], shares["backward"], shares["optimizer"], shares["data"]) == (0.25, 0.5, 0.25, 0)
    spend(timeline, clock, evaluation=3.0, other=1.0)
    assert timeline.take_shares()["evaluation"] == 0.75


def test_part_that_goes_on_over_a_report_is_divided(timeline, clock):
    spend(timeline, clock, evaluation=2.0)
    assert timeline.take_shares()["evaluation"] == 1
    clock.now += 5.0
    assert timeline.take_shares()["evaluation"] == 1


def test_nothing_is_told_before_any_time_has_passed(timeline):
    assert timeline.take_shares() == {}


def test_getting_an_item_is_waiting_for_data_and_using_it_is_not(timeline, clock):
    def slow_items():
        for item in range(2):
            clock.now += 3.0
            yield item

    for _ in timeline.waiting(slow_items()):
        clock.now += 1.0
    shares = timeline.take_shares()
    assert (shares["data"], shares["other"]) == (0.75, 0.25)


class QueuedMark:
    """A moment of a device that is behind: it has reached only what lies before ``Device.done``."""

    def __init__(self, device):
        self.device = device
        self.at = device.queued

    def is_reached(self):
        return self.at <= self.device.done

    def seconds_until(self, later):
        assert self.is_reached() and later.is_reached()
        return later.at - self.at


def test_work_the_device_has_not_reached_is_told_in_the_next_report():
    class Device:
        queued = 0.0
        done = 0.0

    timeline = Timeline(lambda: QueuedMark(Device))
    for part, cost in (("forward", 2.0), ("backward", 4.0)):
        timeline.enter(part)
        Device.queued += cost
    timeline.enter("data")
    Device.done = 2.0
    assert timeline.take_shares()["forward"] == 1
    Device.done = 6.0
    assert timeline.take_shares()["backward"] == 1
