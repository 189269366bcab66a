"""Routes of the Export page: what was made, making more, downloading, deleting."""

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict

from app.errors import BadRequest
from app.records import Job
from app.services import exporting
from app.services.context import Services


class ExportBody(BaseModel):
    """What to make: weights of a checkpoint, results of a prediction set, or the labels."""

    model_config = ConfigDict(extra="forbid")
    what: Literal["weights", "results", "labels"]
    checkpoint_id: int | None = None
    format: Literal["pth", "safetensors"] = "pth"
    set_id: int | None = None


def build_router(services: Services) -> APIRouter:
    """The routes under /api/projects/{slug}."""
    router = APIRouter(prefix="/api/projects/{slug}/exports", tags=["exports"])

    @router.get("")
    def exports(slug: str) -> dict[str, Any]:
        return {"exports": exporting.list_exports(services, slug)}

    @router.post("")
    def make(slug: str, body: ExportBody) -> dict[str, Any]:
        return {"job": asdict(_request(services, slug, body))}

    @router.get("/{name}")
    def download(slug: str, name: str) -> FileResponse:
        path = exporting.export_path(services, slug, name)
        return FileResponse(path, filename=path.name, media_type="application/octet-stream")

    @router.delete("/{name}", status_code=204)
    def delete(slug: str, name: str) -> Response:
        exporting.delete_export(services, slug, name)
        return Response(status_code=204)

    return router


def _request(services: Services, slug: str, body: ExportBody) -> Job:
    if body.what == "labels":
        return exporting.request_labels(services, slug)
    if body.what == "weights":
        if body.checkpoint_id is None:
            raise BadRequest("checkpoint_id must name the checkpoint whose weights are wanted.")
        return exporting.request_weights(services, slug, body.checkpoint_id, body.format)
    if body.set_id is None:
        raise BadRequest("set_id must name the predictions that are wanted.")
    return exporting.request_results(services, slug, body.set_id)
