"""Routes of the Ensemble page: fusing, ensembles beside their members, and the lab."""

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.json_answer import json_answer
from app.services import ensemble_lab, ensembling
from app.services.context import Services

Split = Literal["train", "valid", "test"]
WAIT_S = 0.5  # small sets are judged within it
Views = Literal["off", "flip", "flip_scales"]


class EnsembleBody(BaseModel):
    """What to fuse: chosen checkpoints, or the best ``top`` of a run."""

    model_config = ConfigDict(extra="forbid")
    run_id: int | None = None
    checkpoint_ids: list[int] | None = Field(None, max_length=ensembling.MAX_MEMBERS)
    top: int = Field(3, ge=ensembling.MIN_MEMBERS, le=ensembling.MAX_MEMBERS)
    split: Split = "valid"
    options: dict[str, Any] = Field(default_factory=dict)


class LabBody(BaseModel):
    """Who takes part in a lab: checkpoints, which predict in each of ``views``, and stored sets as they are."""

    model_config = ConfigDict(extra="forbid")
    checkpoint_ids: list[int] = Field(default_factory=list, max_length=ensembling.MAX_MEMBERS)
    set_ids: list[int] = Field(default_factory=list, max_length=ensembling.MAX_MEMBERS)
    split: Split = "valid"
    views: list[Views] = Field(default_factory=list)
    seed: int = Field(0, ge=0)


class RowBody(BaseModel):
    """A row of a lab's methods, from 0."""

    model_config = ConfigDict(extra="forbid")
    row: int


def build_router(services: Services) -> APIRouter:
    """The routes under /api/projects/{slug}."""
    router = APIRouter(prefix="/api/projects/{slug}", tags=["ensembles"])

    @router.post("/ensembles")
    def fuse(slug: str, body: EnsembleBody) -> dict[str, Any]:
        return {"job": asdict(ensembling.request_ensemble(services, slug, **body.model_dump()))}

    @router.get("/ensembles")
    def ensembles(slug: str, run: int | None = None) -> dict[str, Any]:
        return {"ensembles": ensembling.list_ensembles(services, slug, run)}

    @router.get("/ensembles/{set_id}")
    def ensemble(slug: str, set_id: int) -> Response:
        return json_answer(ensembling.comparison(services, slug, set_id))

    @router.get("/ensembles/{set_id}/noise")
    def noise(slug: str, set_id: int) -> Response:
        answer = ensembling.find_noise(services, slug, set_id, WAIT_S)
        response = json_answer(answer)
        response.status_code = 200 if answer["state"] == "ready" else 202
        return response

    @router.delete("/ensembles/{set_id}/noise", status_code=204)
    def stop_noise(slug: str, set_id: int) -> Response:
        ensembling.stop_noise(services, slug, set_id)
        return Response(status_code=204)

    @router.post("/ensemble-labs")
    def start_lab(slug: str, body: LabBody) -> dict[str, Any]:
        return {"job": asdict(ensemble_lab.request_lab(services, slug, **body.model_dump()))}

    @router.get("/ensemble-labs")
    def labs(slug: str) -> dict[str, Any]:
        return {"labs": ensemble_lab.list_labs(services, slug)}

    @router.get("/ensemble-labs/{job_id}")
    def lab(slug: str, job_id: int) -> dict[str, Any]:
        return {"lab": ensemble_lab.lab(services, slug, job_id)}

    @router.post("/ensemble-labs/{job_id}/ensembles")
    def keep(slug: str, job_id: int, body: RowBody) -> dict[str, Any]:
        return {"job": asdict(ensemble_lab.request_ensemble(services, slug, job_id, body.row))}

    @router.post("/ensemble-labs/{job_id}/measurements")
    def measure(slug: str, job_id: int) -> dict[str, Any]:
        return {"job": asdict(ensemble_lab.request_measurement(services, slug, job_id))}

    return router
