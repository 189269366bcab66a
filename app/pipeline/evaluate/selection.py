"""What makes one checkpoint better than another: the run's selection metric. Imports no torch."""

from collections.abc import Mapping

TITLES = {
    "map50_f1": "0.5 mAP50 + 0.5 F1",
    "map": "mAP",
    "map50": "mAP50",
    "map75": "mAP75",
    "f1": "F1",
}

DEFAULT_METRIC = "map50_f1"


def selection_score(metric: str, figures: Mapping[str, float]) -> float:
    """The number that is compared, higher is better; ``figures`` has map, map50, map75 and f1, each 0..1."""
    if metric == "map50_f1":
        return 0.5 * figures["map50"] + 0.5 * figures["f1"]
    return figures[metric]
