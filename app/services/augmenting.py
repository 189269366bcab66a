"""The project's augmentation chain: what is on offer, keeping it, and previewing it in the warm helper."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from sqlite_utils import Database

from app.errors import BadRequest
from app.jobs.helper import shared_helper
from app.pipeline.augment.catalogue import CATALOGUE, Step
from app.pipeline.augment.curve import Curve, strong_share
from app.pipeline.augment.presets import PRESETS
from app.pipeline.data.resize import Resize
from app.pipeline.expectation import explain_error
from app.pipeline.presets import suggest_augmentation
from app.services import gray_window
from app.services.context import Services
from app.store import annotations, categories, images, settings
from app.store.files import ProjectFiles

SETTING = "augmentation"
CURVE_SETTING = "augmentation_curve"
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
        inside = "".join(f"{part}: " for part in first["loc"][1:])
        raise BadRequest(
            f"Augmentation, {where}: {inside}{explain_error(Step, {**first, 'loc': first['loc'][1:]})}.",
            "Correct or remove it.",
        ) from error


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


@dataclass(frozen=True, slots=True)
class StrongSteps:
    """How often strong steps still happen as a run goes on; see ``pipeline.augment.curve``."""

    curve: Curve = "constant"
    off_epochs: int = 0

    def option_values(self) -> dict[str, Any]:
        """As options of a run."""
        return {"augmentation_curve": self.curve, "augmentation_off_epochs": self.off_epochs}

    def shares(self, num_epochs: int) -> list[float]:
        """What the probabilities are multiplied by in each epoch of a run."""
        return [strong_share(epoch, num_epochs, self.curve, self.off_epochs) for epoch in range(1, num_epochs + 1)]


def load_curve(services: Services, slug: str) -> StrongSteps:
    """The curve kept with the project. Raises NotFound."""
    with services.database(slug).read() as db:
        return StrongSteps(**settings.get(db, CURVE_SETTING, {}))


def save_curve(services: Services, slug: str, strong: StrongSteps) -> StrongSteps:
    """Keep the curve with the project: new runs start with it. Raises NotFound."""
    with services.database(slug).write() as db:
        settings.put(db, CURVE_SETTING, asdict(strong))
    return strong


def preview(
    services: Services,
    slug: str,
    *,
    steps: Sequence[Any],
    image_id: int,
    seed: int,
    count: int,
    size: int,
    resize: Resize = "longest",
    late_of: int = 0,
) -> dict[str, Any]:
    """An image as it is and ``count`` variants of it: exactly what epochs 1 to ``count`` of a training would see.

    With ``late_of`` (a number of epochs) those are the last of that many, with strong steps as rare as the project's
    curve makes them; otherwise strong steps have their full probability. Steps that mix images take the others from the
    train split. Returns ``original`` and ``variants``, dicts of jpeg (bytes), width, height, boxes (xyxy pixels of that
    picture), labels (category ids), lost (how many boxes are gone) and epoch; and ``images_per_s`` of one core. Raises
    BadRequest, NotFound, HelperFailed.
    """
    checked = parse_steps(steps)
    files = services.files(slug)
    first_epoch, shares = 1, []
    if late_of:
        first_epoch = max(1, late_of - count + 1)
        shares = load_curve(services, slug).shares(late_of)[first_epoch - 1 :]
        count = len(shares)
    window = gray_window.load(services, slug)
    with services.database(slug).read() as db:
        image = images.get(db, image_id)
        boxes = [item for item in annotations.of_image(db, image_id) if not item.is_crowd]
        partners = _partners(db, files) if any(_mixes(step) for step in checked) else []
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
            resize=resize,
            window=(window.center, window.width) if window else (0.0, 0.0),
            partners=partners,
            first_epoch=first_epoch,
            strong_shares=shares,
        )
    except (ValueError, OSError) as error:
        raise BadRequest(
            f"{image.file_name} cannot be previewed: {error}", "Check the file, or choose another image."
        ) from error


def _mixes(step: Step) -> bool:
    return step.is_enabled and CATALOGUE[step.name].kind == "mixing"


def _partners(db: Database, files: ProjectFiles) -> list[tuple[str, int, np.ndarray, np.ndarray]]:
    """Path, rotation, boxes [K, 4] and category ids [K] of every image that training may mix in, in its order."""
    usable = [image for image in images.all_of(db, "train") if not image.problem]
    rows = np.array(annotations.box_rows(db, with_crowds=False), np.float64).reshape(-1, 6)
    firsts = np.searchsorted(rows[:, 0], [image.id for image in usable], "left")
    ends = np.searchsorted(rows[:, 0], [image.id for image in usable], "right")
    return [
        (
            str(files.image(image.sha256, image.extension)),
            image.rotation,
            rows[first:end, 2:],
            rows[first:end, 1].astype(np.int64),
        )
        for image, first, end in zip(usable, firsts, ends, strict=True)
    ]


def _dumped(steps: Sequence[Step]) -> list[dict[str, Any]]:
    return [step.model_dump(mode="json") for step in steps]
