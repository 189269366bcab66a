"""The project's augmentation chain: what is on offer, keeping it, and previewing it in the warm helper."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError

from app.errors import BadRequest
from app.jobs.helper import shared_helper
from app.pipeline.augment.catalogue import CATALOGUE, Step
from app.pipeline.augment.presets import PRESETS
from app.pipeline.presets import suggest_augmentation
from app.services.context import Services
from app.store import annotations, categories, images, settings

SETTING = "augmentation"
MAX_STEPS = 40
MAX_VARIANTS = 16
RENDER = "app.pipeline.augment.preview:render"

_steps = TypeAdapter(tuple[Step, ...])


def catalogue() -> dict[str, Any]:
    """Everything that can go into a chain, and the presets; begins to warm the helper up for the first preview."""
    helper = shared_helper()
    helper.start()
    return {
        "steps": [asdict(entry) for entry in CATALOGUE.values()],
        "presets": [
            {"name": preset.name, "title": preset.title, "help": preset.help, "steps": _dumped(preset.steps)}
            for preset in PRESETS.values()
        ],
        "helper": helper.state,
    }


def parse_steps(values: Sequence[Any]) -> tuple[Step, ...]:
    """Validate a chain given as dicts; raises BadRequest naming the entry that is wrong."""
    if len(values) > MAX_STEPS:
        raise BadRequest(f"A chain has at most {MAX_STEPS} steps, got {len(values)}.", "Remove some.")
    try:
        return _steps.validate_python(list(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = f"step {int(first['loc'][0]) + 1}" if first["loc"] else "the chain"
        message = first["msg"].removeprefix("Value error, ")
        raise BadRequest(f"Augmentation, {where}: {message}.", "Correct or remove it.") from error


def load(services: Services, slug: str) -> tuple[Step, ...]:
    """The chain kept with the project, or the one suggested for its classes before any was kept. Raises NotFound."""
    with services.database(slug).read() as db:
        kept = settings.get(db, SETTING)
        names = [category.name for category in categories.all_of(db)]
    return parse_steps(suggest_augmentation(names) if kept is None else kept)


def save(services: Services, slug: str, steps: Sequence[Any]) -> tuple[Step, ...]:
    """Keep the chain with the project: new runs start with it. Raises BadRequest, NotFound."""
    checked = parse_steps(steps)
    with services.database(slug).write() as db:
        settings.put(db, SETTING, _dumped(checked))
    return checked


def preview(
    services: Services, slug: str, *, steps: Sequence[Any], image_id: int, seed: int, count: int, size: int
) -> dict[str, Any]:
    """An image as it is and ``count`` variants of it: exactly what epochs 1 to ``count`` of a training would see.

    Both are dicts of jpeg (bytes), width, height, boxes (xyxy pixels of that picture), labels (category ids) and lost
    (how many boxes are gone). Raises BadRequest, NotFound, HelperFailed.
    """
    checked = parse_steps(steps)
    files = services.files(slug)
    with services.database(slug).read() as db:
        image = images.get(db, image_id)
        boxes = [item for item in annotations.of_image(db, image_id) if not item.is_crowd]
    if image.problem:
        raise BadRequest(f"{image.file_name} is not trained on. {image.problem}", "Choose another image.")
    try:
        return shared_helper().call(
            RENDER,
            path=str(files.image(image.sha256, image.extension)),
            rotation=image.rotation,
            boxes=[item.bbox for item in boxes],
            labels=[item.category_id for item in boxes],
            image_id=image_id,
            steps=_dumped(checked),
            seed=seed,
            count=count,
            size=size,
        )
    except (ValueError, OSError) as error:
        raise BadRequest(
            f"{image.file_name} cannot be previewed: {error}", "Check the file, or choose another image."
        ) from error


def _dumped(steps: Sequence[Step]) -> list[dict[str, Any]]:
    return [step.model_dump(mode="json") for step in steps]
