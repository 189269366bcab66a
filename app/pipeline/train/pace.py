"""How fast a run goes, and how long it will take. Imports no torch."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.pipeline.timeline import HostMark, Mark, Timeline

REPORT_EVERY_S = 1.0


class Pace:
    """Counts images and steps against a monotonic clock; what is done while ``paused`` counts for the ETA alone.

    ``timeline`` tells where the time goes; ``mark`` makes its moments.
    """

    def __init__(
        self, num_steps: int, clock: Callable[[], float] = time.monotonic, mark: Callable[[], Mark] = HostMark
    ) -> None:
        self.timeline = Timeline(mark)
        self.num_steps = num_steps
        self._clock = clock
        self._started = clock()
        self._reported = float("-inf")
        self._window_started = clock()
        self._window_images = self._window_steps = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start of the run; those between its attempts do not count."""
        return self._clock() - self._started

    def go_on(self, elapsed_s: float) -> None:
        """Count on from what earlier attempts took."""
        self._started = self._clock() - elapsed_s

    def add(self, num_images: int) -> None:
        """Count a step and its images."""
        self._window_images += num_images
        self._window_steps += 1

    def is_due(self) -> bool:
        """Whether the last report is more than a second old."""
        return self._clock() - self._reported >= REPORT_EVERY_S

    @property
    def window(self) -> tuple[int, int, float]:
        """Steps, images and seconds since the last report."""
        return self._window_steps, self._window_images, self._clock() - self._window_started

    def images_per_s(self) -> float | None:
        """Images trained on per second since the last report; None when there were none."""
        if not self._window_images:
            return None
        return self._window_images / max(1e-9, self._clock() - self._window_started)

    def eta_s(self, step: int) -> float | None:
        """Seconds left at the pace of the whole run so far, validation included; None before the first step."""
        return self.elapsed_s / step * (self.num_steps - step) if step else None

    def restart(self) -> None:
        """Begin a new window for ``images_per_s``."""
        self._reported = self._window_started = self._clock()
        self._window_images = self._window_steps = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block out of ``images_per_s``."""
        begun = self._clock()
        yield
        self._window_started += self._clock() - begun
