"""The work of a job's process that is a use case: importing and fusing."""

from pathlib import Path
from typing import Any

from app.jobs.context import JobContext
from app.jobs.handlers import predict_split
from app.services import ensembling, importing, uploads
from app.services.context import Services


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
        predict=lambda checkpoint_id, split: _predict(job, checkpoint_id, split),
        write=job.write,
        on_progress=job.set_progress,
        should_stop=job.should_stop,
    )


def _predict(job: JobContext, checkpoint_id: int, split: str) -> None:
    predict_split(job, checkpoint_id, split)
