"""The widgets' own files, /widgets/<file>: plain JavaScript and CSS, revalidated by content hash."""

import hashlib
import re
from pathlib import Path

from fastapi import APIRouter, Request, Response

from app.errors import NotFound

FOLDER = Path(__file__).resolve().parent.parent / "ui" / "widgets"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def build_router(folder: Path = FOLDER) -> APIRouter:
    """Serve the flat ``folder``; anything that is not one of its plain files answers 404."""
    router = APIRouter()

    @router.get("/widgets/{name}", include_in_schema=False)
    def widget(name: str, request: Request) -> Response:
        return _file(folder, name, request.headers.get("if-none-match", ""))

    return router


def _file(folder: Path, name: str, known_etag: str) -> Response:
    path = folder / name
    media_type = MEDIA_TYPES.get(path.suffix)
    if media_type is None or not _FILE_NAME.fullmatch(name) or not path.is_file():
        raise NotFound(f"There is no widget file {name!r}.")
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if known_etag == etag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
