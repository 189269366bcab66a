"""What makes one checkpoint better than another: the run's selection metric. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from app.pipeline.evaluate.difference import explain_outcome

TITLES = {
    "map50_f1": "0.5 mAP50 + 0.5 F1",
    "map": "mAP",
    "map50": "mAP50",
    "map75": "mAP75",
    "f1": "F1",
}

DEFAULT_METRIC = "map50_f1"
NOTABLE = 0.01  # a figure that moved by less is not worth a word


def selection_score(metric: str, figures: Mapping[str, float]) -> float:
    """The number that is compared, higher is better; ``figures`` has map, map50, map75 and f1, each 0..1."""
    if metric == "map50_f1":
        return 0.5 * figures["map50"] + 0.5 * figures["f1"]
    return figures[metric]


def explain_gain(
    metric: str,
    before: Mapping[str, float],
    after: Mapping[str, float],
    before_name: str,
    after_name: str,
    noise: Mapping[str, Any] | None,
) -> str:
    """The verdict in words: from what to what by which metric, and which other figures moved.

    noise: the difference of the two scores, as Difference.to_json gives it: with it the verdict begins with what it is.
    """
    scores = [selection_score(metric, figures) for figures in (after, before)]
    text = (
        f"{scores[0]:.3f} {after_name}, {scores[1]:.3f} {before_name}, by the run's selection metric, {TITLES[metric]}"
    )
    moved = explain_moves(metric, before, after)
    told = explain_outcome(text, noise) if noise else f"{text}."
    return f"{told} {moved}." if moved else told


def explain_moves(metric: str, before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """Which figures besides the metric rose or fell by enough to be worth a word; "" when none did."""
    others = [name for name in ("map", "map50", "map75", "f1") if name != metric]
    changes = {name: after[name] - before[name] for name in others}
    return _joined(
        [
            f"{TITLES[name]} {'rose' if change > 0 else 'fell'} by {abs(change):.3f}"
            for name, change in changes.items()
            if abs(change) >= NOTABLE
        ]
    )


def _joined(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
