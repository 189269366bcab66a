"""Checking a run before it is started: asked for here, done by a job, kept for the page."""

import time
from collections.abc import Callable
from typing import Any

from app.records import Job
from app.services import jobs
from app.services.context import Services
from app.services.models import resolve_start
from app.services.run_checks import require_runnable
from app.services.training import build_config, require_training_images
from app.store import settings

REPORT = "preflight"  # setting: the newest report


def start(services: Services, slug: str, values: dict[str, Any] | None = None, preset: str = "") -> Job:
    """Queue the checks of a run with these options; refused for the same reasons as the run itself (see start_run)."""
    config = build_config(services, slug, values or {}, preset)
    require_runnable(services, slug, config)
    require_training_images(services, slug)
    asked = config.model_dump(mode="json")
    resolved = resolve_start(services, slug, config).model_dump(mode="json")
    return jobs.enqueue(services, slug, "preflight", {"config": resolved, "asked": asked})


def latest(services: Services, slug: str) -> dict[str, Any] | None:
    """The newest report, growing while its job is at work; None before the first.

    ``job``: its id; ``config``: the options as asked for; ``checked_at``; ``num_checks``; ``verdicts``: check, title,
    level (green, amber or red), text, fix (option values that would mend it). Raises NotFound.
    """
    with services.database(slug).read() as db:
        return settings.get(db, REPORT)


def new_report(job_id: int, config: dict[str, Any], num_checks: int) -> dict[str, Any]:
    """A report without verdicts yet."""
    return {"job": job_id, "config": config, "checked_at": time.time(), "num_checks": num_checks, "verdicts": []}


def check_and_wait(
    services: Services,
    slug: str,
    values: dict[str, Any],
    preset: str = "",
    on_change: Callable[[Job], None] | None = None,
) -> dict[str, Any]:
    """Check, and return the job's result (``level``, the worst one, and ``verdicts``) when it is done.

    Raises as :func:`start` does, and UserError when the job did not end well.
    """
    job = start(services, slug, values, preset)
    return jobs.wait_until_done(services, slug, job.id, "The checks", on_change).result
