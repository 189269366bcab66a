"""The work that needs torch: training and predicting. Run only in a job's own process.

The pipeline is imported inside the functions: this module may be looked at without loading torch.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from app.errors import BadRequest
from app.jobs.context import JobContext, PeerDied, Stopped
from app.jobs.recorder import RunRecorder
from app.pipeline.config import TestTimeAugmentation, load_config
from app.pipeline.data.pixels import ResizedImages
from app.pipeline.data.snapshot import Samples, Snapshot, load_snapshot
from app.pipeline.faults import is_disk_full
from app.pipeline.types import Detections, Event, RunPaused
from app.store import images as image_store
from app.store import predictions, runs

logger = logging.getLogger(__name__)


def train(job: JobContext) -> dict[str, Any]:
    """Train as the folder of run ``run_id`` says (config.json, dataset.json); the result has state, epochs and best."""
    from app.pipeline.train.checkpoint import CheckpointError, DiskFull
    from app.pipeline.train.loop import train as train_detector
    from app.pipeline.train.ranks import PeerLost

    run_id = int(job.payload["run_id"])
    folder = job.files.run(run_id)
    snapshot = load_snapshot(folder / "dataset.json")
    config = load_config(folder / "config.json")
    _tell_changed_labels(job)
    recorder = RunRecorder(job, run_id, snapshot.sha256)
    job.on_pulse = recorder.flush
    try:
        try:
            context = job.run_context(recorder.emit)
            result = train_detector(config, snapshot, folder, context, job.files.pixels)
        except PeerLost as error:
            raise PeerDied(str(error)) from error
        finally:
            job.on_pulse = None
            recorder.flush()
    except Exception as error:  # it may be the database, or the log, that found the disk full
        is_full = isinstance(error, DiskFull) or is_disk_full(error, folder)
        if isinstance(error, RunPaused) or not (config.pause_when_disk_is_full and is_full):
            raise
        if isinstance(error, CheckpointError):  # it says itself what to do
            raise RunPaused(f"the disk is full: {error}") from error
        raise RunPaused(f"the disk is full ({error}). Make room, then let the run go on") from error
    if result.state == "stopped":
        raise Stopped(asdict(result))
    with job.write() as db:
        runs.set_epoch(db, run_id, result.epochs)
    return asdict(result)


def _tell_changed_labels(job: JobContext) -> None:
    """Say so when the project is not any more what the run was started with."""
    begun = job.payload.get("labels_version")
    with job.database.read() as db:
        now = image_store.labels_version(db)
    if begun is not None and tuple(begun) != now:
        logger.info(
            "Images or labels of the project have changed since this run was started: it uses the dataset as it was "
            "then. A new run takes the changes in."
        )


def predict(job: JobContext) -> dict[str, Any]:
    """Predict split ``split`` with checkpoint ``checkpoint_id`` and its ``test_time_augmentation``: set_id."""
    augmentation = job.payload.get("test_time_augmentation", "off")
    return {"set_id": predict_split(job, int(job.payload["checkpoint_id"]), job.payload["split"], augmentation)}


def predict_split(
    job: JobContext,
    checkpoint_id: int,
    split: str,
    augmentation: TestTimeAugmentation,
    emit: Callable[[Event], None] | None = None,
) -> int:
    """Predict a split of the dataset frozen for the checkpoint's run, store the predictions, and return their set's id.

    ``emit`` takes progress and log lines in place of the job. Raises NotFound, BadRequest for an empty split, Stopped.
    """
    from app.pipeline.predict import load_detector

    checkpoint = runs.get_checkpoint(job.database, checkpoint_id)
    folder = job.files.run(checkpoint.run_id)
    snapshot = load_snapshot(folder / "dataset.json")
    samples = _samples_of(snapshot, split)
    detector = load_detector(folder / checkpoint.file_name)
    images = ResizedImages.for_config(detector.config, budget_bytes=0, folder=job.files.pixels)
    detections: dict[int, Detections] = dict(
        detector.predict_samples(samples, job.run_context(emit), images, augmentation=augmentation)
    )
    if job.should_stop():
        raise Stopped
    with job.write() as db:
        return predictions.store_predictions(
            db,
            run_id=checkpoint.run_id,
            split=split,
            detections=detections,
            snapshot_sha256=snapshot.sha256,
            checkpoint_id=checkpoint.id,
            name=checkpoint.file_name,
            options={} if augmentation == "off" else {"test_time_augmentation": augmentation},
            took=detector.took,
        )


def _samples_of(snapshot: Snapshot, split: str) -> Samples:
    samples = snapshot.split(split)
    if not samples:
        raise BadRequest(f"The run's dataset has no images in the split {split!r}.", "Choose another split.")
    return samples
