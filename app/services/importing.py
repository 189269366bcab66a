"""Bringing a dataset into a project: all of it or nothing.

Image bytes are checked and staged by processes of their own, then moved into the project, then one transaction makes
them part of it. A killed import leaves files that no row names; the next one sweeps them.
"""

import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from app.errors import Conflict, ImportRefused, SameNames
from app.jobs.locks import FileLock, is_held
from app.pipeline.data.export_layout import ParsedExport, read_export
from app.pipeline.data.findings import ExportRefused
from app.pipeline.data.source import Source, open_source, require_free_space
from app.services.context import Services
from app.services.import_batch import Batch, gather
from app.services.import_plan import PlannedClass, count_boxes, plan_classes
from app.services.import_report import build_report
from app.services.projects import checked_name, place_project, write_identity
from app.services.staging import StagedImage, stage_images, sync_all
from app.store import annotations as annotation_store
from app.store import categories as category_store
from app.store import images as image_store
from app.store import reports
from app.store.database import ProjectDatabase
from app.store.files import ProjectFiles, sync_folder

logger = logging.getLogger(__name__)

LOCK_NAME = "import.lock"

OnProgress = Callable[[int, int], None]
ShouldStop = Callable[[], bool]
Write = Callable[[], AbstractContextManager[Database]]


def _ignore(done: int, total: int) -> None:
    """Tell nobody."""


def _never() -> bool:
    return False


def import_dataset(
    services: Services,
    slug: str,
    path: Path | str,
    *,
    mapping: Mapping[str, str] | None = None,
    merge: bool = False,
    allow_bare: bool = False,
    on_progress: OnProgress = _ignore,
    should_stop: ShouldStop = _never,
    write: Write | None = None,
) -> dict[str, Any]:
    """Add the zip or folder at ``path`` to a project and return the report, which is kept too.

    mapping: class name of the export -> that of the project, for classes that go elsewhere than to their own name.
    merge: classes of one name are one. allow_bare: images without any COCO file are welcome. on_progress(done, total)
    counts images. write: the transaction to use in place of the database's own (a job's fenced one).
    Raises ImportRefused (SameNames when ``merge`` would help), Conflict during another import, Cancelled, NotFound.
    """
    database, files = services.database(slug), services.files(slug)
    with database.read() as db:
        has_images = image_store.count(db) > 0
    if has_images:
        database.backup()
    work = _Import(files, database, dict(mapping or {}), merge, allow_bare)
    with _lock(files):
        return work.run(Path(path), on_progress, should_stop, write or database.write)


def import_as_new_project(
    services: Services,
    name: str,
    path: Path | str,
    *,
    merge: bool = False,
    allow_bare: bool = False,
    on_progress: OnProgress = _ignore,
    should_stop: ShouldStop = _never,
) -> tuple[str, dict[str, Any]]:
    """Import into a project made for it; returns its slug and the report. A failed import leaves no project.

    Raises as ``import_dataset``, and BadRequest for an unusable name.
    """
    name = checked_name(name)
    _sweep_abandoned(services)
    files = ProjectFiles(services.workspace.hidden_folder("imports") / secrets.token_hex(8))
    lock = FileLock(files.locks / LOCK_NAME)
    try:
        with _alone(services):
            lock.acquire()
        database = ProjectDatabase.create(files.database)
        write_identity(database, name)
        work = _Import(files, database, {}, merge, allow_bare)
        report = work.run(Path(path), on_progress, should_stop, database.write)
        with _alone(services):
            lock.release()  # Windows moves no folder that holds an open file
            return place_project(services, files, name), report
    finally:
        lock.release()
        shutil.rmtree(files.folder, ignore_errors=True)


def plan_import(
    services: Services,
    slug: str | None,
    path: Path | str,
    *,
    mapping: Mapping[str, str] | None = None,
    merge: bool = False,
    allow_bare: bool = False,
) -> dict[str, Any]:
    """What an import would do, from the labels alone (no picture is read): counts, splits, and where classes go.

    slug: the project to import into, or None for a new one. Raises as ``import_dataset``.
    """
    existing, num_images, folder = [], 0, services.workspace.root
    if slug is not None:
        folder = services.files(slug).folder
        with services.database(slug).read() as db:
            existing, num_images = category_store.all_of(db), image_store.count(db)
    with _refusals(), open_source(Path(path)) as source:
        require_free_space(source, folder)
        export = read_export(source, merge_same_names=merge, allow_bare=allow_bare)
    splits = {split: sum(image.split == split for image in export.images) for split in export.splits}
    return {
        "source": Path(path).name,
        "images": len(export.images),
        "annotations": sum(len(image.annotations) for image in export.images),
        "splits": splits,
        "missing": sum(finding.count for finding in export.findings if finding.kind == "missing"),
        "project_images": num_images,
        "project_classes": [category.name for category in existing],
        "classes": [
            planned.as_dict() for planned in plan_classes(export.categories, existing, count_boxes(export), mapping)
        ],
    }


def newest_report(services: Services, slug: str) -> dict[str, Any] | None:
    """The report of the last import into a project, or None; raises NotFound."""
    with services.database(slug).read() as db:
        return reports.newest(db)


