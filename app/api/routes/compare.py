"""Routes of the Compare page: sides, figures with their noise, images, the report; and what is written about a run."""

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from app.errors import BadRequest
from app.services import comparing, comparison_images, comparison_report, run_notes
from app.services.comparison_sides import Side, parse_side
from app.services.context import Services

Split = Literal["train", "valid", "test", ""]
WAIT_S = 0.5  # small sets are judged within it: one answer, no waiting state
MEDIA_TYPES = {"html": "text/html; charset=utf-8", "md": "text/markdown; charset=utf-8"}


class NotesBody(BaseModel):
    """Parts of the notes to replace, and what the writer believes to stand there."""

    model_config = ConfigDict(extra="forbid")
    changes: dict[str, str]
    known: dict[str, str] = Field(default_factory=dict)


class Two:
    """The two sides of a comparison, as query parameters: ?first=run-1&second=set-7&split=valid."""

    def __init__(self, first: str, second: str, split: Split = "") -> None:
        self.sides: tuple[Side, Side] = (parse_side(first), parse_side(second))
        self.split = split


def build_router(services: Services) -> APIRouter:
    """The routes under /api/projects/{slug}."""
    router = APIRouter(prefix="/api/projects/{slug}", tags=["compare"])
    _add_comparison_routes(router, services)
    _add_note_routes(router, services)
    return router


def _add_comparison_routes(router: APIRouter, services: Services) -> None:
    Chosen = Annotated[Two, Depends()]

    @router.get("/compare")
    def sides(slug: str, sides: str, split: Split = "") -> dict[str, Any]:
        chosen = [parse_side(text) for text in sides.split(",") if text]
        return comparing.describe(services, slug, chosen, split)

    @router.get("/compare/figures")
    def figures(slug: str, two: Chosen, response: Response) -> dict[str, Any]:
        answer = comparing.find_figures(services, slug, *two.sides, two.split, WAIT_S)
        response.status_code = 200 if answer["state"] == "ready" else 202
        return answer

    @router.delete("/compare/figures", status_code=204)
    def stop(slug: str, two: Chosen) -> Response:
        comparing.stop_figures(services, slug, *two.sides, two.split)
        return Response(status_code=204)

    @router.get("/compare/images")
    def images(
        slug: str,
        two: Chosen,
        after: int = Query(0, ge=0),
        limit: int = Query(50, ge=1, le=comparison_images.MAX_PAGE),
    ) -> Response:
        page = comparison_images.list_images(services, slug, *two.sides, two.split, after=after, limit=limit)
        return Response(orjson.dumps(page, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")

    @router.get("/compare/report")
    def report(slug: str, two: Chosen, format: str = "html", sides: str = "") -> Response:
        if format not in MEDIA_TYPES:
            raise BadRequest(f"A report is of the format {' or '.join(MEDIA_TYPES)}; got {format!r}.")
        comparing.choose_two(services, slug, *two.sides, two.split)  # refuses what would first have to be predicted
        shown = [parse_side(text) for text in sides.split(",") if text]
        comparison = comparing.compare(services, slug, *two.sides, two.split, shown=shown)
        name = f"{slug}-{two.sides[0]}-and-{two.sides[1]}-{comparison['split']}.{format}"
        return Response(
            comparison_report.render(comparison, slug, f".{format}"),
            media_type=MEDIA_TYPES[format],
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )


def _add_note_routes(router: APIRouter, services: Services) -> None:
    @router.get("/runs/{run_id}/notes")
    def notes(slug: str, run_id: int) -> dict[str, Any]:
        return {"notes": run_notes.get_notes(services, slug, run_id)}

    @router.put("/runs/{run_id}/notes", response_model=None)
    def write_notes(slug: str, run_id: int, body: NotesBody) -> dict[str, Any] | JSONResponse:
        try:
            return {"notes": run_notes.set_notes(services, slug, run_id, body.changes, body.known)}
        except run_notes.StaleNotes as error:
            content = {"error": error.message, "hint": error.hint, "current": error.current}
            return JSONResponse(content, status_code=409)
