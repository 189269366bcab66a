"""The detectors on offer over HTTP: the picker's table, cards, and measuring."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.services import models
from app.services.context import Services


class Values(BaseModel):
    """Options as they stand in the form."""

    config: dict[str, Any]


class Measurement(BaseModel):
    """Models to time, with the options of the form."""

    models: list[str]
    config: dict[str, Any] = Field(default_factory=dict)


def build_router(services: Services) -> APIRouter:
    """The routes below /api/projects/{slug}."""
    router = APIRouter(prefix="/api/projects/{slug}")

    @router.get("/models")
    def list_models(slug: str, channels: int = 3) -> dict[str, Any]:
        return models.list_models(services, slug, channels)

    @router.post("/models/card")
    def describe_card(slug: str, body: Values) -> dict[str, Any]:
        return models.describe_card(services, slug, body.config)

    @router.post("/models/measure")
    def measure(slug: str, body: Measurement) -> dict[str, Any]:
        return {"job": asdict(models.start_measuring(services, slug, body.models, body.config))}

    @router.get("/runs/{run_id}/model")
    def card_of_run(slug: str, run_id: int) -> dict[str, Any]:
        return models.card_of_run(services, slug, run_id)

    return router
