"""What a user takes away: weights, predictions and labels, made by jobs into the project's ``exports/`` folder."""

import re
from pathlib import Path
from typing import Any

from app.errors import BadRequest, NotFound
from app.records import Job, PredictionSet
from app.services import jobs as job_service
from app.services import review
from app.services.context import Services
from app.store import predictions, runs
from app.store.database import ProjectDatabase

FORMATS = ("pth", "safetensors")
SUFFIXES = (".zip", ".json")


def list_exports(services: Services, slug: str) -> list[dict[str, Any]]:
    """Finished files, newest first: name, size_bytes, modified_at (seconds since 1970)."""
    found = [(path, path.stat()) for path in _files(services, slug)]
    found.sort(key=lambda item: -item[1].st_mtime)
    return [{"name": path.name, "size_bytes": s.st_size, "modified_at": s.st_mtime} for path, s in found]


def export_path(services: Services, slug: str, name: str) -> Path:
    """The finished file called ``name``; raises NotFound for anything that :func:`list_exports` does not list."""
    for path in _files(services, slug):
        if path.name == name:
            return path
    raise NotFound(f"There is no export called {name!r}.", "Reload the page: it may have been deleted.")


def delete_export(services: Services, slug: str, name: str) -> None:
    """Delete one finished file; raises NotFound."""
    export_path(services, slug, name).unlink()


def request_weights(services: Services, slug: str, checkpoint_id: int, weights_format: str) -> Job:
    """Queue a zip of a checkpoint's weights with what is needed to load them. Raises NotFound, BadRequest."""
    checkpoint = runs.get_checkpoint(services.database(slug), checkpoint_id)
    stem = f"run-{checkpoint.run_id}-{Path(checkpoint.file_name).stem}-{weights_format}"
    payload = {"what": "weights", "checkpoint_id": checkpoint.id, "format": _checked_format(weights_format)}
    return job_service.enqueue(services, slug, "export", payload | {"name": f"{stem}.zip"})


def request_results(services: Services, slug: str, set_id: int) -> Job:
    """Queue COCO results JSON of a stored prediction set. Raises NotFound."""
    database = services.database(slug)
    record = predictions.get_set(database, set_id)
    name = f"run-{record.run_id}-{_stem(database, record)}-{record.split}-results.json"
    return job_service.enqueue(services, slug, "export", {"what": "results", "set_id": record.id, "name": name})


def request_labels(services: Services, slug: str) -> Job:
    """Queue the labels as a COCO zip in Roboflow's layout."""
    return job_service.enqueue(services, slug, "export", {"what": "labels", "name": f"{slug}-labels.zip"})


def export_weights(services: Services, slug: str, run_id: int, weights_format: str, out_dir: Path) -> dict[str, Any]:
    """Write the weights of a run's best checkpoint to a folder and wait for it: run, checkpoint and files.

    Raises NotFound, BadRequest, and UserError with the job's reason when it failed.
    """
    checkpoint = review.best_checkpoint(services, slug, run_id)
    payload = {"what": "weights", "checkpoint_id": checkpoint.id, "format": _checked_format(weights_format)}
    job = job_service.enqueue(services, slug, "export", payload | {"folder": str(Path(out_dir).resolve())})
    ended = job_service.wait_until_done(services, slug, job.id, "The export")
    return {"run": run_id, "checkpoint": checkpoint.file_name, **ended.result}


def _stem(database: ProjectDatabase, record: PredictionSet) -> str:
    """What predictions are called on the screen, for a file: "epoch-19", "epoch-19-flip", "ensemble-4"."""
    if record.checkpoint_id is None:
        return f"{record.kind}-{record.id}"
    name = review.checkpoint_name(runs.get_checkpoint(database, record.checkpoint_id))
    views = "" if record.test_time_augmentation == "off" else f" {record.test_time_augmentation}"
    return re.sub(r"[^a-z0-9]+", "-", f"{name}{views}".lower()).strip("-")


def _checked_format(weights_format: str) -> str:
    if weights_format not in FORMATS:
        raise BadRequest(f"The format must be one of {', '.join(FORMATS)}, got {weights_format!r}.")
    return weights_format


def _files(services: Services, slug: str) -> list[Path]:
    folder = services.files(slug).exports
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.is_file() and path.suffix in SUFFIXES and path.name[0] != "."]
