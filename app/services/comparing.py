"""Two or more sides beside each other: what was set differently, how they got there, what differs beyond chance."""

from collections.abc import Callable, Sequence
from typing import Any

from app.errors import BadRequest
from app.pipeline.config import GROUPS, parse_config
from app.pipeline.ensemble import options_in_effect
from app.pipeline.evaluate.difference import NOTHING_TO_MEASURE, explain_noise, interval_text, turn_around
from app.pipeline.evaluate.selection import TITLES
from app.records import Job, PredictionSet
from app.services import comparison_sides, option_words, review, run_notes, truths
from app.services.comparison_sides import Chosen, Side
from app.services.context import Services
from app.services.judging_time import BUDGET_S, FIGURES_S, OnPart, guess_s, tell_nobody
from app.services.pair_figures import Report, ask_for_pair, judge_pair, stop_pair
from app.store import runs

CURVES = ("map50", "map", "f1")
LETTERS = "ABCDEF"  # what sides are called by their places, on the screen and in a report
MAX_SIDES = len(LETTERS)
_PAGE = 20_000


def describe(services: Services, slug: str, sides: Sequence[Side], wanted_split: str = "") -> dict[str, Any]:
    """What is known of the sides at once, without judging.

    split; sides: side, name, detail, run, run_name, state, checkpoint, epoch, images, set (None while not predicted)
    and job (that predicts them now, or None); config: what :func:`list_differing_options` gives.
    Raises NotFound, BadRequest for too many sides, an empty split, or a set of another split.
    """
    _check_number(sides)
    split = comparison_sides.choose_split(services, slug, sides, wanted_split)
    chosen = [comparison_sides.choose(services, slug, side, split) for side in sides]
    return {
        "split": split,
        "sides": [_describe_side(services, slug, one, split) for one in chosen],
        "config": list_differing_options(chosen),
    }


def _check_number(sides: Sequence[Side]) -> None:
    if not 1 <= len(sides) <= MAX_SIDES:
        raise BadRequest(f"1 to {MAX_SIDES} sides are shown at a time, got {len(sides)}.")


def _describe_side(services: Services, slug: str, one: Chosen, split: str) -> dict[str, Any]:
    job = None if one.record else comparison_sides.find_job(services, slug, one, split)
    return {
        **_name_side(one),
        "side": str(one.side),
        "detail": one.detail,
        "run_name": one.run.name,
        "checkpoint_id": one.checkpoint.id if one.checkpoint else None,
        "images": truths.splits_of(services, slug, one.run.id)[split].num_images,
        "job": job.id if job else None,
    }


def _name_side(one: Chosen) -> dict[str, Any]:
    return {
        "run": one.run.id,
        "name": one.name,
        "state": one.run.state,
        "checkpoint": one.checkpoint.file_name if one.checkpoint else None,
        "epoch": one.checkpoint.epoch if one.checkpoint else None,
        "set": one.record.id if one.record else None,
    }


def find_figures(
    services: Services, slug: str, first: Side, second: Side, wanted_split: str = "", wait_s: float = 0.0
) -> dict[str, Any]:
    """The figures of two predicted sides, or how far they are: as :func:`ask_for_pair`, ready ones with a verdict, and
    their ``truth`` with ``words``.

    Raises NotFound, BadRequest when they cannot be compared, Conflict while one of them has no predictions.
    """
    chosen, records = choose_two(services, slug, first, second, wanted_split)
    answer = ask_for_pair(services, slug, *records, wait_s)
    if answer["state"] == "ready":
        figures = answer["figures"]
        figures["verdict"] = _verdict(chosen, figures["differences"])
        figures["truth"]["words"] = truths.explain(services, slug, figures["truth"], records[0].split)
    return answer


def stop_figures(services: Services, slug: str, first: Side, second: Side, wanted_split: str = "") -> None:
    """End the making of the figures of two sides, if it goes on."""
    _, records = choose_two(services, slug, first, second, wanted_split)
    stop_pair(services, slug, *records)


