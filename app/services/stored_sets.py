"""Stored predictions with the labels they are judged on, as columns: what every closer look at a run starts from."""

from collections.abc import Callable
from dataclasses import dataclass

from app.errors import UserError
from app.pipeline.data.snapshot import Sample
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.records import Checkpoint, Job, PredictionSet
from app.services import jobs, review
from app.services.context import Services
from app.store import predictions


@dataclass(frozen=True, eq=False)
class StoredSet:
    """A set of predictions, the samples of its split as they were when its run started, and both as columns."""

    record: PredictionSet
    samples: tuple[Sample, ...]
    truth: GroundTruth
    detections: DetectionColumns


def load_set(services: Services, slug: str, set_id: int) -> StoredSet:
    """A stored set; raises NotFound."""
    database = services.database(slug)
    record = predictions.get_set(database, set_id)
    snapshot = review.load_truth(services, slug, record.run_id)
    samples = snapshot.split(record.split)
    truth = GroundTruth.from_samples(samples, snapshot.categories)
    detections = DetectionColumns.from_detections(truth, predictions.read_detections(database, set_id))
    return StoredSet(record, samples, truth, detections)


def wait_for_set(
    services: Services,
    slug: str,
    checkpoint: Checkpoint,
    split: str,
    on_change: Callable[[Job], None] | None = None,
) -> PredictionSet:
    """The predictions of a checkpoint on a split, made by a job first where they are missing; blocks until then.

    Raises NotFound, BadRequest for a split without images, and UserError when predicting failed.
    """
    found = review.ensure_predictions(services, slug, checkpoint.id, split)
    if isinstance(found, Job):
        job = jobs.wait_for(services, slug, found.id, on_change)
        if job.state != "done":
            raise UserError(f"Predicting ended as {job.state}: {job.error or 'stopped'}", "The job's log says more.")
        found = review.ensure_predictions(services, slug, checkpoint.id, split)
    if isinstance(found, Job):
        raise UserError("Predicting ended without storing its predictions.", "Try again.")
    return found
