"""Stored predictions with the labels they are judged on, as columns: what every closer look at a run starts from."""

from dataclasses import dataclass

from app.pipeline.data.snapshot import Samples
from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.records import PredictionSet
from app.services import truths
from app.services.context import Services
from app.store import predictions


@dataclass(frozen=True, eq=False)
class StoredSet:
    """A set of predictions, the samples of its split as they were when its run started, and both as columns."""

    record: PredictionSet
    samples: Samples
    truth: GroundTruth
    detections: DetectionColumns


def load_set(services: Services, slug: str, set_id: int) -> StoredSet:
    """A stored set; raises NotFound."""
    database = services.database(slug)
    record = predictions.get_set(database, set_id)
    snapshot = truths.load_truth(services, slug, record.run_id)
    samples = snapshot.split(record.split)
    truth = GroundTruth.from_samples(samples, snapshot.categories)
    return StoredSet(record, samples, truth, predictions.read_columns(database, set_id, truth))
