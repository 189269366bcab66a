"""Routes of the checkpoint sweep: the table as far as it is judged, and judging the rest."""

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from app.services import sweeping
from app.services.context import Services

Split = Literal["train", "valid", "test"]


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

    @router.post("")
    def request(slug: str, run_id: int, body: SweepBody) -> dict[str, Any]:
        return {"job": asdict(sweeping.request_sweep(services, slug, run_id, body.split))}

    return router
