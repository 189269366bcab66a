"""Predictions for pictures outside any project: a file or a folder in, one COCO document with scores out."""

from pathlib import Path
from typing import Any

from app.errors import BadRequest
from app.pipeline.data.layout_names import PICTURE_ENDINGS
from app.services import jobs as job_service
from app.services import review
from app.services.context import Services


def predict_files(
    services: Services, slug: str, run_id: int, path: Path, out: Path, min_score: float = 0.05
) -> dict[str, Any]:
    """Predict ``path`` (a picture, or a folder of them) with a run's best checkpoint and write ``out``; wait for it.

    Detections below ``min_score`` are left out. Returns run, checkpoint, images, detections, skipped and out. Raises
    NotFound, BadRequest, and UserError with the job's reason when it failed.
    """
    path = path.absolute()  # not resolved: a linked picture keeps its own name
    pictures = list_pictures(path)
    if not 0 <= min_score <= 1:
        raise BadRequest(f"The smallest score must lie in 0..1, got {min_score}.")
    checkpoint = review.best_checkpoint(services, slug, run_id)
    payload = {
        "checkpoint_id": checkpoint.id,
        "root": str(path if path.is_dir() else path.parent),
        "pictures": [str(picture) for picture in pictures],
        "out": str(out.absolute()),
        "min_score": min_score,
    }
    job = job_service.enqueue(services, slug, "predict_files", payload)
    ended = job_service.wait_until_done(services, slug, job.id, "Predicting")
    return {"run": run_id, "checkpoint": checkpoint.file_name, **ended.result}


def list_pictures(path: Path) -> list[Path]:
    """The pictures at ``path``, sub-folders included, sorted; raises BadRequest when there are none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise BadRequest(f"There is no file or folder {path}.")
    found = sorted(item for item in path.rglob("*") if item.suffix.lower() in PICTURE_ENDINGS and item.name[0] != ".")
    if not found:
        raise BadRequest(f"{path} holds no pictures ({', '.join(PICTURE_ENDINGS)}).")
    return found
