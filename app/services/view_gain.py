"""Whether a test-time augmentation gains more than chance: each view less one view, by the paired bootstrap."""

from typing import Any

from app.pipeline.evaluate.selection import explain_gain
from app.services.context import Services
from app.services.pair_figures import Report, measure_noise
from app.store import predictions


def measure_gain(
    services: Services, slug: str, table: dict[str, Any], report: Report = lambda done, total, message: None
) -> dict[str, Any]:
    """The table of :func:`review.compare_views` with what its differences mean; blocks, the second time it is there.

    rows: also ``noise``, the score less that of "off" as Difference.to_json gives it with ``figure`` (None of "off"
    itself); ``outcome``: that of the best of the others; ``is_gain``: whether it beats "off" beyond chance; ``best``:
    it if so, else "off"; ``verdict`` says all that.
    """
    database, metric = services.database(slug), table["metric"]
    off, *others = table["rows"]
    one_view = predictions.get_set(database, off["set"])
    measured = [
        {
            **row,
            "noise": measure_noise(services, slug, one_view, predictions.get_set(database, row["set"]), metric, report),
        }
        for row in others
    ]
    best = max(measured, key=lambda row: row["score"])
    is_gain = best["noise"]["outcome"] == "gain"
    return {
        **table,
        "rows": [{**off, "noise": None}, *measured],
        "best": best["test_time_augmentation"] if is_gain else "off",
        "outcome": best["noise"]["outcome"],
        "is_gain": is_gain,
        "verdict": explain_gain(metric, off, best, off["name"], best["name"], best["noise"]),
    }
