"""The work of export and predict_files jobs. Torch is imported inside functions that only a job's process calls."""

import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson

from app.errors import BadRequest
from app.jobs.context import JobContext, Stopped
from app.pipeline.types import Detections, Log
from app.services import label_export, review
from app.services.context import Services
from app.store import runs
from app.store.files import replacing

README_NAME = "README.txt"


def export(job: JobContext) -> dict[str, Any]:
    """Make the file that the payload names: weights, results or labels; the result has ``files``."""
    return {"weights": _weights, "results": _results, "labels": _labels}[job.payload["what"]](job)


def predict_files(job: JobContext) -> dict[str, Any]:
    """Predict pictures outside the project and write one COCO document whose annotations have scores."""
    from app.pipeline.data.image import BadImage
    from app.pipeline.predict import load_detector

    checkpoint = runs.get_checkpoint(job.database, int(job.payload["checkpoint_id"]))
    detector = load_detector(job.files.run(checkpoint.run_id) / checkpoint.file_name)
    categories = detector.categories
    root, images, annotations, skipped = Path(job.payload["root"]), [], [], []
    pictures = job.payload["pictures"]
    for done, name in enumerate(pictures):
        if job.should_stop():
            raise Stopped
        try:
            picture = detector.read(Path(name))
        except (BadImage, OSError) as error:
            skipped.append({"file_name": name, "reason": str(error)})
            job.emit(Log(f"skipped {name}: {error}", "warning"))
            continue
        image_id = len(images)
        label = Path(name).relative_to(root).as_posix()
        images.append({"id": image_id, "file_name": label, "width": picture.shape[1], "height": picture.shape[0]})
        found = detector.predict_image(picture, detector.config.test_time_augmentation)
        for entry in _coco_annotations(found, categories.ids, job.payload["min_score"]):
            annotations.append({"id": len(annotations), "image_id": image_id, **entry})
        job.set_progress(done + 1, len(pictures), "predicting")
    if not images:
        raise BadRequest(f"None of the {len(pictures)} files could be read.", f"First: {skipped[0]['reason']}")
    document = {
        "images": images,
        "categories": [{"id": i, "name": name} for i, name in zip(categories.ids, categories.names, strict=True)],
        "annotations": annotations,
    }
    with replacing(Path(job.payload["out"])) as path:
        path.write_bytes(orjson.dumps(document))
    return {
        "images": len(images),
        "detections": len(annotations),
        "skipped": skipped,
        "out": job.payload["out"],
    }


def _coco_annotations(found: Detections, category_ids: tuple[int, ...], min_score: float) -> list[dict[str, Any]]:
    kept = found.select(found.scores >= min_score)
    corners = kept.boxes.astype(np.float64)
    xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return [
        {
            "category_id": category_ids[label - 1],
            "bbox": box,
            "area": box[2] * box[3],
            "score": score,
            "iscrowd": 0,
        }
        for label, box, score in zip(kept.labels.tolist(), xywh.tolist(), kept.scores.tolist(), strict=True)
    ]


def _weights(job: JobContext) -> dict[str, Any]:
    """Weights and classes.json into ``folder``, or zipped with loading instructions as ``name`` among the exports."""
    from app.pipeline.config import load_config
    from app.pipeline.export import export_weights
    from app.pipeline.loading_recipe import loading_recipe, needed_libraries

    checkpoint = runs.get_checkpoint(job.database, int(job.payload["checkpoint_id"]))
    run_folder = job.files.run(checkpoint.run_id)
    weights_format = job.payload["format"]
    if "folder" in job.payload:
        written = export_weights(run_folder / checkpoint.file_name, weights_format, Path(job.payload["folder"]))
        return {"files": [str(path) for path in written]}
    config = load_config(run_folder / "config.json")
    target = job.files.exports / job.payload["name"]
    with TemporaryDirectory(dir=job.files.folder) as folder:
        written = export_weights(run_folder / checkpoint.file_name, weights_format, Path(folder))
        with replacing(target) as path, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for file in written:
                archive.write(file, file.name)
            recipe = loading_recipe(config, weights_format)
            archive.writestr(README_NAME, f"Unpack, and in that folder, with {needed_libraries(config)}:\n\n{recipe}\n")
    return {"files": [target.name]}


def _results(job: JobContext) -> dict[str, Any]:
    target = job.files.exports / job.payload["name"]
    detections = review.export_results(Services(job.workspace), job.slug, int(job.payload["set_id"]), target)
    return {"files": [target.name], "detections": detections}


def _labels(job: JobContext) -> dict[str, Any]:
    target = job.files.exports / job.payload["name"]
    counts = label_export.export_labels(
        Services(job.workspace),
        job.slug,
        target,
        lambda done, total: job.set_progress(done, total, "packing images"),
        job.should_stop,
    )
    return {"files": [target.name], **counts}
