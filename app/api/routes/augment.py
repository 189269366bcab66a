"""Routes of the Augment page: what is on offer, the project's chain, live previews."""

from base64 import b64encode
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app.services import augmenting
from app.services.context import Services


class ChainBody(BaseModel):
    """A chain, in order. Its entries are checked by the service, which can say what is wrong with which."""

    model_config = ConfigDict(extra="forbid")
    steps: list[dict[str, Any]]


class PreviewBody(ChainBody):
    """What to preview: ``size`` is the longer side in pixels, as training would resize to."""

    image_id: int
    seed: int = Field(42, ge=0, le=2**31 - 1)
    count: int = Field(4, ge=1, le=augmenting.MAX_VARIANTS)
    size: int = Field(320, ge=64, le=2048)


def build_router(services: Services) -> APIRouter:
    """/api/augment/catalogue and the routes under /api/projects/{slug}/augmentation."""
    router = APIRouter(tags=["augmentation"])

    @router.get("/api/augment/catalogue")
    def catalogue() -> dict[str, Any]:
        return augmenting.catalogue()

    @router.get("/api/projects/{slug}/augmentation")
    def load(slug: str) -> dict[str, Any]:
        return _chain(augmenting.load(services, slug))

    @router.put("/api/projects/{slug}/augmentation")
    def save(slug: str, body: ChainBody) -> dict[str, Any]:
        return _chain(augmenting.save(services, slug, body.steps))

    @router.post("/api/projects/{slug}/augmentation/preview")
    def preview(slug: str, body: PreviewBody) -> dict[str, Any]:
        made = augmenting.preview(services, slug, **body.model_dump())
        return {
            "original": _with_data_url(made["original"]),
            "variants": [_with_data_url(item) for item in made["variants"]],
        }

    return router


def _chain(steps: tuple[augmenting.Step, ...]) -> dict[str, Any]:
    return {"steps": [step.model_dump(mode="json") for step in steps]}


def _with_data_url(item: dict[str, Any]) -> dict[str, Any]:
    """The picture as ``image``, a data URL, instead of ``jpeg``."""
    others = {name: value for name, value in item.items() if name != "jpeg"}
    return {"image": f"data:image/jpeg;base64,{b64encode(item['jpeg']).decode()}", **others}
