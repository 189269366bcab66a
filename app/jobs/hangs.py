"""Telling a job that hangs from one that is slow, by the heartbeats that somebody saw, not by the clock on the wall."""

import time
from collections import deque
from collections.abc import Callable
from statistics import median

HUNG_AFTER_S = 120.0
HUNG_AFTER_BEATS = 10
_MAX_LOOK_S = 5.0  # a longer time between two looks is one in which the machine or the looker slept
_MAX_BEATS = 100


class HeartbeatWatch:
    """Watches the heartbeats of one job, which beats when it moves: about once a second, or once a long step.

    Hung is what has not beaten for two minutes, nor for ten times as long as usual. A heartbeat is only compared with
    the one before: whether their times make sense does not matter, so the clock may be set.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_at = clock()
        self._last: float | None = None
        self._silent_s = 0.0
        self._gaps: deque[float] = deque(maxlen=_MAX_BEATS)

    def look(self, heartbeat: float | None) -> str:
        """Take in the job's newest heartbeat; returns the sentence to show when the job hangs, else ""."""
        now = self._clock()
        self._silent_s += min(now - self._looked_at, _MAX_LOOK_S)
        self._looked_at = now
        if heartbeat != self._last:
            if self._last is not None:
                self._gaps.append(self._silent_s)
            self._last, self._silent_s = heartbeat, 0.0
        if self._silent_s <= self.limit_s:
            return ""
        return f"No sign of life for {self.limit_s / 60:.0f} minutes: it may hang. Look at the log, or stop it."

    @property
    def limit_s(self) -> float:
        """How long a silence is ordinary."""
        return max(HUNG_AFTER_S, HUNG_AFTER_BEATS * median(self._gaps) if self._gaps else 0.0)
