"""The widgets' own files: plain JavaScript and CSS, at /widgets/<version>/<file> kept by browsers for ever.

The version is a hash of all the files and stands in the folder part of the address, so that modules that import each
other by "./name.js" stay within it. Under any other version, or none, a file is still served, and asked for each time.
"""

import hashlib
import re
from functools import lru_cache
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
KEPT = "private, max-age=31536000, immutable"
ASKED_FOR = "no-cache"
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def build_router(folder: Path = FOLDER) -> APIRouter:
    """Serve the flat ``folder``; anything that is not one of its plain files answers 404."""
    router = APIRouter()

    @router.get("/widgets/{name}", include_in_schema=False)
    def widget(name: str, request: Request) -> Response:
        return _file(folder, name, request.headers.get("if-none-match", ""), ASKED_FOR)

    @router.get("/widgets/{version}/{name}", include_in_schema=False)
    def versioned_widget(version: str, name: str, request: Request) -> Response:
        caching = KEPT if version == widgets_version(folder) else ASKED_FOR
        return _file(folder, name, request.headers.get("if-none-match", ""), caching)

    return router


def widgets_version(folder: Path = FOLDER) -> str:
    """A hash of the folder's files as they are now; they are read again only when one of them was written."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in MEDIA_TYPES)
    return _hash_of(tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths))


@lru_cache(maxsize=4)
def _hash_of(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, _, size in files:
        digest.update(f"{Path(path).name}\0{size}\0".encode())
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:16]


def _file(folder: Path, name: str, known_etag: str, caching: str) -> Response:
    path = folder / name
    media_type = MEDIA_TYPES.get(path.suffix)
    if media_type is None or not _FILE_NAME.fullmatch(name) or not path.is_file():
        raise NotFound(f"There is no widget file {name!r}.")
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    headers = {"ETag": etag, "Cache-Control": caching}
    if known_etag == etag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
