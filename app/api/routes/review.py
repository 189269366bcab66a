"""Routes of the Review page: stored predictions, their figures, images with errors."""

from collections.abc import Iterator
from dataclasses import asdict
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict

from app.api.json_answer import json_answer
from app.records import Job
from app.services import review
from app.services.context import Services

Split = Literal["train", "valid", "test"]
PIECE = 1 << 20  # bytes of a download that are in memory


class PredictBody(BaseModel):
    """Which predictions are wanted."""

    model_config = ConfigDict(extra="forbid")
    checkpoint_id: int
    split: Split = "valid"


def build_router(services: Services) -> APIRouter:
    """The routes under /api/projects/{slug}."""
    router = APIRouter(prefix="/api/projects/{slug}", tags=["review"])

    @router.get("/review")
    def overview(slug: str) -> dict[str, Any]:
        return {"runs": review.overview(services, slug)}

    @router.get("/prediction-sets")
    def prediction_sets(slug: str, run: int | None = None, split: Split | None = None) -> dict[str, Any]:
        return {"sets": [asdict(item) for item in review.list_sets(services, slug, run, split)]}

    @router.post("/prediction-sets")
    def predict(slug: str, body: PredictBody) -> dict[str, Any]:
        found = review.ensure_predictions(services, slug, body.checkpoint_id, body.split)
        return {"job" if isinstance(found, Job) else "set": asdict(found)}

    @router.get("/prediction-sets/{set_id}/evaluation")
    def evaluation(slug: str, set_id: int) -> Response:
        return json_answer(review.evaluation(services, slug, set_id))

    @router.get("/prediction-sets/{set_id}/images")
    def images(
        slug: str,
        set_id: int,
        sort: Literal["errors", "name", "id"] = "errors",
        after: int = Query(0, ge=0),
        limit: int = Query(50, ge=1, le=review.MAX_PAGE),
        score: float | None = Query(None, ge=0, le=1),
        iou: float = Query(0.5, ge=0, le=1),
    ) -> Response:
        page = review.images(
            services, slug, set_id, sort=sort, after=after, limit=limit, score_threshold=score, iou_threshold=iou
        )
        return json_answer(page)

    @router.get("/prediction-sets/{set_id}/results")
    def results(slug: str, set_id: int) -> Response:
        headers = {"Content-Disposition": f'attachment; filename="{slug}-predictions-{set_id}.json"'}
        file = TemporaryFile()  # noqa: SIM115 (open until it is sent, which is after this function)
        review.write_results(services, slug, set_id, file)  # first all of it: an error could not be told any more
        return StreamingResponse(_in_pieces(file), media_type="application/json", headers=headers)

    return router


def _in_pieces(file: BinaryIO) -> Iterator[bytes]:
    """All of it from the beginning; then it is closed."""
    with file:
        file.seek(0)
        while piece := file.read(PIECE):
            yield piece
