"""Routes of the Audit page: suspects of the labels, one for the editor, those ignored, and judging again."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from app.services import auditing
from app.services.context import Services

MAX_SETS = 100

Kind = Literal["missing_box", "wrong_class", "loose_box"]
Sets = Annotated[list[int], Query(alias="set", min_length=1, max_length=MAX_SETS)]


class IgnoreBody(BaseModel):
    """A suspect as the list of them names it."""

    model_config = ConfigDict(extra="forbid")
    image_id: int
    kind: Kind
    predicted_id: int
    labeled_id: int | None = None
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    score: float = Field(ge=0, le=1)


def audit_filter(
    kind: Kind | None = None,
    category: int | None = None,
    min_score: Annotated[float | None, Query(ge=0, le=1)] = None,
) -> auditing.AuditFilter:
    """Which suspects to list, as query parameters."""
    return auditing.AuditFilter(kind, category, min_score)


def build_router(services: Services) -> APIRouter:
    """The routes under /api/projects/{slug}/audit."""
    router = APIRouter(prefix="/api/projects/{slug}/audit", tags=["audit"])
    Filter = Annotated[auditing.AuditFilter, Depends(audit_filter)]

    @router.get("")
    def suspects(
        slug: str,
        sets: Sets,
        chosen: Filter,
        after: str = "",
        limit: Annotated[int, Query(ge=1, le=auditing.MAX_PAGE)] = 60,
    ) -> dict[str, Any]:
        return auditing.audit_sets(services, slug, sets, chosen, after=after, limit=limit)

    @router.get("/suspects/{key}")
    def suspect(slug: str, key: str, sets: Sets, chosen: Filter) -> dict[str, Any]:
        return auditing.open_suspect(services, slug, sets, key, chosen)

    @router.get("/figures")
    def figures(slug: str, sets: Sets) -> dict[str, Any]:
        return auditing.judge_again(services, slug, sets)

    @router.get("/ignored")
    def ignored(
        slug: str, after: int | None = None, limit: Annotated[int, Query(ge=1, le=auditing.MAX_PAGE)] = 60
    ) -> dict[str, Any]:
        return auditing.list_ignored(services, slug, after, limit)

    @router.post("/ignored", status_code=201)
    def ignore(slug: str, body: IgnoreBody) -> dict[str, Any]:
        return {"ignored": auditing.ignore(services, slug, **body.model_dump())}

    @router.delete("/ignored/{ignored_id}")
    def take_back(slug: str, ignored_id: int) -> dict[str, Any]:
        auditing.take_back(services, slug, ignored_id)
        return {}

    return router
