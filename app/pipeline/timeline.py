"""Where the time of a run goes: data, forward, backward, optimizer, evaluation, other. Imports no torch.

Whatever is done next is named by ``enter``; what was done before ends there. On a GPU the marks are events of its own
stream, so that a part has the time the device spent on it, and "data" the time it stood idle for want of images:
while it still works on the step before, waiting for images costs nothing. No mark waits for the device.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, Protocol, TypeVar

Part = Literal["data", "forward", "backward", "optimizer", "evaluation", "other"]
PARTS: tuple[Part, ...] = ("data", "forward", "backward", "optimizer", "evaluation", "other")
MAX_PENDING = 4096  # marks kept for a report; a run that never reports must not fill the memory

Item = TypeVar("Item")


class Mark(Protocol):
    """A moment, which on a GPU lies ahead until the work queued before it is done."""

    def is_reached(self) -> bool: ...
    def seconds_until(self, later: "Mark") -> float: ...


class HostMark:
    """A moment on the processor's clock."""

    __slots__ = ("_at",)

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._at = clock()

    def is_reached(self) -> bool:
        return True

    def seconds_until(self, later: "HostMark") -> float:
        return later._at - self._at


class Timeline:
    """Seconds by part since the last report; ``mark`` makes the moments (see Machine.mark)."""

    def __init__(self, mark: Callable[[], Mark] = HostMark) -> None:
        self._mark = mark
        self._part: Part = "other"
        self._open: Mark = mark()
        self._pending: deque[tuple[Part, Mark, Mark]] = deque(maxlen=MAX_PENDING)

    def enter(self, part: Part) -> None:
        """From now on the time belongs to ``part``."""
        if part == self._part:
            return
        now = self._mark()
        self._pending.append((self._part, self._open, now))
        self._part, self._open = part, now

    def waiting(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, with the time spent on getting each counted as "data"."""
        self.enter("data")
        for item in items:
            self.enter("other")
            yield item
            self.enter("data")
        self.enter("other")

    def take_shares(self) -> dict[Part, float]:
        """Each part's share (0..1, sum 1) of the time since the last call; {} when nothing is known yet.

        What a GPU has not reached yet is left for the next call.
        """
        seconds = dict.fromkeys(PARTS, 0.0)
        now = self._mark()
        self._pending.append((self._part, self._open, now))
        self._open = now
        while self._pending and self._pending[0][2].is_reached():
            part, begin, end = self._pending.popleft()
            seconds[part] += begin.seconds_until(end)
        total = sum(seconds.values())
        return {name: value / total for name, value in seconds.items()} if total > 0 else {}
