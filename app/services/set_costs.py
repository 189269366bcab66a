"""What an image costs in stored predictions: as measured while they were made, of an ensemble its members' together."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from app.errors import NotFound
from app.records import PredictionSet
from app.services.context import Services
from app.store import predictions


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds an image through all models and fusings, and the devices that the models ran on, each once."""

    ms: float
    devices: tuple[str, ...]


def cost_of(services: Services, slug: str, record: PredictionSet) -> Cost | None:
    """The cost of a set; None where it, or one of its members, is gone or was made before costs were measured.

    Fusing counts as it was measured while the ensemble was made, warm.
    """
    if record.ms_per_image is None:
        return None
    if record.kind != "ensemble":
        return Cost(record.ms_per_image, (record.device,))
    members = cost_of_all(services, slug, record.members)
    return members and Cost(members.ms + record.ms_per_image, members.devices)


def cost_of_all(services: Services, slug: str, set_ids: Iterable[int]) -> Cost | None:
    """The cost of sets one after the other; None where that of one is not known."""
    ms, devices = 0.0, {}
    for set_id in set_ids:
        try:
            cost = cost_of(services, slug, predictions.get_set(services.database(slug), set_id))
        except NotFound:  # a checkpoint's predictions go with it
            cost = None
        if cost is None:
            return None
        ms += cost.ms
        devices |= dict.fromkeys(cost.devices)
    return Cost(ms, tuple(devices))


def describe(cost: Cost | None) -> dict[str, Any]:
    """``cost_ms`` and ``devices`` for JSON; None and [] where it is not known."""
    return {"cost_ms": cost and cost.ms, "devices": list(cost.devices) if cost else []}
