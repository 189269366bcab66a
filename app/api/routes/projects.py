"""Routes of the Projects page: the projects of the workspace, uploads, imports and their reports."""

import ipaddress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anyio import open_file
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from app.errors import BadRequest, SameNames
from app.pipeline.data.source import MAX_TOTAL_BYTES
from app.services import demo, importing, jobs, projects, uploads
from app.services.context import Services


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ProjectName(_Body):
    """A project's name, as shown."""

    name: str


class CopyName(_Body):
    """The name of a copy; empty for "<name> copy"."""

    name: str = ""


class ImportBody(_Body):
    """A dataset: a path on this machine or an upload. ``mapping`` sends classes to those of the project by name."""

    path: str = ""
    upload_id: str = ""
    mapping: dict[str, str] = {}
    merge: bool = False
    allow_bare: bool = False

    def options(self) -> dict[str, Any]:
        """What the user decided, as the importer takes it."""
        return {"mapping": self.mapping, "merge": self.merge, "allow_bare": self.allow_bare}


class PlanBody(ImportBody):
    """As ImportBody, before a project is there for it (empty) or into ``project``."""

    project: str = ""


def build_router(services: Services) -> APIRouter:
    """The routes under /api/projects, /api/uploads, /api/import-plan and /api/demo."""
    router = APIRouter(prefix="/api", tags=["projects"])
    _add_project_routes(router, services)
    _add_import_routes(router, services)
    _add_upload_routes(router, services)
    return router


def _add_project_routes(router: APIRouter, services: Services) -> None:
    @router.get("/projects")
    def list_projects(request: Request, sizes: bool = True) -> dict[str, Any]:
        return {
            "projects": projects.list_projects(services, with_sizes=sizes),
            "workspace": str(services.workspace.root),
            "is_local": _is_local(request),
        }

    @router.post("/projects", status_code=201)
    def create(body: ProjectName) -> dict[str, Any]:
        return {"project": projects.get_project(services, projects.create_project(services, body.name))}

    @router.get("/projects/{slug}")
    def get(slug: str) -> dict[str, Any]:
        return {"project": projects.get_project(services, slug)}

    @router.post("/projects/{slug}/open")
    def open_project(slug: str) -> dict[str, Any]:
        return {"project": projects.open_project(services, slug)}

    @router.patch("/projects/{slug}")
    def rename(slug: str, body: ProjectName) -> dict[str, Any]:
        return {"project": projects.rename_project(services, slug, body.name)}

    @router.post("/projects/{slug}/duplicate", status_code=201)
    def duplicate(slug: str, body: CopyName) -> dict[str, Any]:
        copy = projects.duplicate_project(services, slug, body.name)
        return {"project": projects.get_project(services, copy)}

    @router.post("/projects/{slug}/restore")
    def restore(slug: str) -> dict[str, Any]:
        return {"project": projects.restore_backup(services, slug)}

    @router.delete("/projects/{slug}")
    def delete(slug: str) -> dict[str, Any]:
        return {"trash": str(projects.delete_project(services, slug))}

    @router.post("/demo")
    def start_demo() -> dict[str, Any]:
        return {"page": demo.start_demo(services)}


def _add_import_routes(router: APIRouter, services: Services) -> None:
    @router.post("/import-plan", response_model=None)
    def plan(body: PlanBody, request: Request) -> dict[str, Any] | Response:
        path = _path_of(services, body, request)
        try:
            return {"plan": importing.plan_import(services, body.project or None, path, **body.options())}
        except SameNames as error:
            answer = {"error": error.message, "hint": error.hint, "code": "same_name"}
            return JSONResponse(answer, status_code=409)

    @router.post("/projects/{slug}/import")
    def import_dataset(slug: str, body: ImportBody, request: Request) -> dict[str, Any]:
        payload = {"path": str(_path_of(services, body, request)), "options": body.options()}
        return {"job": asdict(jobs.enqueue(services, slug, "import", payload))}

    @router.get("/projects/{slug}/report")
    def reports(slug: str) -> dict[str, Any]:
        return {"reports": importing.all_reports(services, slug)}


def _add_upload_routes(router: APIRouter, services: Services) -> None:
    @router.post("/uploads", status_code=201)
    async def upload(request: Request, name: str = "upload.zip") -> dict[str, Any]:
        declared = request.headers.get("content-length", "")
        upload_id, path = uploads.begin_upload(services, name, int(declared) if declared.isdigit() else None)
        try:
            size = await _receive(request, path)
        except BaseException:
            uploads.release(services, path)
            raise
        return {"upload_id": upload_id, "name": path.name, "size_bytes": size}

    @router.delete("/uploads/{upload_id}")
    def remove(upload_id: str) -> dict[str, Any]:
        uploads.remove_upload(services, upload_id)
        return {}


async def _receive(request: Request, path: Path) -> int:
    """Write the request's body to ``path`` as it comes; returns its size. Raises BadRequest past the limit."""
    size = 0
    async with await open_file(path, "wb") as file:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_TOTAL_BYTES:
                raise BadRequest(f"The upload is larger than {MAX_TOTAL_BYTES // 1000**3} GB.", "Import it in parts.")
            await file.write(chunk)
    return size


def _path_of(services: Services, body: ImportBody, request: Request) -> Path:
    """Where the dataset lies. A path is taken only from this very machine: another one's user means other files."""
    if bool(body.path.strip()) == bool(body.upload_id):
        raise BadRequest("Give either a path on this machine or an upload.", "Fill in one of the two.")
    if body.upload_id:
        return uploads.upload_path(services, body.upload_id)
    if not _is_local(request):
        raise BadRequest("A path can be given only on the machine Anchorage runs on.", "Upload a zip instead.")
    return Path(body.path.strip().strip('"')).expanduser().absolute()


def _is_local(request: Request) -> bool:
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
