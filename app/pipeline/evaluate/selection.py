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
    """The verdict in words: with what the score is how high by which metric, and which has more of other figures.

    noise: the difference of the two scores, as Difference.to_json gives it: with it the verdict begins with what it is.
    """
    scores = [selection_score(metric, figures) for figures in (after, before)]
    text = (
        f"{scores[0]:.3f} with {after_name}, {scores[1]:.3f} with {before_name}, "
        f"by the run's selection metric, {TITLES[metric]}"
    )
    told = explain_outcome(text, noise) if noise else f"{text}."
    return told + explain_moves(metric, before, after, before_name, after_name)


def explain_moves(
    metric: str, before: Mapping[str, float], after: Mapping[str, float], before_name: str, after_name: str
) -> str:
    """A sentence to go on with: which of the two has more of what besides the metric, by enough to be worth a word.

    " The ensemble has 0.029 more mAP; its best member has 0.012 more F1."; "" when nothing differs by so much.
    """
    leads = {name: after[name] - before[name] for name in ("map", "map50", "map75", "f1") if name != metric}
    parts = []
    for owner, sign in ((after_name, 1), (before_name, -1)):
        more = [f"{sign * lead:.3f} more {TITLES[name]}" for name, lead in leads.items() if sign * lead >= NOTABLE]
        parts += [f"{owner} has {_joined(more)}"] if more else []
    text = "; ".join(parts)
    return f" {text[0].upper()}{text[1:]}." if text else ""


def _joined(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
