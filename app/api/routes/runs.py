"""Runs and jobs over HTTP: what the Train page and scripts read and ask for."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from app.pipeline.config import ConfigError
from app.records import Job, MetricPoint, Run
from app.services import anchors, jobs, preflight, run_form, training
from app.services.context import Services

METRICS_PER_ANSWER = 20_000


class NewRun(BaseModel):
    """A run to start: option name to value, on top of what suits this machine or of a preset."""

    config: dict[str, Any] = Field(default_factory=dict)
    preset: str = ""
    name: str = ""


class Values(BaseModel):
    """Options as they stand in the form."""

    config: dict[str, Any]


class Place(BaseModel):
    """Where to move a waiting run: 'up' by one, or to the 'front'."""

    to: str


class NewName(BaseModel):
    """Another name for a run."""

    name: str


def build_router(services: Services) -> APIRouter:
    """The routes below /api/projects/{slug}."""
    router = APIRouter(prefix="/api/projects/{slug}")
    _add_run_routes(router, services)
    _add_form_routes(router, services)
    _add_preflight_routes(router, services)
    _add_job_routes(router, services)
    return router


def _add_run_routes(router: APIRouter, services: Services) -> None:
    @router.get("/runs")
    def list_runs(slug: str) -> dict[str, Any]:
        by_id = {job.id: job for job in jobs.list_jobs(services, slug)}
        return {"runs": [_run(run, by_id.get(run.job_id)) for run in training.list_runs(services, slug)]}

    @router.post("/runs", response_model=None)
    def start_run(slug: str, body: NewRun) -> Response | dict[str, Any]:
        try:
            run = training.start_run(services, slug, body.config, body.preset, body.name)
        except ConfigError as error:
            return _refuse(error)
        return {"run": _run(run, None)}

    @router.get("/runs/{run_id}")
    def get_run(slug: str, run_id: int) -> dict[str, Any]:
        run = training.get_run(services, slug, run_id)
        checkpoints = [asdict(item) for item in training.checkpoints(services, slug, run_id)]
        return {"run": _run(run, jobs.get(services, slug, run.job_id)), "checkpoints": checkpoints}

    @router.get("/runs/{run_id}/metrics")
    def get_metrics(slug: str, run_id: int, after: int = 0, names: str = "") -> dict[str, Any]:
        chosen = [name for name in names.split(",") if name] or None
        points, attempt = training.metrics_after(services, slug, run_id, after, chosen, METRICS_PER_ANSWER)
        last = points[-1].id if points else after
        return {
            "series": _columns(points),
            "last": last,
            "has_more": len(points) == METRICS_PER_ANSWER,
            "attempt": attempt,
        }

    @router.get("/runs/{run_id}/log")
    def get_log(slug: str, run_id: int) -> dict[str, str]:
        return {"text": training.log_tail(services, slug, run_id)}

    @router.post("/runs/{run_id}/stop")
    def stop_run(slug: str, run_id: int) -> dict[str, Any]:
        return {"run": _run(training.stop_run(services, slug, run_id), None)}

    @router.post("/runs/{run_id}/pause")
    def pause_run(slug: str, run_id: int) -> dict[str, Any]:
        return {"run": _run(training.pause_run(services, slug, run_id), None)}

    @router.post("/runs/{run_id}/resume")
    def resume_run(slug: str, run_id: int) -> dict[str, Any]:
        return {"run": _run(training.resume_run(services, slug, run_id), None)}

    @router.post("/runs/{run_id}/retry")
    def retry_run(slug: str, run_id: int) -> dict[str, Any]:
        return {"run": _run(training.retry_run(services, slug, run_id), None)}

    @router.post("/runs/{run_id}/move")
    def move_run(slug: str, run_id: int, body: Place) -> dict[str, Any]:
        return {"run": _run(training.move_run(services, slug, run_id, body.to), None)}

    @router.patch("/runs/{run_id}")
    def rename_run(slug: str, run_id: int, body: NewName) -> dict[str, Any]:
        return {"run": _run(training.rename_run(services, slug, run_id, body.name), None)}

    @router.delete("/runs/{run_id}")
    def delete_run(slug: str, run_id: int) -> dict[str, Any]:
        training.delete_run(services, slug, run_id)
        return {}


def _add_form_routes(router: APIRouter, services: Services) -> None:
    @router.get("/config")
    def get_form(slug: str) -> dict[str, Any]:
        return run_form.describe_form(services, slug)

    @router.post("/config/check")
    def check_values(slug: str, body: Values) -> dict[str, Any]:
        return run_form.check_values(services, slug, body.config)

    @router.post("/config/anchors")
    def measure_anchors(slug: str, body: Values) -> dict[str, Any]:
        try:
            return anchors.describe_recall(services, slug, body.config)
        except ConfigError as error:
            return {"problem": str(error)}


def _add_preflight_routes(router: APIRouter, services: Services) -> None:
    @router.get("/preflight")
    def get_preflight(slug: str) -> dict[str, Any]:
        report = preflight.latest(services, slug)
        return {"report": report, "job": _job(jobs.get(services, slug, report["job"])) if report else None}

    @router.post("/preflight", response_model=None)
    def start_preflight(slug: str, body: Values) -> Response | dict[str, Any]:
        try:
            return {"job": _job(preflight.start(services, slug, body.config))}
        except ConfigError as error:
            return _refuse(error)


def _refuse(error: ConfigError) -> JSONResponse:
    """Options that do not fit, by field."""
    content = {"error": str(error), "hint": "Change the marked options.", "fields": error.problems}
    return JSONResponse(content, status_code=400)


def _add_job_routes(router: APIRouter, services: Services) -> None:
    @router.get("/jobs")
    def list_jobs(slug: str) -> dict[str, Any]:
        return {"jobs": [_job(job) for job in jobs.list_jobs(services, slug)]}

    @router.get("/jobs/{job_id}")
    def get_job(slug: str, job_id: int) -> dict[str, Any]:
        return {"job": _job(jobs.get(services, slug, job_id))}

    @router.post("/jobs/{job_id}/cancel")
    def cancel_job(slug: str, job_id: int) -> dict[str, Any]:
        return {"job": _job(jobs.cancel(services, slug, job_id))}


def _run(run: Run, job: Job | None) -> dict[str, Any]:
    """A run with what its job knows: start, end, and its place in the queue."""
    return {
        **asdict(run),
        "epochs": run.config.get("epochs"),
        "started_at": job.started_at if job else None,
        "ended_at": job.ended_at if job else None,
        "rank": job.rank if job else None,
        "stop_as": job.stop_as if job else "",
    }


def _job(job: Job) -> dict[str, Any]:
    return {**asdict(job), "is_finished": job.is_finished}


def _columns(points: list[MetricPoint]) -> dict[str, dict[str, list[float]]]:
    """Points as columns by "split/name": step, epoch, elapsed_s, value."""
    series: dict[str, dict[str, list[float]]] = {}
    for point in points:
        columns = series.setdefault(
            f"{point.split}/{point.name}", {"step": [], "epoch": [], "elapsed_s": [], "value": []}
        )
        for name, values in columns.items():
            values.append(getattr(point, name))
    return series
