"""The only place that makes paths under the workspace: projects/<slug>/… and the workspace's own hidden folder."""

import os
import re
import secrets
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import BadRequest, NotFound

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")


class Workspace:
    """A folder of projects. Creating it makes the folder; nothing else is written until asked for."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).expanduser().resolve()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise BadRequest(f"{self.root} cannot be the projects folder ({reason}).", "Choose a folder.") from error

    def hidden(self, *parts: str) -> Path:
        """A path in the workspace's own folder (locks, caches, temporary uploads); the folder is made."""
        path = self.root.joinpath(".anchorage", *parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def hidden_folder(self, *parts: str) -> Path:
        """A folder under the workspace's own folder, made if missing."""
        path = self.hidden(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def trash(self) -> Path:
        return self.root / ".trash"

    def slugs(self) -> list[str]:
        """The folders that hold a project, sorted."""
        return sorted(path.parent.name for path in self.root.glob("*/project.db") if _SLUG.fullmatch(path.parent.name))

    def project(self, slug: str) -> "ProjectFiles":
        """The files of an existing project; raises NotFound."""
        files = self.new_project(slug)
        if not files.database.is_file():
            raise NotFound(f"There is no project {slug!r} in {self.root}.", "Create it or import a dataset first.")
        return files

    def new_project(self, slug: str) -> "ProjectFiles":
        """The files of a project that need not exist yet; raises BadRequest for a slug that is no plain folder name."""
        if not _SLUG.fullmatch(slug):
            raise BadRequest(f"{slug!r} is not a project's short name (lower-case letters, digits and hyphens).")
        return ProjectFiles(self.root / slug)

    def free_slug(self, name: str) -> str:
        """A short folder name made of ``name`` that no project has yet."""
        base = slugify(name)
        slug, number = base, 2
        while (self.root / slug).exists():
            slug = f"{base[:58]}-{number}"
            number += 1
        return slug


class ProjectFiles:
    """Where a project keeps what; folders are made when something is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slug = folder.name
        self.database = folder / "project.db"
        self.images = folder / "images"
        self.runs = folder / "runs"
        self.exports = folder / "exports"
        self.backups = folder / "backups"
        self.staging = folder / "staging"
        self.thumbnails = folder / "thumbnails"
        self.pixels = folder / "pixels"
        self.locks = folder / "locks"
        self.logs = folder / "logs"
        self.reserve = folder / "locks" / "reserve"

    def image(self, sha256: str, extension: str) -> Path:
        return self.images / sha256[:2] / f"{sha256}.{extension}"

    def rendering(self, sha256: str, rotation: int, size: int | None = None, look: str = "") -> Path:
        """A picture made from a stored one: turned, in a format browsers show, ``size`` pixels on its longer side.

        ``look`` tells renderings of the same pixels apart.
        """
        name = f"{sha256}-{int(rotation)}-{'full' if size is None else int(size)}{look and f'-{look}'}.jpg"
        return self.thumbnails / sha256[:2] / name

    def run(self, run_id: int) -> Path:
        return self.runs / str(int(run_id))

    def job_log(self, job_id: int) -> Path:
        return self.logs / f"job-{int(job_id)}.log"

    def job_step(self, job_id: int) -> Path:
        return self.locks / f"job-{int(job_id)}.step"

    def job_lock(self, job_id: int) -> Path:
        return self.locks / f"job-{int(job_id)}.lock"


def slugify(name: str) -> str:
    """A folder name of ASCII letters, digits and hyphens, at most 60 long; never empty, never a device name."""
    text = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    text = re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:60].strip("-") or "project"
    return f"{text}-project" if re.fullmatch(r"con|prn|aux|nul|com\d|lpt\d", text) else text


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success sync it and move it over ``path``, on error remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Bring a file's bytes to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk (a no-op where folders cannot be opened, as on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
