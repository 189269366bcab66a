"""The job that checks a run before it is started; loads torch, so only a job's process imports it."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.jobs.context import JobContext, Stopped
from app.pipeline.config import parse_config
from app.pipeline.data.snapshot import load_snapshot
from app.pipeline.preflight.checks import NUM_CHECKS, TITLES, preflight
from app.pipeline.preflight.verdict import worst_level
from app.services.context import Services
from app.services.dataset import write_snapshot
from app.services.preflight import REPORT, new_report
from app.store import jobs, settings

PLACE = ".preflight-"  # beside the runs: on their disk, and the snapshot's image paths are relative


def check(job: JobContext) -> dict[str, Any]:
    """Check ``config`` on the project's labels as they are now; each verdict is kept at once for the page."""
    for left in job.files.runs.glob(f"{PLACE}*"):  # of a job that was killed: there is one at a time
        shutil.rmtree(left, ignore_errors=True)
    folder = job.files.runs / f"{PLACE}{job.job.id}"
    try:
        return _check_in(job, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_in(job: JobContext, folder: Path) -> dict[str, Any]:
    report = new_report(job.job.id, job.payload["asked"], NUM_CHECKS)
    _keep(job, report)
    write_snapshot(Services(job.workspace), job.slug, folder / "dataset.json")
    snapshot = load_snapshot(folder / "dataset.json")
    config = parse_config(job.payload["config"])
    for verdict in preflight(config, snapshot, folder, job.run_context(), _is_training(job)):
        report["verdicts"].append({"title": TITLES[verdict.check], **asdict(verdict)})
        _keep(job, report)
    if job.should_stop():
        raise Stopped
    job.set_progress(NUM_CHECKS, NUM_CHECKS, "checked")
    verdicts = report["verdicts"]
    return {"level": worst_level([verdict["level"] for verdict in verdicts]), "verdicts": verdicts}


def _keep(job: JobContext, report: dict[str, Any]) -> None:
    with job.write() as db:
        settings.put(db, REPORT, report)


def _is_training(job: JobContext) -> bool:
    """Whether a run of this project is under way, which takes time and memory meanwhile."""
    return any(other.kind == "train" for other in jobs.list_jobs(job.database, ("running", "stopping")))
