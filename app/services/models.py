"""The detectors on offer: sizes, published weights, seconds an image once measured, cards; and timm's by name."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from app.errors import BadRequest, NotFound
from app.jobs.helper import shared_helper
from app.pipeline.config import RunConfig
from app.pipeline.models.catalogue import DETECTORS, find_detector, timm_name, weights_folder
from app.records import Job
from app.services import jobs
from app.services.context import Services
from app.store import categories, runs, timings

RUN_PREFIX = "run:"  # in weights_file: the best checkpoint of that run
CARD_NAME = "model.json"
MAX_MEASURED = 40
HELPER_TIMEOUT_S = 180.0  # the first call imports torchvision and timm: seconds, minutes on a busy machine
INSPECT = "app.pipeline.models.backbones:inspect_timm"
DESCRIBE = "app.pipeline.models.card:describe_config"
# What the time of a step depends on, of the options in a form.
TIMED_OPTIONS = frozenset(
    ("image_size", "channels", "pooler_size", "rpn_batch_size", "roi_batch_size", "proposals", "max_detections")
    + ("device", "precision")
)


def list_catalogue(num_classes: int, channels: int) -> list[dict[str, Any]]:
    """All detectors, the smallest first, with ``parameters`` for ``num_classes`` (with the background) and channels.

    Raises BadRequest for fewer than two classes, or channels other than 1 and 3.
    """
    if num_classes < 2 or channels not in (1, 3):
        raise BadRequest(
            f"Classes must be 2 or more (the background is one), channels 1 or 3; got {num_classes} and {channels}."
        )
    listed = [detector.describe(num_classes, channels) for detector in DETECTORS]
    return sorted(listed, key=lambda model: model["parameters"])


def list_models(services: Services, slug: str, channels: int = 3) -> dict[str, Any]:
    """The picker's table: ``models`` as counted for this project's classes, each with its ``timing`` or None.

    ``folder`` is where pretrained weights are looked for. Raises NotFound, BadRequest.
    """
    with services.database(slug).read() as db:
        num_classes = len(categories.all_of(db)) + 1
    newest = {timing["model"]: timing for timing in timings.all_of(services.workspace)}
    listed = list_catalogue(max(2, num_classes), channels)
    named = [name for name in newest if find_detector(name) is None]
    return {
        "models": [{**model, "timing": newest.get(model["name"])} for model in listed],
        "others": [{"name": name, "timing": newest[name]} for name in sorted(named)],
        "num_classes": num_classes,
        "folder": str(weights_folder()),
    }


def describe_card(services: Services, slug: str, values: dict[str, Any]) -> dict[str, Any]:
    """The card of the model that a run with these options would train, read from a live model in the helper.

    Raises BadRequest with the reason when there is no such model, NotFound, HelperFailed.
    """
    with services.database(slug).read() as db:
        num_categories = max(1, len(categories.all_of(db)))
    try:
        return shared_helper().call(DESCRIBE, timeout_s=HELPER_TIMEOUT_S, values=values, num_categories=num_categories)
    except ValueError as error:
        text = str(error)
        raise BadRequest(
            f"{text}{'' if text.endswith(('?', '.')) else '.'}", "Choose another, or correct it."
        ) from error


def card_of_run(services: Services, slug: str, run_id: int) -> dict[str, Any]:
    """The card that a run wrote when it started; raises NotFound before that."""
    path = services.files(slug).run(run_id) / CARD_NAME
    if not path.is_file():
        raise NotFound(f"Run {run_id} has no card of its model yet.", "It is written when the run starts.")
    return orjson.loads(path.read_bytes())


def timm_problems(config: RunConfig) -> dict[str, str]:
    """Option name to why timm/NAME cannot be trained like this; {} for all other models. Raises HelperFailed."""
    name = timm_name(config.model)
    if not name:
        return {}
    facts, reason = _inspect(name)
    if reason:
        return {"model": reason}
    found = {}
    if config.pretrained == "backbone" and not facts["tagged"]:
        found["pretrained"] = f"timm has published no weights for {name}: choose 'none' or 'file'"
    if config.norm != "auto" and not facts["has_batch_norm"]:
        found["norm"] = f"norm '{config.norm}' replaces batch norm, and timm/{name} has none: choose 'auto'"
    return found


@lru_cache(maxsize=256)
def _inspect(name: str) -> tuple[dict[str, Any], str]:
    """(facts, why not) of a backbone of timm; only the helper process has it loaded."""
    try:
        return shared_helper().call(INSPECT, timeout_s=HELPER_TIMEOUT_S, name=name), ""
    except ValueError as error:
        return {}, str(error)


def resolve_start(services: Services, slug: str, config: RunConfig) -> RunConfig:
    """The config with ``run:ID`` in weights_file replaced by the path of that run's best checkpoint.

    The one with the highest score, else the last. Raises BadRequest when the run has none, or its file is gone.
    """
    if config.pretrained != "file" or not config.weights_file.startswith(RUN_PREFIX):
        return config
    run_id = int(config.weights_file.removeprefix(RUN_PREFIX))
    kept = runs.list_checkpoints(services.database(slug), runs.get_run(services.database(slug), run_id).id)
    folder = services.files(slug).run(run_id)
    kept.sort(
        key=lambda one: (one.is_last, -(one.score or 0.0), one.epoch)
    )  # of equal ones the earliest, as in results
    paths = [folder / checkpoint.file_name for checkpoint in kept]
    best = next((path for path in paths if path.is_file()), None)
    if best is None:
        raise BadRequest(f"Run {run_id} has no checkpoint to start from.", "Choose another run or file.")
    return config.model_copy(update={"weights_file": str(Path(best).resolve())})


def start_measuring(services: Services, slug: str, models: list[str], values: dict[str, Any]) -> Job:
    """Queue a measurement of seconds an image for ``models``, with the options of a form that time depends on.

    Raises BadRequest for a name that is not in the catalogue nor timm/NAME, NotFound.
    """
    unknown = [name for name in models if find_detector(name) is None and not timm_name(name)]
    if unknown or not 1 <= len(models) <= MAX_MEASURED:
        raise BadRequest(f"There is no model {unknown[0]!r}." if unknown else "Name the models to measure.")
    options = {name: value for name, value in values.items() if name in TIMED_OPTIONS}
    return jobs.enqueue(services, slug, "measure", {"models": models, "options": options})
