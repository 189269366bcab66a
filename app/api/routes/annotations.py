"""Routes of the editor: an image with its boxes and neighbors, and saving the boxes under a revision check."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from app.records import Annotation, ImageFilter
from app.services import annotate
from app.services.context import Services

MAX_BOXES = 50_000

Bbox = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]


class RunLengths(BaseModel):
    """A COCO run-length mask."""

    model_config = ConfigDict(extra="forbid")
    counts: str | list[int]
    size: tuple[int, int]


class OriginBody(BaseModel):
    """What an imported annotation carried beside its box, as GET gave it."""

    model_config = ConfigDict(extra="forbid")
    segmentation: list[list[FiniteFloat]] | RunLengths | None = None
    coco_id: int | None = Field(None, ge=-(2**53), le=2**53)
    source_bbox_xywh: Bbox | None = None
    is_crowd: bool = False


class BoxBody(BaseModel):
    """One box: xyxy in float pixels of the upright image; without id it is new."""

    model_config = ConfigDict(extra="forbid")
    id: int | None = None
    category_id: int
    bbox: Bbox
    origin: OriginBody | None = None


class SaveBody(BaseModel):
    """All boxes of an image and the revision they were edited from."""

    model_config = ConfigDict(extra="forbid")
    revision: int
    annotations: list[BoxBody] = Field(max_length=MAX_BOXES)
    is_empty_on_purpose: bool = False


def image_filter(
    split: Literal["train", "valid", "test", ""] = "",
    category: int | None = None,
    problem: bool | None = None,
    name: str = "",
    min_boxes: int | None = None,
    max_boxes: int | None = None,
) -> ImageFilter:
    """The filters of the list of images, as query parameters."""
    return ImageFilter(split or None, category, problem, name, min_boxes, max_boxes)


def build_router(services: Services) -> APIRouter:
    """The routes under /api/projects/{slug}/images."""
    router = APIRouter(prefix="/api/projects/{slug}/images", tags=["annotations"])
    Filter = Annotated[ImageFilter, Depends(image_filter)]

    @router.get("/at/{position}")
    def image_at(slug: str, position: int, chosen: Filter) -> dict[str, Any]:
        return _opened(annotate.load_at(services, slug, position, chosen))

    @router.get("/{image_id}")
    def image(slug: str, image_id: int, chosen: Filter) -> dict[str, Any]:
        return _opened(annotate.load(services, slug, image_id, chosen))

    @router.put("/{image_id}/annotations", response_model=None)
    def save(slug: str, image_id: int, body: SaveBody) -> dict[str, Any] | JSONResponse:
        boxes = [_edit(box) for box in body.annotations]
        try:
            saved = annotate.save(services, slug, image_id, body.revision, boxes, body.is_empty_on_purpose)
        except annotate.StaleSave as error:
            current = _saved(error.current, with_origin=True)
            return JSONResponse({"error": error.message, "hint": error.hint, "current": current}, status_code=409)
        return _saved(saved)

    return router


def _edit(box: BoxBody) -> annotate.BoxEdit:
    origin = None if box.origin is None else annotate.Origin(**box.origin.model_dump())
    return annotate.BoxEdit(box.id, box.category_id, box.bbox, origin)


def _opened(opened: annotate.OpenedImage) -> dict[str, Any]:
    return {
        "image": asdict(opened.image),
        "annotations": [_annotation(item, with_origin=True) for item in opened.annotations],
        "previous": opened.previous,
        "next": opened.next,
        "position": opened.position,
        "total": opened.total,
        "is_listed": opened.is_listed,
    }


def _saved(saved: annotate.SavedBoxes, *, with_origin: bool = False) -> dict[str, Any]:
    return {
        "revision": saved.revision,
        "annotations": [_annotation(item, with_origin=with_origin) for item in saved.annotations],
        "is_empty_on_purpose": saved.is_empty_on_purpose,
    }


def _annotation(item: Annotation, *, with_origin: bool) -> dict[str, Any]:
    """``origin`` holds what an edit would lose; it is left out when there is nothing of the kind."""
    row = {"id": item.id, "category_id": item.category_id, "bbox": item.bbox, "is_crowd": item.is_crowd}
    has_origin = item.segmentation is not None or item.coco_id is not None or item.source_bbox_xywh is not None
    if with_origin and (has_origin or item.is_crowd):
        row["origin"] = {
            "segmentation": item.segmentation,
            "coco_id": item.coco_id,
            "source_bbox_xywh": item.source_bbox_xywh,
            "is_crowd": item.is_crowd,
        }
    return row
