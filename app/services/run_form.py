"""The form of a new run, made from the option models: sections, controls, starting values, what the server thinks."""

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ValidationError

from app.pipeline.config import GROUPS, ConfigError, RunConfig, parse_config
from app.pipeline.models.catalogue import DETECTORS
from app.pipeline.presets import PRESETS
from app.pipeline.train.schedule import learning_rate_at
from app.services.context import Services
from app.services.suggestions import gpu_name, suggested_values
from app.store import images as image_store

# What a newcomer meets; every other option waits under "More" in its section.
BASIC_OPTIONS = frozenset(
    ("model", "pretrained", "weights_file", "image_size", "augmentation", "epochs", "batch_size", "optimizer")
    + ("learning_rate", "device")
)
_CURVE_POINTS = 200
_SHOWN = ("enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


def describe_form(services: Services, slug: str) -> dict[str, Any]:
    """Everything the form needs.

    ``groups``: title and fields (name, type, description, limits, is_basic) in order; ``suggested``: option name to
    the value that suits this machine and project; ``presets``: name, title, help and the values laid over those;
    ``models``: name, title and parameters; ``num_images`` by split; ``gpu``: its name or "". Raises NotFound.
    """
    return {
        "groups": [_describe_group(group) for group in GROUPS],
        "suggested": parse_config(suggested_values(services, slug)).model_dump(mode="json"),
        "presets": [asdict(preset) for preset in PRESETS],
        "models": [asdict(detector) for detector in DETECTORS],
        "num_images": _images_by_split(services, slug),
        "gpu": gpu_name(),
    }


def check_values(services: Services, slug: str, values: dict[str, Any]) -> dict[str, Any]:
    """What a run with these values would be, before it is started.

    ``problems``: option name ("" for several together) to what is wrong. Without problems also ``num_steps`` and
    ``schedule``: the learning rate as [step, value] pairs. Raises NotFound.
    """
    try:
        config = parse_config(values)
    except ConfigError as error:
        return {"problems": problems_of(error)}
    num_images = _training_images(services, slug, config)
    num_steps = config.epochs * -(-num_images // config.batch_size)
    return {"problems": {}, "num_images": num_images, "num_steps": num_steps, "schedule": _curve(config, num_steps)}


def problems_of(error: ConfigError) -> dict[str, str]:
    """Option name to what is wrong with it; "" holds what is wrong with several together."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return {"": str(error)}
    problems: dict[str, str] = {}
    for item in cause.errors():
        message = item["msg"].removeprefix("Value error, ")
        problems.setdefault(str(item["loc"][0]) if item["loc"] else "", message)
    return problems


def _describe_group(group: type[BaseModel]) -> dict[str, Any]:
    properties = group.model_json_schema()["properties"]
    return {
        "title": (group.__doc__ or "").strip(),
        "fields": [
            {
                "name": name,
                "type": schema.get("type", "string"),
                "description": schema.get("description", ""),
                "is_basic": name in BASIC_OPTIONS,
                **{key: schema[key] for key in _SHOWN if key in schema},
            }
            for name, schema in properties.items()
        ],
    }


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


def _training_images(services: Services, slug: str, config: RunConfig) -> int:
    with services.database(slug).read() as db:
        images = [image for image in image_store.all_of(db, "train") if not image.problem]
    return sum(config.keep_empty_images or image.num_annotations > 0 for image in images)
