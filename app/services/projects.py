"""Projects of the workspace: listing, creating, opening, renaming, duplicating, deleting, restoring."""

import errno
import logging
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.errors import BadRequest, Conflict, NotFound, UserError
from app.records import Project
from app.services.context import Services
from app.store import jobs as job_store
from app.store import overview, settings
from app.store.copies import copy_database
from app.store.database import ProjectDatabase, newest_backup
from app.store.files import ProjectFiles

logger = logging.getLogger(__name__)

MAX_NAME_LENGTH = 100
BACKUP_EVERY_S = 24 * 3600.0


def list_projects(services: Services, *, with_sizes: bool = True) -> list[dict[str, Any]]:
    """Every project, the last opened first.

    The fields of ``Project`` plus ``previews`` (id, sha256 and rotation of a few images) and ``has_backup``.
    Sizes cost a look at every file; without them ``size_bytes`` is 0.

    A project that cannot be read is listed too; its ``problem`` says why.
    """
    listed = [_describe(services, slug, with_sizes) for slug in services.workspace.slugs()]
    return sorted(listed, key=lambda project: (-project["opened_at"], project["name"]))


def get_project(services: Services, slug: str) -> dict[str, Any]:
    """One project as ``list_projects`` gives it; raises NotFound."""
    services.files(slug)
    return _describe(services, slug)


def find_project(services: Services, name: str) -> str:
    """The slug of the project with this slug or this name; raises NotFound, or BadRequest when two have the name."""
    slugs = services.workspace.slugs()
    if name in slugs:
        return name
    listed = list_projects(services, with_sizes=False)
    matching = [project["slug"] for project in listed if project["name"] == name.strip()]
    if len(matching) > 1:
        raise BadRequest(f"More than one project is named {name!r}: {', '.join(matching)}.", "Give the short name.")
    if not matching:
        known = ", ".join(slugs) or "none yet"
        raise NotFound(
            f"There is no project {name!r} in {services.workspace.root} (projects: {known}).",
            "Import a dataset into it first.",
        )
    return matching[0]


def create_project(services: Services, name: str) -> str:
    """Make an empty project; returns its slug. Raises BadRequest for an empty or overlong name."""
    name = checked_name(name)
    while True:
        slug = services.workspace.free_slug(name)
        files = services.workspace.new_project(slug)
        try:
            files.folder.mkdir()
        except FileExistsError:
            continue  # somebody made it between the question and the answer: ask again
        write_identity(ProjectDatabase.create(files.database), name)
        return slug


def write_identity(database: ProjectDatabase, name: str) -> None:
    """Give a new or copied database its name and times."""
    now = time.time()
    with database.write() as db:
        for key, value in (("name", name), ("created_at", now), ("opened_at", now)):
            settings.put(db, key, value)


def open_project(services: Services, slug: str) -> dict[str, Any]:
    """Note that the project was opened, back it up once a day, and describe it. Raises NotFound, DamagedDatabase."""
    database = services.database(slug)
    backup = newest_backup(database.path)
    if backup is None or time.time() - backup.stat().st_mtime > BACKUP_EVERY_S:
        database.backup()
    with database.write() as db:
        settings.put(db, "opened_at", time.time())
    return get_project(services, slug)


def rename_project(services: Services, slug: str, name: str) -> dict[str, Any]:
    """Change the name; folder and addresses stay. Raises BadRequest, NotFound."""
    name = checked_name(name)
    with services.database(slug).write() as db:
        settings.put(db, "name", name)
    return get_project(services, slug)


def duplicate_project(services: Services, slug: str, name: str = "") -> str:
    """Copy a project with its runs; image files, which never change, are linked where the disk can. Returns the slug.

    The copy is made aside and moved into place, so that a half copy is never listed.
    """
    database = services.database(slug)
    source = services.files(slug)
    name = checked_name(name or f"{get_project(services, slug)['name']} copy")
    aside = ProjectFiles(services.workspace.hidden_folder("duplicates") / f"{slug}-{time.time_ns()}")
    try:
        write_identity(copy_database(database, aside.database), name)
        _copy_folders(source, aside)
        return place_project(services, aside, name)
    finally:
        shutil.rmtree(aside.folder, ignore_errors=True)


