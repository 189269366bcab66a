"""What a check before training found, and what would mend it. Imports no torch."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from app.pipeline.config import ConfigError, RunConfig, parse_config
from app.pipeline.models.catalogue import DETECTORS, find_detector, is_transformer

Level = Literal["green", "amber", "red"]
LEVELS: tuple[Level, ...] = ("green", "amber", "red")  # rising
Action = Literal["", "open_data", "check_again"]  # what the page offers where no option mends it
Fix = dict[str, Any]  # option name to the value that mends


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check: its name, what was found in a plain sentence, and option values that would mend it ({} for none).

    ``facts``: the numbers of the sentence that others go on with, by name and unit. ``action``: what to do instead
    where no option mends it; whatever is not green has a fix or an action.
    """

    check: str
    level: Level
    text: str
    fix: Fix = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)
    action: Action = ""


def trouble(check: str, level: Level, text: str, fix: Fix, otherwise: Action) -> Verdict:
    """A verdict that is not green, with its fix, or with what to do ``otherwise``, where there is none."""
    return Verdict(check, level, text, fix, action="" if fix else otherwise)


def worst_level(levels: list[Level]) -> Level:
    """The highest of several levels; green without any."""
    return max(levels, key=LEVELS.index, default="green")


def working_fix(config: RunConfig, **values: Any) -> Fix:  # noqa: ANN401 - option values
    """``values`` if they change something and fit the other options, else {}."""
    changed = {name: value for name, value in values.items() if getattr(config, name) != value}
    try:
        parse_config({**config.model_dump(), **changed})
    except ConfigError:
        return {}
    return changed


def smaller_models(config: RunConfig, num_parameters: float) -> Iterator[tuple[Fix, int]]:
    """(fix, its parameters) of each model below ``num_parameters`` in the catalogue: its own family first, by size.

    Those that cannot start from the same weights start from random ones. Transformers want other rates than the rest.
    """
    own = find_detector(config.model)
    family = own.family if own else ""
    for detector in sorted(DETECTORS, key=lambda one: (one.family != family, -one.num_parameters)):
        is_alien = is_transformer(detector.name) != is_transformer(config.model)
        if detector.num_parameters >= num_parameters or is_alien:
            continue
        scratch = {"pretrained": "none", "norm": "auto"}
        fix = working_fix(config, model=detector.name) or working_fix(config, model=detector.name, **scratch)
        if fix:
            yield fix, detector.num_parameters
