"""Zips sent from the browser, kept in the workspace's own folder until they are imported."""

import re
import secrets
import shutil
import time
from pathlib import Path

from app.errors import BadRequest, NotFound, UserError
from app.pipeline.data.source import MAX_TOTAL_BYTES
from app.services.context import Services
from app.services.label_export import safe_name

KEPT_S = 24 * 3600.0  # an upload that nobody imported
FREE_SPACE_FACTOR = 3  # the zip, its images staged, and room to work

_ID = re.compile(r"[0-9a-f]{32}")


def begin_upload(services: Services, file_name: str, num_bytes: int | None) -> tuple[str, Path]:
    """A place for an upload: its id and the path to write to. Old ones are removed.

    num_bytes: as declared by the browser, if it says. Raises BadRequest when that is too much, UserError when the disk
    is too full.
    """
    _sweep(services)
    size = num_bytes or 0
    if size > MAX_TOTAL_BYTES:
        raise BadRequest(
            f"{file_name} has {size / 1000**3:.1f} GB; at most {MAX_TOTAL_BYTES // 1000**3} GB can be sent.",
            "Give its path on this machine, or import it in parts.",
        )
    free = shutil.disk_usage(services.workspace.root).free
    if free < size * FREE_SPACE_FACTOR:
        raise UserError(
            f"{file_name} needs {size * FREE_SPACE_FACTOR / 1000**3:.1f} GB of free disk; there are "
            f"{free / 1000**3:.1f} GB.",
            "Free some space first.",
        )
    upload_id = secrets.token_hex(16)
    folder = services.workspace.hidden_folder("uploads", upload_id)
    return upload_id, folder / safe_name(file_name.replace("\\", "/").rsplit("/", 1)[-1])


def upload_path(services: Services, upload_id: str) -> Path:
    """The file of an upload; raises NotFound."""
    folder = services.workspace.hidden_folder("uploads") / upload_id
    files = list(folder.iterdir()) if _ID.fullmatch(upload_id) and folder.is_dir() else []
    if not files:
        raise NotFound("The uploaded file is not there any more.", "Upload it again.")
    return files[0]


def remove_upload(services: Services, upload_id: str) -> None:
    """Remove an upload; raises NotFound."""
    shutil.rmtree(upload_path(services, upload_id).parent)


def release(services: Services, path: Path) -> None:
    """Remove ``path`` if it is an upload: it was imported. Other files are the user's own and stay."""
    uploads = services.workspace.hidden("uploads").resolve()
    if path.resolve().parent.parent == uploads:
        shutil.rmtree(path.parent, ignore_errors=True)


def _sweep(services: Services) -> None:
    for folder in services.workspace.hidden_folder("uploads").iterdir():
        if time.time() - folder.stat().st_mtime > KEPT_S:
            shutil.rmtree(folder, ignore_errors=True)
