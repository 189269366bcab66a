"""The job that checks a run before it is started; loads torch, so only a job's process imports it."""

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.jobs.context import JobContext, Stopped
from app.jobs.gpus import list_gpus, resolve_processes
from app.pipeline.config import RunConfig, parse_config
from app.pipeline.data.resize import canvas_for
from app.pipeline.data.snapshot import Snapshot, load_snapshot
from app.pipeline.machine import choose_machine
from app.pipeline.preflight.checks import NUM_CHECKS, TITLES, preflight
from app.pipeline.preflight.verdict import worst_level
from app.services.context import Services
from app.services.dataset import write_snapshot
from app.services.preflight import REPORT, new_report
from app.services.run_time import is_training
from app.store import settings, timings

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
    config = _with_processes(parse_config(job.payload["config"]))
    for verdict in preflight(config, snapshot, folder, job.run_context(), lambda: is_training(job.workspace)):
        report["verdicts"].append({"title": TITLES[verdict.check], **asdict(verdict)})
        _keep(job, report)
        if "batch_s" in verdict.facts:
            _keep_timing(job, config, snapshot, verdict.facts)
    if job.should_stop():
        raise Stopped
    job.set_progress(NUM_CHECKS, NUM_CHECKS, "checked")
    verdicts = report["verdicts"]
    return {"level": worst_level([verdict["level"] for verdict in verdicts]), "verdicts": verdicts}


def _keep(job: JobContext, report: dict[str, Any]) -> None:
    with job.write() as db:
        settings.put(db, REPORT, report)


def _keep_timing(job: JobContext, config: RunConfig, snapshot: Snapshot, facts: dict[str, float]) -> None:
    """What was measured on this project's images, as of a square image, for later estimates of time."""
    sizes = [(sample.width, sample.height) for sample in snapshot.split("train")]
    height, width = canvas_for(sizes, config.image_size, config.resize)
    scale = config.image_size**2 / (height * width)
    timing = {
        "model": config.model,
        "image_size": config.image_size,
        "device": choose_machine(config.device, config.precision).describe(),
        "train_s": facts["batch_s"] / config.batch_size * scale,
        "predict_s": facts["predict_s"] * scale,
        "measured_at": time.time(),
    }
    timings.keep(job.workspace, timing)


def _with_processes(config: RunConfig) -> RunConfig:
    """The config with as many processes as the run would have where it leaves that open."""
    return config.model_copy(update={"processes": resolve_processes(config, len(list_gpus()))})