def place_project(services: Services, aside: ProjectFiles, name: str) -> str:
    """Move a project that was made aside to a free place in the workspace; returns its slug."""
    while True:
        slug = services.workspace.free_slug(name)
        try:
            aside.folder.rename(services.workspace.new_project(slug).folder)
            return slug
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise


def delete_project(services: Services, slug: str) -> Path:
    """Move a project to the trash folder of the workspace, without its cache; returns where it lies now.

    Raises NotFound, or Conflict while one of its jobs is at work.
    """
    files = services.files(slug)
    try:
        active = job_store.list_jobs(services.database(slug), job_store.ACTIVE_STATES)
    except UserError:
        active = []  # a damaged project must still be deletable
    if active:
        raise Conflict(
            f"Project {slug!r} has {len(active)} unfinished job(s) ({', '.join(job.kind for job in active)}).",
            "Stop them on the Train page or wait for their end, then delete the project.",
        )
    shutil.rmtree(files.pixels, ignore_errors=True)
    services.workspace.trash.mkdir(exist_ok=True)
    target = services.workspace.trash / f"{slug}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6:06d}"
    files.folder.rename(target)
    services.forget(slug)
    logger.info("moved project %s to %s", slug, target)
    return target


def restore_backup(services: Services, slug: str) -> dict[str, Any]:
    """Put the newest backup in place of a damaged database, which is kept beside it. Raises NotFound without one."""
    files = services.files(slug)
    backup = newest_backup(files.database)
    if backup is None:
        raise NotFound(f"Project {slug!r} has no backup in {files.backups}.", "Import its dataset into a new project.")
    for suffix in ("", "-wal", "-shm"):
        damaged = files.database.with_name(files.database.name + suffix)
        if damaged.exists():
            damaged.rename(files.backups / f"damaged-{time.time_ns()}-{damaged.name}")
    shutil.copyfile(backup, files.database)
    services.forget(slug)
    return get_project(services, slug)


def checked_name(name: str) -> str:
    """The name without surrounding blanks; raises BadRequest when empty, overlong or not printable."""
    name = name.strip()
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise BadRequest(
            f"A project's name must have 1 to {MAX_NAME_LENGTH} printable characters, got {name[:40]!r}.",
            "Choose another name.",
        )
    return name


def _describe(services: Services, slug: str, with_size: bool = True) -> dict[str, Any]:
    files = services.workspace.new_project(slug)
    size_bytes = _size_of(files.folder) if with_size else 0
    try:
        seen = overview.read(services.database(slug))
    except UserError as error:
        broken = Project(slug, slug, 0.0, 0.0, 0, 0, 0, 0, size_bytes, problem=str(error))
        has_backup = newest_backup(files.database) is not None
        return {**asdict(broken), "previews": [], "has_backup": has_backup}
    project = Project(
        slug=slug,
        name=seen.name or slug,
        created_at=seen.created_at,
        opened_at=seen.opened_at,
        num_images=seen.counts["images"],
        num_annotations=seen.counts["annotations"],
        num_categories=seen.counts["categories"],
        num_runs=seen.counts["runs"],
        size_bytes=size_bytes,
    )
    return {**asdict(project), "previews": list(seen.previews), "has_backup": False}


def _size_of(folder: Path) -> int:
    """Bytes of all files below a folder; what vanishes meanwhile is not counted."""
    total, pending = 0, [folder]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
    return total


def _copy_folders(source: ProjectFiles, target: ProjectFiles) -> None:
    if source.images.is_dir():
        shutil.copytree(source.images, target.images, copy_function=_link_or_copy)
    for original, copy in ((source.runs, target.runs), (source.exports, target.exports), (source.logs, target.logs)):
        if original.is_dir():
            shutil.copytree(original, copy, ignore=shutil.ignore_patterns("*.tmp"))


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)
