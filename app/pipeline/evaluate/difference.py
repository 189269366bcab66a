"""Whether a difference between two sets of predictions is more than chance, and how that is told. Imports no numba."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

NUM_RESAMPLES = 1000
OUTCOMES = {"gain": "Gain", "noise": "Within the noise", "worse": "Worse"}
SMALLEST_SHOWN = 0.0005  # what is smaller does not show in three decimals
TOO_SMALL = "Too small to show"  # beyond chance, and of no use to anybody
NOTHING_TO_MEASURE = "The split has no labeled box, so there is nothing to compare by."


@dataclass(frozen=True)
class Difference:
    """A figure of two sets of predictions for the same images.

    difference: second less first. low, high: the 95 % interval of the difference; first_low … second_high: those of
    the figures themselves. share_better: the share of resamples in which the second is better, equals counted half.
    detectable: the smallest true difference that images like these would show in four of five cases (2.8 standard
    errors of the difference). num_images: those with labelled boxes, of the class if it is the figure of one; None
    where it was not counted.
    """

    first: float
    first_low: float
    first_high: float
    second: float
    second_low: float
    second_high: float
    difference: float
    low: float
    high: float
    share_better: float
    detectable: float
    num_images: int | None = None

    @property
    def outcome(self) -> str | None:
        """One of :data:`OUTCOMES`, for the second: chance alone explains what has 0 in its interval.

        So it does what a single image shows: drawn anew it is always the same one. None without a labelled box. What
        is less than SMALLEST_SHOWN counts as noise too, however sure it is.
        """
        if self.first < 0:
            return None
        if self.num_images == 1 or abs(self.difference) < SMALLEST_SHOWN:
            return "noise"
        return "gain" if self.low > 0 else "worse" if self.high < 0 else "noise"

    @property
    def is_clear(self) -> bool:
        """Whether chance alone does not explain it: the interval leaves out 0."""
        return self.outcome in ("gain", "worse")

    @property
    def words(self) -> str:
        """The outcome as people read it."""
        if self.outcome is None:
            return "Nothing to measure"
        is_sure = self.num_images != 1 and not self.low <= 0 <= self.high
        return TOO_SMALL if is_sure and not self.is_clear else OUTCOMES[self.outcome]

    def to_json(self) -> dict[str, Any]:
        """The fields with is_clear, outcome and words."""
        return {**asdict(self), "is_clear": self.is_clear, "outcome": self.outcome, "words": self.words}


def turn_around(difference: Mapping[str, Any]) -> dict[str, Any]:
    """The same of the two in the other order, as :meth:`Difference.to_json` gives it."""
    turned = Difference(
        first=difference["second"],
        first_low=difference["second_low"],
        first_high=difference["second_high"],
        second=difference["first"],
        second_low=difference["first_low"],
        second_high=difference["first_high"],
        difference=-difference["difference"],
        low=-difference["high"],
        high=-difference["low"],
        share_better=1 - difference["share_better"],
        detectable=difference["detectable"],
        num_images=difference["num_images"],
    )
    return turned.to_json()


def interval_text(difference: Mapping[str, Any], title: str = "") -> str:
    """ "+0.012 mAP50, 95 % interval -0.003 to +0.027"; ``title`` is that of the figure."""
    named = f" {title}" if title else ""
    return (
        f"{difference['difference']:+.3f}{named}, 95 % interval {difference['low']:+.3f} to {difference['high']:+.3f}"
    )


def words_of_sides(difference: Mapping[str, Any], names: Sequence[str]) -> str:
    """ "A is better", of two sides with these names, or what it is if neither; a single image cannot tell."""
    if difference["is_clear"]:
        return f"{names[difference['difference'] > 0]} is better"
    return difference["words"].lower() + (" (one image)" if difference["num_images"] == 1 else "")


def explain_noise(difference: Mapping[str, Any], title: str) -> str:
    """What is within the noise, in a sentence that says what these images could show."""
    if difference["detectable"] == 0:
        return f"both have the same {title}, whichever images are drawn."
    text = interval_text(difference, title)
    return f"{text}. These images would show one of {difference['detectable']:.3f} or more."


def explain_outcome(text: str, difference: Mapping[str, Any]) -> str:
    """ "Gain: TEXT. The difference is +0.012, …"; of what is within the noise also what these images could show."""
    if difference["outcome"] is None:
        return NOTHING_TO_MEASURE
    if difference["detectable"] == 0 and not difference["is_clear"]:
        return f"{difference['words']}: {text}. It is the same, whichever images are drawn."
    if difference["words"] == TOO_SMALL:
        return f"{TOO_SMALL}: {text}."
    told = f"{difference['words']}: {text}. The difference is {interval_text(difference)}"
    if difference["is_clear"]:
        return f"{told}."
    return f"{told}; these images would show one of {difference['detectable']:.3f} or more."
