"""How options of runs and ensembles are called where they are compared, and how their values read.

Of a run's options the twin of ``widgets/option_words.js``, which names them in the form (held to by a test).
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import orjson

from app.pipeline.config import RunConfig
from app.pipeline.ensemble import SHORT_NAMES, FusionOptions
from app.pipeline.models.catalogue import DETECTORS

FUSING = "fusing: "  # what an ensemble's options begin with where they stand beside those of runs
_TITLES = {
    "method": "method",
    "iou_threshold": "IoU",
    "skip_threshold": "lowest score",
    "weights": "weights",
    "conf_type": "score of a fused box",
    "score_threshold": "score threshold",
}
_CONF_TYPES = {
    "avg": "mean of the boxes",
    "max": "the highest",
    "box_and_model_avg": "mean of boxes and members",
    "absent_model_aware_avg": "mean, absent members count",
}
_SMALL = 1e-6  # below it JavaScript writes a power of ten
_SHORT_FOR = re.compile(r"\b(roi|rpn|nms|ema)\b")


def title_of(option: str) -> str:
    """ "roi_batch_size" -> "RoI batch size", "fusing: iou_threshold" -> "Fusing: IoU"."""
    if option.startswith(FUSING):
        name = option.removeprefix(FUSING)
        return f"Fusing: {_TITLES.get(name, name.replace('_', ' '))}"
    words = _SHORT_FOR.sub(lambda found: {"roi": "RoI"}.get(found[0], found[0].upper()), option.replace("_", " "))
    return f"{words[0].upper()}{words[1:]}"


def help_of(option: str) -> str:
    """What the option is; "" where nothing says so."""
    fields = FusionOptions.model_fields if option.startswith(FUSING) else RunConfig.model_fields
    field = fields.get(option.removeprefix(FUSING))
    return field.description or "" if field else ""


def texts_of(option: str, values: Sequence[Any]) -> list[str]:
    """The values as they read, one a side: a dash where a side has none of the kind.

    Where the words would hide what differs, all of each value is shown.
    """
    texts = ["–" if value is None else text_of(option, value) for value in values]
    return [orjson.dumps(value).decode() for value in values] if len(set(texts)) == 1 else texts


def text_of(option: str, value: Any) -> str:  # noqa: ANN401 (any JSON value)
    """A value in words."""
    if option.startswith(FUSING):
        return _text_of_fusing(option.removeprefix(FUSING), value)
    if option == "model":
        return next((one.title for one in DETECTORS if one.name == value), value)
    if option == "augmentation":
        names = [step["name"] for step in value if step.get("is_enabled") is not False]
        return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "") or "None"
    if option == "phases" and isinstance(value, list):
        return ", ".join(f"{phase['train']} {phase['epochs']}" for phase in value) or "none"
    return _plain(value)


def _text_of_fusing(name: str, value: Any) -> str:  # noqa: ANN401 (any JSON value)
    if name == "weights":
        return " : ".join(f"{weight:.3g}" for weight in value) if len(set(value)) > 1 else "all alike"
    return {"method": SHORT_NAMES, "conf_type": _CONF_TYPES}.get(name, {}).get(value) or _plain(value)


def _plain(value: Any) -> str:  # noqa: ANN401 (any JSON value)
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    if isinstance(value, float):
        exact = Decimal(str(value)).normalize()
        return f"{exact:f}" if not value or abs(value) >= _SMALL else f"{exact:e}"
    return value or "none" if isinstance(value, str) else orjson.dumps(value).decode()
