"""The form of a new run, made from the option models: sections, controls, starting values, what the server thinks."""

from dataclasses import asdict
from typing import Any

import numpy as np
from pydantic import BaseModel

from app.pipeline.config import GROUPS, ConfigError, RunConfig, explain_use, parse_config, used_when
from app.pipeline.data.sampler import Sampler
from app.pipeline.evaluate.selection import TITLES
from app.pipeline.expectation import explain_limits
from app.pipeline.models.catalogue import DETECTORS
from app.pipeline.presets import explain_doubts, suggest_for_model
from app.pipeline.train.schedule import learning_rate_at, stages_of, steps_per_epoch
from app.services.context import Services
from app.services.run_checks import problems_here
from app.services.run_time import estimated_pace
from app.services.suggestions import gpu_name, list_presets, suggested_values
from app.store import annotations as annotation_store
from app.store import images as image_store

# What a newcomer meets; every other option waits under "More" in its section.
BASIC_OPTIONS = frozenset(
    ("model", "pretrained", "weights_file", "image_size", "augmentation", "epochs", "batch_size", "optimizer")
    + ("learning_rate", "device")
)
_CURVE_POINTS = 200
_SHOWN = ("default", "readOnly", "enum")


def describe_form(services: Services, slug: str) -> dict[str, Any]:
    """Everything the form needs.

    ``groups``: title and fields (name, type, kind, description, limits, is_basic, default, used_when) in order;
    ``suggested``: option name to the value that suits this machine and project; ``presets``: see :func:`list_presets`;
    ``models``: name, title and parameters; ``metrics``: selection metric to its title; ``num_images`` by split;
    ``gpu``: its name or "". Raises NotFound.
    """
    return {
        "groups": [_describe_group(group) for group in GROUPS],
        "suggested": parse_config(suggested_values(services, slug)).model_dump(mode="json"),
        "presets": list_presets(),
        "models": [detector.describe() for detector in DETECTORS],
        "metrics": TITLES,
        "num_images": _images_by_split(services, slug),
        "gpu": gpu_name(),
    }


def check_values(services: Services, slug: str, values: dict[str, Any]) -> dict[str, Any]:
    """What a run with these values would be, before it is started.

    ``problems``: option name to what is wrong and keeps the run from starting, ``warnings``: to what may end badly,
    ``fitting``: to what is suggested for this model in place of the suggestion for all. Of options that fit together
    also ``num_images`` of an epoch, ``num_steps``, ``pace`` (None while not known): the fields of :class:`Pace`,
    ``schedule``: the learning rate as [step, value] pairs, and ``stages``: the first step of each phase. Raises
    NotFound.
    """
    fitting = suggest_for_model(str(values.get("model", "")))
    try:
        config = parse_config(values)
    except ConfigError as error:
        return {"problems": error.problems, "warnings": {}, "fitting": fitting}
    num_images = _images_of_epoch(services, slug, config)
    with services.database(slug).read() as db:
        sizes = [(image.width, image.height) for image in image_store.all_of(db, "train") if not image.problem]
        num_valid = sum(not image.problem for image in image_store.all_of(db, "valid"))
    pace = estimated_pace(services, config, num_images, sizes, num_valid)
    num_steps = config.epochs * steps_per_epoch(-(-num_images // config.batch_size), config)
    return {
        "problems": problems_here(services, slug, config),
        "warnings": explain_doubts(config),
        "fitting": fitting,
        "num_images": num_images,
        "num_steps": num_steps,
        "pace": asdict(pace) if pace else None,
        "schedule": _curve(config, num_steps),
        "stages": [stage.first for stage in stages_of(num_steps, config)],
    }


def _describe_group(group: type[BaseModel]) -> dict[str, Any]:
    properties = group.model_json_schema()["properties"]
    return {
        "title": (group.__doc__ or "").strip(),
        "fields": [
            {
                "name": name,
                "type": schema.get("type", "string"),
                "kind": _kind(schema),
                "description": schema.get("description", ""),
                "is_basic": name in BASIC_OPTIONS,
                "used_when": used_when(name),
                "use": explain_use(name),
                "limits": explain_limits(schema),
                **{key: schema[key] for key in _SHOWN if key in schema},
            }
            for name, schema in properties.items()
            if not schema.get("readOnly")  # filled in by the run itself
        ],
    }


def _kind(schema: dict[str, Any]) -> str:
    """What control an option takes, beyond its type: "numbers", "shapes" (pairs of numbers), "records" or ""."""
    items = schema.get("items", {})
    if schema.get("type") != "array":
        return ""
    if items.get("type") in ("integer", "number"):
        return "numbers"
    return "shapes" if items.get("type") == "array" else "records"


def _curve(config: RunConfig, num_steps: int) -> list[tuple[int, float]]:
    """The learning rate at up to 200 steps, the first and the last among them."""
    stride = max(1, num_steps // _CURVE_POINTS)
    steps = [*range(0, num_steps, stride)]
    if steps and steps[-1] != num_steps - 1:
        steps.append(num_steps - 1)
    return [(step, learning_rate_at(step, num_steps, config)) for step in steps]


def _images_by_split(services: Services, slug: str) -> dict[str, int]:
    with services.database(slug).read() as db:
        images = [image for image in image_store.all_of(db) if not image.problem]
    return {split: sum(image.split == split for image in images) for split in ("train", "valid", "test")}


def _images_of_epoch(services: Services, slug: str, config: RunConfig) -> int:
    """How many images an epoch draws; which classes they hold is asked for only where it matters."""
    with services.database(slug).read() as db:
        images = [image for image in image_store.all_of(db, "train") if not image.problem]
        rows = annotation_store.box_rows(db) if config.sampling == "repeat_factor" else []
    classes: dict[int, list[int]] = {image.id: [] for image in images}
    for image_id, category_id, *_ in rows:
        classes.get(image_id, []).append(category_id)
    if not rows:
        classes = {image.id: [0] * min(1, image.num_annotations) for image in images}
    return len(Sampler([np.array(one, np.int64) for one in classes.values()], config))