def choose_two(
    services: Services, slug: str, first: Side, second: Side, wanted_split: str = ""
) -> tuple[list[Chosen], tuple[PredictionSet, PredictionSet]]:
    """Two sides and their predictions on a split. Raises as :func:`find_figures`."""
    split = comparison_sides.choose_split(services, slug, (first, second), wanted_split)
    chosen = [comparison_sides.choose(services, slug, side, split) for side in (first, second)]
    return chosen, comparison_sides.require_two(*chosen, split)


def compare(
    services: Services,
    slug: str,
    first: Side,
    second: Side,
    wanted_split: str = "",
    on_change: Callable[[Job], None] | None = None,
    on_part: OnPart = tell_nobody,
    report: Report = lambda done, total, message: None,
    shown: Sequence[Side] = (),
) -> dict[str, Any]:
    """Compare two sides on a split, predicting first where that was not done; blocks.

    ``shown``: all that stand beside each other, these two among them, whose options, curves and notes are told; just
    the two by default.
    split, images, left_out; truth: as :func:`truths.note_common`, with words; runs: of all that are shown letter, run,
    name, state, checkpoint, epoch, set, notes and curves, of the two also error_budget; pair: their places in runs;
    differences: figure -> what Difference.to_json gives; per_class: label, name, num_truth, the figures of both as
    first and second, and difference, that of AP50 in the same way; config: what :func:`list_differing_options` gives;
    reached: when each run first reached the lowest of their best mAP50, None of sides of one run; verdict: one
    sentence. Raises NotFound, BadRequest when the sides cannot be compared, UserError when predicting failed.
    """
    shown = list(shown) or [first, second]
    _check_number(shown)
    if missing := [str(side) for side in (first, second) if side not in shown]:
        raise BadRequest(f"{missing[0]} is compared, but is not among the sides.", "Name it among them.")
    split = comparison_sides.choose_split(services, slug, shown, wanted_split)
    chosen = [comparison_sides.choose(services, slug, side, split) for side in (first, second)]
    comparison_sides.require_different(*chosen)
    for one in chosen:
        if one.record is None:
            review.wait_for_predictions(services, slug, one.checkpoint.id, split, on_change)
    chosen, records = choose_two(services, slug, first, second, split)
    work_s = sum(guess_s(services, slug, record.id, FIGURES_S + BUDGET_S) for record in records)
    on_part("Judging both", work_s)
    figures = judge_pair(services, slug, *records, report)
    everyone = [comparison_sides.choose(services, slug, side, split) for side in shown]
    described: list[dict[str, Any]] = [
        {
            "letter": letter,
            **_name_side(one),
            "notes": run_notes.get_notes(services, slug, one.run.id),
            "curves": _summarize_curves(services, slug, one.run.id),
        }
        for letter, one in zip(LETTERS, everyone, strict=False)
    ]
    pair = [shown.index(first), shown.index(second)]
    for place, name in zip(pair, ("first", "second"), strict=True):
        described[place]["error_budget"] = figures[name]["error_budget"]
    return {
        "split": split,
        **{name: figures[name] for name in ("images", "left_out", "differences")},
        "truth": {**figures["truth"], "words": truths.explain(services, slug, figures["truth"], split)},
        "runs": described,
        "pair": pair,
        "per_class": _pair_classes(figures),
        "config": list_differing_options(everyone),
        "reached": _when_reached(described),
        "verdict": _verdict(chosen, figures["differences"]),
    }


def _pair_classes(figures: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            **{name: first[name] for name in ("label", "name", "num_truth")},
            **{
                place: {name: row[name] for name in ("ap", "ap50", "f1")}
                for place, row in (("first", first), ("second", second))
            },
            "difference": difference,
        }
        for first, second, difference in zip(
            figures["first"]["per_class"], figures["second"]["per_class"], figures["class_differences"], strict=True
        )
    ]


# ---- options and curves ----------------------------------------------------------------------------------------------


