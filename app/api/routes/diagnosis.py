"""Routes of why a set is wrong: what each kind of error costs, which class is taken for which, and the proposals."""

from typing import Any

from fastapi import APIRouter, Depends, Query

from app.services import diagnosing, proposals
from app.services.context import Services
from app.services.diagnosing import Thresholds

After = Query(0, ge=0)
Limit = Query(50, ge=1, le=diagnosing.MAX_PAGE)


def _thresholds(
    score: float | None = Query(None, ge=0, le=1),
    iou: float = Query(0.5, ge=0, le=1),
    nms: float = Query(1, ge=0, le=1),
) -> Thresholds:
    return Thresholds(score, iou, nms)


At = Depends(_thresholds)


def build_router(services: Services) -> APIRouter:
    """The routes under /api/projects/{slug}."""
    router = APIRouter(prefix="/api/projects/{slug}", tags=["review"])

    @router.get("/prediction-sets/{set_id}/diagnosis")
    def diagnosis(slug: str, set_id: int, at: Thresholds = At) -> dict[str, Any]:
        return diagnosing.diagnose(services, slug, set_id, at)

    @router.get("/prediction-sets/{set_id}/errors")
    def errors(slug: str, set_id: int, kind: str, after: int = After, limit: int = Limit) -> dict[str, Any]:
        return diagnosing.list_errors(services, slug, set_id, kind, after, limit)

    @router.get("/prediction-sets/{set_id}/confusion")
    def confusion(slug: str, set_id: int, at: Thresholds = At) -> dict[str, Any]:
        return diagnosing.count_confusions(services, slug, set_id, at)

    @router.get("/prediction-sets/{set_id}/confused")
    def confused(
        slug: str,
        set_id: int,
        truth: int,
        predicted: int,
        at: Thresholds = At,
        after: int = After,
        limit: int = Limit,
    ) -> dict[str, Any]:
        return diagnosing.list_confused(services, slug, set_id, truth, predicted, at, after, limit)

    @router.get("/runs/{run_id}/checkpoints/{checkpoint_id}/proposals")
    def propose(
        slug: str, run_id: int, checkpoint_id: int, image: int, top: int = Query(50, ge=1, le=proposals.MAX_TOP)
    ) -> dict[str, Any]:
        return proposals.propose(services, slug, run_id, checkpoint_id, image, top)

    return router
