"""A run that is slower than it may be, or than it was. Imports no torch."""

from collections import deque
from statistics import median

WARM_UP_STEPS = 10  # caches fill, and libraries choose their algorithms
TRIAL_STEPS = 50
SLOW_FOR_S = 60.0
_MIN_REPORTS = 30  # for a median that says something
_MAX_REPORTS = 3600


class SpeedWatch:
    """Judges the speed of a run from reports of how many images took how long; validations are left out of them.

    ``min_images_per_s`` is what it must reach on average in steps 11 to 50 of an attempt; 0 takes any speed. With
    ``is_hinting`` it tells of a slump.
    """

    def __init__(self, min_images_per_s: float, is_hinting: bool = True) -> None:
        self._least = min_images_per_s
        self._is_hinting = is_hinting
        self._num_steps = 0
        self._trial_images, self._trial_s = 0, 0.0
        self._is_judged = False
        self._stage: object = None
        self._rates: deque[float] = deque(maxlen=_MAX_REPORTS)
        self._slow_s = 0.0
        self.too_slow = ""  # why the run is to end, once it is

    def begin_stage(self, stage: object) -> None:
        """Speeds are compared within a stage: with another image size, or other parts learning, they differ rightly."""
        if stage != self._stage:
            self._stage, self._slow_s = stage, 0.0
            self._rates.clear()

    def note(self, num_steps: int, num_images: int, seconds: float) -> str:
        """Take in a report; returns a hint for the log, once, when the run has become slow, else ""."""
        if self._num_steps >= WARM_UP_STEPS and not self._is_judged:
            self._trial_images += num_images
            self._trial_s += seconds
        self._num_steps += num_steps
        if self._num_steps >= TRIAL_STEPS and not self._is_judged and self._trial_s:
            self._is_judged = True
            self._judge(self._trial_images / self._trial_s)
        return self._look_for_a_slump(num_images / max(1e-9, seconds), seconds)

    def _judge(self, rate: float) -> None:
        if rate < self._least:
            self.too_slow = (
                f"Ended because it is slow: {rate:.3g} images a second in its first {self._num_steps} steps, and "
                f"min_images_per_s is {self._least:g}."
            )

    def _look_for_a_slump(self, rate: float, seconds: float) -> str:
        usual = median(self._rates) if len(self._rates) >= _MIN_REPORTS else 0.0
        if rate < usual / 2:
            self._slow_s += seconds
        else:
            self._slow_s = 0.0
            self._rates.append(rate)  # only these: a slump must not become the usual
        if self._slow_s < SLOW_FOR_S or not self._is_hinting:
            return ""
        self._is_hinting = False  # once is enough
        return (
            f"For a minute the run has been less than half as fast as usual ({rate:.3g} images a second, usually "
            f"{usual:.3g}). Look whether other programs use the machine, whether it runs on battery, or is hot."
        )
