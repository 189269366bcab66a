"""About how long judging stored predictions takes: what is told while there is no pace to go by yet."""

from collections.abc import Callable

from app.services.context import Services
from app.store import predictions

# Of one detection, on one core; measured on 5,000 images with 100 detections each.
FIGURES_S, BUDGET_S, SUSPECTS_S, AGAIN_S, RESULTS_S = 3e-6, 3e-6, 1e-6, 5e-6, 3e-6

OnPart = Callable[[str, float], None]  # what is done next, and about how many seconds it takes


def tell_nobody(what: str, guess_s: float) -> None:
    """For those whom nobody waits for."""


def guess_s(services: Services, slug: str, set_id: int, each_s: float) -> float:
    """Seconds for all detections of a stored set, at ``each_s`` for one."""
    return predictions.count_detections(services.database(slug), set_id) * each_s