def all_reports(services: Services, slug: str) -> list[dict[str, Any]]:
    """The reports of all imports into a project, newest first; raises NotFound."""
    with services.database(slug).read() as db:
        return reports.all_of(db)


class _Import:
    """One import into one project folder, whose import lock is held."""

    def __init__(
        self, files: ProjectFiles, database: ProjectDatabase, mapping: dict[str, str], merge: bool, allow_bare: bool
    ) -> None:
        self.files = files
        self.database = database
        self.mapping = mapping
        self.merge = merge
        self.allow_bare = allow_bare

    def run(self, path: Path, on_progress: OnProgress, should_stop: ShouldStop, write: Write) -> dict[str, Any]:
        """Stage, move, commit; on any error nothing of it stays."""
        with _refusals(), open_source(path) as source:
            self._sweep()
            require_free_space(source, self.files.folder)
            export = read_export(source, merge_same_names=self.merge, allow_bare=self.allow_bare)
            self._refuse_bad_mapping(export)
            self.files.staging.mkdir(parents=True)
            try:
                names = [image.member for image in export.images]
                staged = stage_images(source, names, self.files.staging, on_progress, should_stop)
                return self._take_over(source, export, staged, write)
            finally:
                shutil.rmtree(self.files.staging, ignore_errors=True)

    def _refuse_bad_mapping(self, export: ParsedExport) -> None:
        """Before any picture is read: it may take minutes."""
        with self.database.read() as db:
            plan_classes(export.categories, category_store.all_of(db), {}, self.mapping)

    def _take_over(
        self, source: Source, export: ParsedExport, staged: dict[str, StagedImage], write: Write
    ) -> dict[str, Any]:
        began = time.time()
        with self.database.read() as db:
            batch = gather(export, staged, image_store.known_hashes(db))
        moved = self._move(batch)
        try:
            with write() as db:
                plan = plan_classes(export.categories, category_store.all_of(db), count_boxes(export), self.mapping)
                _insert(db, batch, plan)
                report = build_report(source.label, export, batch, plan)
                reports.insert(db, source.label, report)
        except BaseException:
            for path in moved:
                path.unlink(missing_ok=True)
            raise
        logger.info("imported %d images of %s in %.1f s", len(batch.images), source.label, time.time() - began)
        return report

    def _move(self, batch: Batch) -> list[Path]:
        """Bring the staged files to their places, synced; returns those that were not there before."""
        sync_all(self.files.staging)
        moved: list[Path] = []
        for name in sorted({image.staged.file_name for image in batch.images}):
            sha256, extension = name.split(".")
            target = self.files.image(sha256, extension)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                (self.files.staging / name).replace(target)
                moved.append(target)
        for folder in {path.parent for path in moved}:
            sync_folder(folder)
        return moved

    def _sweep(self) -> None:
        """Remove what a killed import left: its staging folder, and images that no row names."""
        shutil.rmtree(self.files.staging, ignore_errors=True)
        with self.database.read() as db:
            known = image_store.known_hashes(db)
        for path in self.files.images.glob("*/*"):
            if path.stem not in known:
                logger.info("removing %s, left by an import that was killed", path)
                path.unlink()


def _insert(db: Database, batch: Batch, plan: list[PlannedClass]) -> None:
    for planned in plan:
        if planned.is_new and planned.is_first:
            category_store.insert(
                db, planned.target_name, category_id=planned.target_id, supercategory=planned.supercategory
            )
    target_of = {planned.source_id: planned.target_id for planned in plan}
    taken: dict[str, set[int]] = {}
    rows = []
    for image in batch.images:
        ids = taken.setdefault(image.parsed.split, image_store.coco_ids(db, image.parsed.split))
        coco_id = image.parsed.coco_id if image.parsed.coco_id not in ids else max(ids) + 1
        ids.add(coco_id)
        image_id = image_store.insert(db, image.as_new(coco_id))
        rows += image.annotations(image_id, target_of)
    annotation_store.insert_many(db, rows)


@contextmanager
def _refusals() -> Iterator[None]:
    """The pipeline's refusal as the error the app shows."""
    try:
        yield
    except ExportRefused as error:
        kind = SameNames if error.code == "same_name" else ImportRefused
        raise kind(error.message, error.hint) from error


@contextmanager
def _lock(files: ProjectFiles) -> Iterator[None]:
    with FileLock(files.locks / LOCK_NAME) as lock:
        if not lock.acquire():
            raise Conflict(f"Another import into {files.slug!r} is under way.", "Wait for its end, or stop it.")
        yield


@contextmanager
def _alone(services: Services) -> Iterator[None]:
    """One at a time: between a new folder and its lock, or its lock and its place, it looks like an abandoned one."""
    with FileLock(services.workspace.hidden("imports.lock")) as lock:
        while not lock.acquire():
            time.sleep(0.02)
        yield


def _sweep_abandoned(services: Services) -> None:
    """Remove half-made projects of imports that were killed."""
    with _alone(services):
        for folder in services.workspace.hidden_folder("imports").iterdir():
            if not is_held(ProjectFiles(folder).locks / LOCK_NAME):
                shutil.rmtree(folder, ignore_errors=True)