def list_differing_options(chosen: Sequence[Chosen]) -> list[dict[str, Any]]:
    """option, title, help, values and texts (one a side) of options that differ, as the form orders them.

    An ensemble's come last, but for those that its method ignores. Runs of earlier versions have the defaults of what
    they do not name.
    """
    defaults = parse_config({}).model_dump(mode="json")
    in_form = [name for group in GROUPS for name in group.model_fields]
    values = [defaults | one.run.config | _fusing_options(one) for one in chosen]
    names = dict.fromkeys([*in_form, *(name for each in values for name in each)])
    rows = [(name, [each.get(name) for each in values]) for name in names]
    return [
        {
            "option": name,
            "title": option_words.title_of(name),
            "help": option_words.help_of(name),
            "values": given,
            "texts": option_words.texts_of(name, given),
        }
        for name, given in rows
        if any(value != given[0] for value in given)
    ]


def _fusing_options(one: Chosen) -> dict[str, Any]:
    if one.checkpoint is not None:
        return {}
    return {f"{option_words.FUSING}{name}": value for name, value in options_in_effect(one.record.options).items()}


def _summarize_curves(services: Services, slug: str, run_id: int) -> dict[str, Any]:
    """Validations as columns (epoch, elapsed_s and each figure, None where it is missing), and the best mAP50."""
    points, after = [], 0
    while page := runs.metrics_after(services.database(slug), run_id, after, CURVES, _PAGE):
        points += [point for point in page if point.split == "valid"]
        after = page[-1].id
    by_epoch: dict[int, dict[str, float]] = {}
    for point in points:
        by_epoch.setdefault(point.epoch, {})[point.name] = point.value
        by_epoch[point.epoch]["elapsed_s"] = point.elapsed_s
    epochs = sorted(by_epoch)
    columns: dict[str, Any] = {name: [by_epoch[e].get(name) for e in epochs] for name in (*CURVES, "elapsed_s")}
    best = max(epochs, key=lambda epoch: by_epoch[epoch].get("map50", -1.0), default=None)
    return {
        "epoch": epochs,
        **columns,
        "best": None if best is None else {"epoch": best, **by_epoch[best]},
        "total_s": columns["elapsed_s"][-1] if epochs else None,
    }


def _when_reached(described: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """By epoch and by the clock, with the letter of each run's first side; None unless two runs were validated."""
    first_of_run = {item["run"]: item for item in reversed(described)}
    judged = [item for item in reversed(first_of_run.values()) if "map50" in (item["curves"]["best"] or {})]
    if len(judged) < 2:
        return None
    level = min(item["curves"]["best"]["map50"] for item in judged)
    return {"map50": level, "by": [{"letter": one["letter"], **_reaches(one["curves"], level)} for one in judged]}


def explain_reached(reached: dict[str, Any]) -> str:
    """ "mAP50 0.600 was first reached by A in epoch 2 after 0.3 minutes, by B in …"."""
    each = (
        f"by {one['letter']} in epoch {one['epoch']} after {one['elapsed_s'] / 60:.1f} minutes" for one in reached["by"]
    )
    return f"mAP50 {reached['map50']:.3f} was first reached {', '.join(each)}."


def _reaches(curves: dict[str, Any], level: float) -> dict[str, float]:
    place = next(n for n, value in enumerate(curves["map50"]) if value is not None and value >= level)
    return {"epoch": curves["epoch"][place], "elapsed_s": curves["elapsed_s"][place]}


def _verdict(chosen: Sequence[Chosen], differences: dict[str, Any]) -> str:
    """One sentence on mAP50, the figure that most projects look at; another one names those that differ besides it."""
    item, title = differences["map50"], TITLES["map50"]
    if item["outcome"] is None:
        return NOTHING_TO_MEASURE
    better = chosen[1 if item["difference"] > 0 else 0]
    if item["is_clear"]:
        lead = item if item["difference"] > 0 else turn_around(item)
        text = f"{better.name} is better beyond chance: {interval_text(lead, title)}."
    else:
        text = f"{item['words']}: {explain_noise(item, title)}"
    others = [TITLES[name] for name, other in differences.items() if other["is_clear"] and name != "map50"]
    if others and not item["is_clear"]:
        text += f" Clearly different: {', '.join(others)}."
    return text
