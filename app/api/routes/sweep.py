"""Routes of the checkpoint sweep: the table as far as it is judged, judging the rest, and the noise of its rows."""

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict

from app.api.json_answer import json_answer
from app.services import sweeping
from app.services.context import Services

Split = Literal["train", "valid", "test"]
WAIT_S = 0.3  # a row: small sets are judged within it


class SweepBody(BaseModel):
    """On which images to judge."""

    model_config = ConfigDict(extra="forbid")
    split: Split = "valid"


def build_router(services: Services) -> APIRouter:
    """The routes under /api/projects/{slug}/runs."""
    router = APIRouter(prefix="/api/projects/{slug}/runs/{run_id}/sweep", tags=["sweep"])

    @router.get("")
    def table(slug: str, run_id: int, split: Split = "valid") -> dict[str, Any]:
        return sweeping.describe_sweep(services, slug, run_id, split)

    @router.get("/noise")
    def noise(slug: str, run_id: int, split: Split = "valid") -> Response:
        answer = sweeping.find_noise(services, slug, run_id, split, WAIT_S)
        response = json_answer(answer)
        response.status_code = 200 if answer["state"] == "ready" else 202
        return response

    @router.delete("/noise", status_code=204)
    def stop_noise(slug: str, run_id: int, split: Split = "valid") -> Response:
        sweeping.stop_noise(services, slug, run_id, split)
        return Response(status_code=204)

    @router.post("")
    def request(slug: str, run_id: int, body: SweepBody) -> dict[str, Any]:
        return {"job": asdict(sweeping.request_sweep(services, slug, run_id, body.split))}

    return router
