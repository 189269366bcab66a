"""The project's window on gray values: what of a 16-bit or gray picture is shown, and what new runs train on."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.errors import BadRequest
from app.pipeline.config import InputOptions
from app.pipeline.data.image import BadImage, Window, value_range
from app.pipeline.expectation import explain_error
from app.services.context import Services
from app.store import images, settings

SETTING = "gray_window"
NUM_LOOKED_AT = 12  # images, spread over the project: enough to know its kind


def load(services: Services, slug: str) -> Window | None:
    """The window kept with the project; None shows the whole range. Raises NotFound."""
    with services.database(slug).read() as db:
        kept = settings.get(db, SETTING)
    return Window.of(kept["center"], kept["width"]) if kept else None


def option_values(services: Services, slug: str) -> dict[str, float]:
    """The options of a new run that the project's window sets; empty without one."""
    window = load(services, slug)
    return {} if window is None else {"window_center": window.center, "window_width": window.width}


def save(services: Services, slug: str, center: float, width: float) -> dict[str, Any]:
    """Keep a window with the project, width 0 for none, and describe it. Raises BadRequest, NotFound."""
    try:
        options = InputOptions(window_center=center, window_width=width)
    except ValidationError as error:
        first = error.errors()[0]
        name, reason = str(first["loc"][0]).removeprefix("window_"), explain_error(InputOptions, first)
        raise BadRequest(f"The window's {name} {reason}.") from error
    with services.database(slug).write() as db:
        settings.put(db, SETTING, {"center": options.window_center, "width": options.window_width})
    return describe(services, slug)


def describe(services: Services, slug: str) -> dict[str, Any]:
    """``window``: center and width, or None; ``range``: gray values that the project's pictures have.

    The range leaves out the darkest and brightest two hundredths; it is None where no gray picture was found among
    some spread over the project. Raises NotFound.
    """
    window = load(services, slug)
    ranges = [found for found in map(_range_of, _some_paths(services, slug)) if found is not None]
    both = [min(low for low, _ in ranges), max(high for _, high in ranges)] if ranges else None
    return {"window": None if window is None else asdict(window), "range": both}


def _some_paths(services: Services, slug: str) -> list[Path]:
    files = services.files(slug)
    with services.database(slug).read() as db:
        found = images.all_of(db)
    stride = max(1, len(found) // NUM_LOOKED_AT)
    return [files.image(image.sha256, image.extension) for image in found[::stride][:NUM_LOOKED_AT]]


def _range_of(path: Path) -> tuple[float, float] | None:
    try:
        return value_range(path)
    except (BadImage, OSError):
        return None
