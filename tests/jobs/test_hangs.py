"""When a job counts as hung, with clocks that the test sets."""

import pytest

from app.jobs.hangs import HeartbeatWatch

DAY_S = 86_400.0


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def watched(clock, watch, seconds, beat=None, every_s=0.25):
    """Look four times a second; ``beat`` gives the job's newest heartbeat. Returns the sentences."""
    said = []
    for _ in range(round(seconds / every_s)):
        clock.now += every_s
        said.append(watch.look(beat(clock.now) if beat else 7.0))
    return [text for text in said if text]


def test_two_minutes_without_a_heartbeat_is_hung_and_a_heartbeat_ends_it():
    clock = Clock()
    watch = HeartbeatWatch(clock)
    watched(clock, watch, 60, beat=int)
    assert watched(clock, watch, 120) == []
    assert "No sign of life for 2 minutes" in watched(clock, watch, 1)[0]
    assert watch.look(8.0) == ""


def test_slow_job_has_ten_of_its_usual_steps():
    clock = Clock()
    watch = HeartbeatWatch(clock)
    watched(clock, watch, 600, beat=lambda now: now // 30)
    assert watch.limit_s == pytest.approx(300, abs=5)
    assert watched(clock, watch, 290) == []
    assert watched(clock, watch, 20) != []


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_clock_on_the_wall_set_by_a_day_declares_nothing_hung(jump_s):
    """Heartbeats carry the time on the wall: after the jump they are a day off."""
    clock = Clock()
    watch = HeartbeatWatch(clock)
    assert watched(clock, watch, 30, beat=int) == []
    assert watched(clock, watch, 300, beat=lambda now: int(now) + jump_s) == []


def test_sleep_of_the_machine_does_not_count():
    """Clocks of some systems go on meanwhile; the first look comes before the job has beaten again."""
    clock = Clock()
    watch = HeartbeatWatch(clock)
    watched(clock, watch, 30, beat=int)
    clock.now += 8 * 3600
    assert watch.look(30.0) == ""


def test_job_that_never_beat_is_hung_too():
    clock = Clock()
    watch = HeartbeatWatch(clock)
    assert watched(clock, watch, 125, beat=lambda now: None) != []
