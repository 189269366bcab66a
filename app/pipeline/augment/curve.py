"""How often the strong augmentations still happen as a run goes on. Imports no torch."""

import math
from typing import Literal

Curve = Literal["constant", "linear", "cosine"]


def strong_share(epoch: int, num_epochs: int, curve: Curve = "constant", off_epochs: int = 0) -> float:
    """What the probabilities of strong steps are multiplied by in ``epoch`` (1..num_epochs), in 0..1.

    0 in the last ``off_epochs`` epochs. Before them 1 (constant), or falling from 1 in the first epoch to 0 in the
    first epoch that is off, or in the last one of the run: in a straight line (linear) or as half a cosine.
    """
    num_on = num_epochs - off_epochs
    if epoch > num_on:
        return 0.0
    end = num_on + 1 if off_epochs else num_on
    if curve == "constant" or end <= 1:
        return 1.0
    done = (epoch - 1) / (end - 1)
    return 1 - done if curve == "linear" else (1 + math.cos(math.pi * done)) / 2
