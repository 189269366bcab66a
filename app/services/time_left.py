"""How far work of several parts is, and how long it will still take, by the pace of each."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class _Part:
    units: int
    guess_s: float
    done: int = 0
    took_s: float = 0.0

    @property
    def left_s(self) -> float:
        pace = self.took_s / self.done if self.done else self.guess_s
        return pace * (self.units - self.done)


class TimeLeft:
    """Parts are done one after the other; a part that has not begun goes by a guess."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._parts: dict[str, _Part] = {}
        self._share = 0.0

    def add(self, name: str, units: int, guess_s: float) -> None:
        """A part of ``units`` pieces of work, of about ``guess_s`` seconds each."""
        self._parts[name] = _Part(units, guess_s)

    def move_to(self, name: str, done: int) -> None:
        """So many units of a part are done; the time since the last call was spent on it."""
        now, part = self._clock(), self._parts[name]
        part.took_s += now - self._last
        part.done = min(done, part.units)
        self._last = now

    def skip(self) -> None:
        """The time since the last call was spent on none of the parts."""
        self._last = self._clock()

    @property
    def left_s(self) -> float:
        """Seconds until the end of all parts."""
        return sum(part.left_s for part in self._parts.values())

    @property
    def share(self) -> float:
        """How much of the work is done by time, 0..1; never less than before."""
        took_s = sum(part.took_s for part in self._parts.values())
        self._share = max(self._share, took_s / max(took_s + self.left_s, 1e-9))
        return self._share
