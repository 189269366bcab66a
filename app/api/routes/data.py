"""Routes of the Data page: pages of images, figures, classes, and the pictures themselves."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api.routes.annotations import image_filter
from app.records import Annotation, Image, ImageFilter
from app.services import data_page, gray_window, pictures
from app.services.context import Services

FOR_EVER = "private, max-age=31536000, immutable"
ASK_AGAIN = "private, no-cache"


class CategoryBody(BaseModel):
    """The name of a class."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=1000)


class ImageBody(BaseModel):
    """What to change of an image; what is left out stays."""

    model_config = ConfigDict(extra="forbid")
    split: Literal["train", "valid", "test"] | None = None
    rotation: Literal[0, 90, 180, 270] | None = None


class WindowBody(BaseModel):
    """The gray values to show, in those of the files; width 0 shows the whole range."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    center: float
    width: float


def build_router(services: Services) -> APIRouter:
    """Everything the Data page asks for."""
    router = APIRouter(tags=["data"])
    _add_data_routes(router, services)
    _add_picture_routes(router, services)
    return router


def _add_data_routes(router: APIRouter, services: Services) -> None:
    base = "/api/projects/{slug}"
    Filter = Annotated[ImageFilter, Depends(image_filter)]

    @router.get(f"{base}/images")
    def list_images(
        slug: str,
        chosen: Filter,
        after: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=data_page.MAX_PAGE)] = 60,
    ) -> dict[str, Any]:
        page = data_page.list_images(services, slug, chosen, after, limit)
        rows = [_image_row(image, page.boxes[image.id]) for image in page.images]
        return {"images": rows, "total": page.total, "next": page.next}

    @router.patch(f"{base}/images/{{image_id}}")
    def change_image(slug: str, image_id: int, body: ImageBody) -> dict[str, Any]:
        return {"image": asdict(data_page.change_image(services, slug, image_id, body.split, body.rotation))}

    @router.get(f"{base}/stats")
    def stats(slug: str, image_size: Annotated[int, Query(ge=32, le=4096)] = 320) -> dict[str, Any]:
        return data_page.describe(services, slug, image_size)

    @router.get(f"{base}/categories")
    def list_categories(slug: str) -> dict[str, Any]:
        return {"categories": [asdict(category) for category in data_page.list_categories(services, slug)]}

    @router.post(f"{base}/categories", status_code=201)
    def add_category(slug: str, body: CategoryBody) -> dict[str, Any]:
        return {"category": asdict(data_page.add_category(services, slug, body.name))}

    @router.patch(f"{base}/categories/{{category_id}}")
    def rename_category(slug: str, category_id: int, body: CategoryBody) -> dict[str, Any]:
        return {"category": asdict(data_page.rename_category(services, slug, category_id, body.name))}

    @router.get(f"{base}/window")
    def gray_window_of(slug: str) -> dict[str, Any]:
        return gray_window.describe(services, slug)

    @router.put(f"{base}/window")
    def set_gray_window(slug: str, body: WindowBody) -> dict[str, Any]:
        return gray_window.save(services, slug, body.center, body.width)


def _add_picture_routes(router: APIRouter, services: Services) -> None:
    @router.get("/img/{slug}/{image_id}")
    def full_picture(slug: str, image_id: int, request: Request, v: str = "") -> Response:
        return _send(pictures.full_picture(services, slug, image_id), request, v)

    @router.get("/thumb/{slug}/{image_id}")
    def thumbnail(
        slug: str, image_id: int, request: Request, size: Annotated[int, Query(ge=16, le=4096)] = 256, v: str = ""
    ) -> Response:
        return _send(pictures.thumbnail(services, slug, image_id, size), request, v)


def _send(picture: pictures.Picture, request: Request, version: str) -> Response:
    """The file, or 304 where the browser has it. Cached for ever only under an address that names this version."""
    etag = f'"{picture.version}"'
    is_versioned = picture.version == version or picture.version.startswith(f"{version}-")
    headers = {"ETag": etag, "Cache-Control": FOR_EVER if is_versioned else ASK_AGAIN}
    if etag in (tag.strip() for tag in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return FileResponse(picture.path, media_type=picture.media_type, headers=headers)


def _image_row(image: Image, boxes: list[Annotation]) -> dict[str, Any]:
    """An image as the gallery draws it; each box is [x1, y1, x2, y2, category_id]."""
    return {
        "id": image.id,
        "file_name": image.file_name,
        "width": image.width,
        "height": image.height,
        "split": image.split,
        "rotation": image.rotation,
        "problem": image.problem,
        "num_annotations": image.num_annotations,
        "revision": image.revision,
        "is_empty_on_purpose": image.is_empty_on_purpose,
        "sha256": image.sha256,
        "boxes": [[*box.bbox, box.category_id] for box in boxes],
    }
