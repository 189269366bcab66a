"""The work of a job's process that is a use case: importing, fusing and measuring."""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.errors import BadRequest, Conflict
from app.jobs.context import JobContext, Stopped
from app.jobs.handlers import predict_split
from app.pipeline.config import TestTimeAugmentation, parse_config
from app.pipeline.types import Event, Progress
from app.services import ensemble_lab, ensembling, importing, uploads
from app.services.context import Services
from app.services.run_time import is_training
from app.store import timings

logger = logging.getLogger(__name__)


def import_dataset(job: JobContext) -> dict[str, Any]:
    """Import ``path`` with ``options`` (mapping, merge, allow_bare) into the project; the result is the report."""
    services, path = Services(job.workspace), Path(job.payload["path"])
    report = importing.import_dataset(
        services,
        job.slug,
        path,
        **job.payload.get("options", {}),
        on_progress=lambda done, total: job.set_progress(done, total, "reading images"),
        should_stop=job.should_stop,
        write=job.write,
    )
    uploads.release(services, path)
    return report


def ensemble(job: JobContext) -> dict[str, Any]:
    """Fuse checkpoints as the payload says; the result compares the ensemble with its members."""
    return ensembling.carry_out(
        Services(job.workspace),
        job.slug,
        job.payload,
        predict=lambda checkpoint_id, split, augmentation: _predict(job, checkpoint_id, split, augmentation),
        write=job.write,
        on_progress=job.set_progress,
        should_stop=job.should_stop,
    )


def run_ensemble_lab(job: JobContext) -> dict[str, Any]:
    """Tune, judge and take apart an ensemble, predicting first what is missing; the result is the lab."""
    return ensemble_lab.carry_out(
        Services(job.workspace),
        job.slug,
        job.payload,
        predict=lambda *given: _predict_and_tell(job, *given),
        on_progress=job.set_progress,
        should_stop=job.should_stop,
    )


def measure(job: JobContext) -> dict[str, Any]:
    """Time the ``models`` with ``options`` one by one and keep each result; ``failed`` names those that cannot run."""
    from app.pipeline.models.measure import measure_model

    _require_quiet(job)
    names, failed = job.payload["models"], {}
    for done, name in enumerate(names):
        job.set_progress(done, len(names), f"measuring {name}")
        try:
            timing = measure_model(parse_config({**job.payload["options"], "model": name}), job.should_stop)
        except (ValueError, RuntimeError) as error:  # RuntimeError: out of memory, among others
            logger.warning("%s could not be measured: %s", name, error)
            failed[name] = str(error)
            continue
        if job.should_stop():
            raise Stopped
        _require_quiet(job)
        timings.keep(job.workspace, {"model": name, **asdict(timing), "measured_at": time.time()})
    job.set_progress(len(names), len(names), "measured")
    if len(failed) == len(names):
        raise BadRequest(f"Not measured: {next(iter(failed.values()))}.")
    return {"failed": failed}


def _require_quiet(job: JobContext) -> None:
    """Raise Conflict while a training is under way, beside which this machine is slower."""
    if is_training(job.workspace):
        raise Conflict("Not measured: a training is under way, beside which this machine is slower.", "Wait for it.")


def _predict_and_tell(
    job: JobContext, checkpoint_id: int, split: str, augmentation: TestTimeAugmentation, tell: Callable[[int], None]
) -> None:
    def emit(event: Event) -> None:
        if isinstance(event, Progress):
            tell(event.done)
        else:
            job.emit(event)

    predict_split(job, checkpoint_id, split, augmentation, emit)


def _predict(job: JobContext, checkpoint_id: int, split: str, augmentation: TestTimeAugmentation) -> None:
    predict_split(job, checkpoint_id, split, augmentation)
