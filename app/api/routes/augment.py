"""Routes of the Augment page: what is on offer, the project's chain, live previews."""

from base64 import b64encode
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app.pipeline.augment.curve import Curve
from app.pipeline.data.resize import Resize
from app.services import augmenting
from app.services.context import Services
from app.services.suggestions import suggested_values


class ChainBody(BaseModel):
    """A chain, in order. Its entries are checked by the service, which can say what is wrong with which."""

    model_config = ConfigDict(extra="forbid")
    steps: list[dict[str, Any]]


class CurveBody(BaseModel):
    """How often strong steps happen over a run, and in how many last epochs not at all."""

    model_config = ConfigDict(extra="forbid")
    curve: Curve
    off_epochs: int = Field(0, ge=0, le=10_000)


class PreviewBody(ChainBody):
    """What to preview: ``size`` and ``resize`` are what training would bring the image to.

    ``late_of`` is 0 for the first epochs of a run, or its number of epochs for the last ones.
    """

    image_id: int
    seed: int = Field(42, ge=0, le=2**31 - 1)
    count: int = Field(4, ge=1, le=augmenting.MAX_VARIANTS)
    size: int = Field(320, ge=64, le=2048)
    resize: Resize = "longest"
    late_of: int = Field(0, ge=0, le=10_000)


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

    @router.get("/api/projects/{slug}/augmentation/curve")
    def load_curve(slug: str) -> dict[str, Any]:
        return _curve(services, slug, augmenting.load_curve(services, slug))

    @router.put("/api/projects/{slug}/augmentation/curve")
    def save_curve(slug: str, body: CurveBody) -> dict[str, Any]:
        strong = augmenting.StrongSteps(body.curve, body.off_epochs)
        return _curve(services, slug, augmenting.save_curve(services, slug, strong))

    @router.post("/api/projects/{slug}/augmentation/preview")
    def preview(slug: str, body: PreviewBody) -> dict[str, Any]:
        made = augmenting.preview(services, slug, **body.model_dump())
        return {
            "original": _with_data_url(made["original"]),
            "variants": [_with_data_url(item) for item in made["variants"]],
            "images_per_s": made["images_per_s"],
        }

    return router


def _chain(steps: tuple[augmenting.Step, ...]) -> dict[str, Any]:
    return {"steps": [step.model_dump(mode="json") for step in steps]}


def _curve(services: Services, slug: str, strong: augmenting.StrongSteps) -> dict[str, Any]:
    """The curve with ``shares``: its value in each of the ``epochs`` that a run of this project would start with."""
    num_epochs = int(suggested_values(services, slug)["epochs"])
    shares = strong.shares(num_epochs)
    return {"curve": strong.curve, "off_epochs": strong.off_epochs, "epochs": num_epochs, "shares": shares}


def _with_data_url(item: dict[str, Any]) -> dict[str, Any]:
    """The picture as ``image``, a data URL, instead of ``jpeg``."""
    others = {name: value for name, value in item.items() if name != "jpeg"}
    return {"image": f"data:image/jpeg;base64,{b64encode(item['jpeg']).decode()}", **others}
