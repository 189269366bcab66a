"""What a check before training found. Imports no torch."""

from dataclasses import dataclass, field
from typing import Any, Literal

from app.pipeline.config import ConfigError, RunConfig, parse_config

Level = Literal["green", "amber", "red"]
LEVELS: tuple[Level, ...] = ("green", "amber", "red")  # rising


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check: its name, what was found in a plain sentence, and option values that would mend it ({} for none).

    ``facts``: the numbers of the sentence that others go on with, by name and unit.
    """

    check: str
    level: Level
    text: str
    fix: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)


def worst_level(levels: list[Level]) -> Level:
    """The highest of several levels; green without any."""
    return max(levels, key=LEVELS.index, default="green")


def working_fix(config: RunConfig, **values: Any) -> dict[str, Any]:  # noqa: ANN401 - option values
    """``values`` if they change something and fit the other options, else {}."""
    changed = {name: value for name, value in values.items() if getattr(config, name) != value}
    try:
        parse_config({**config.model_dump(), **changed})
    except ConfigError:
        return {}
    return changed
