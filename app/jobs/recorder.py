"""From a training's events to the store: gathered for about a second, then written in one fenced transaction.

The training's thread hardly ever waits for the store: the job's pulse writes the numbers, and checkpoints and
predictions come from the thread that writes the files.
"""

import logging
import math
import threading
import time
from typing import Any

from sqlite_utils import Database

from app.jobs.context import JobContext
from app.pipeline.types import CheckpointDue, CheckpointSaved, Event, Metrics, PredictionsReady, RunBegun
from app.store import jobs, predictions, runs

logger = logging.getLogger(__name__)

FLUSH_AFTER_S = 3.0  # without a pulse, which flushes about once a second

Point = tuple[int, int, int, str, str, float, float]  # run id, step, epoch, split, name, value, elapsed_s


class RunRecorder:
    """Takes the events of one run. Metrics wait for the next pulse; checkpoints and predictions are written at once.

    Used by the training's thread, by the one that writes its checkpoints, and by the job's pulse, which flushes.
    """

    def __init__(self, job: JobContext, run_id: int, snapshot_sha256: str) -> None:
        self.job = job
        self.run_id = run_id
        self.snapshot_sha256 = snapshot_sha256
        self._lock = threading.Lock()
        self._points: list[Point] = []
        self._began = time.monotonic()
        self._flushed_at = self._began

    def emit(self, event: Event) -> None:
        """Take one event; raises JobLost when this attempt of the job is over."""
        if isinstance(event, Metrics):
            self._add(event)
        elif isinstance(event, CheckpointSaved):
            self._save_checkpoint(event)
        elif isinstance(event, PredictionsReady):
            self._save_predictions(event)
        elif isinstance(event, RunBegun):
            self._begin(event)
        elif isinstance(event, CheckpointDue):
            self.flush()
        else:
            self.job.emit(event)

    def flush(self) -> None:
        """Write what has gathered."""
        with self._lock:
            self._flushed_at = time.monotonic()
            if not self._points:
                return
            with self.job.write() as db:
                runs.append_metrics(db, self._points)
                runs.set_epoch(db, self.run_id, max(_finished_epochs(point) for point in self._points))
            self._points = []  # only now: what could not be written is tried again

    def _begin(self, event: RunBegun) -> None:
        """Make the rows what they were at the saved state: what an attempt told beyond it is told again."""
        self._began = time.monotonic() - event.elapsed_s
        self.job.note_step(event.step)
        with self.job.write() as db:
            runs.cut_back(db, self.run_id, step=event.step, judged_step=event.judged_step, epoch=event.epoch)
            names = [item.file_name for item in event.checkpoints]
            runs.keep_checkpoints(db, self.run_id, names)
            for item in event.checkpoints:
                if not runs.has_checkpoint(db, self.run_id, item.file_name, item.sha256):
                    self._put_checkpoint(db, item)

    def _add(self, event: Metrics) -> None:
        elapsed_s = time.monotonic() - self._began
        if event.split == "train":
            self.job.note_step(event.step)
        if event.split == "valid":
            figures = ", ".join(f"{name} {value:.3f}" for name, value in event.values.items())
            logger.info("epoch %d: %s", event.epoch, figures)
        for name, value in event.values.items():
            if not math.isfinite(value):
                logger.warning("step %d: %s is %s", event.step, name, value)
                continue
            point = (self.run_id, event.step, event.epoch, event.split, name, float(value), elapsed_s)
            with self._lock:
                self._points.append(point)
        if time.monotonic() - self._flushed_at >= FLUSH_AFTER_S:
            self.flush()

    def _save_checkpoint(self, event: CheckpointSaved) -> None:
        self.flush()
        with self.job.write() as db:
            self._put_checkpoint(db, event)
            runs.remove_checkpoints(db, self.run_id, event.removed)
            runs.set_epoch(db, self.run_id, event.epoch)

    def _put_checkpoint(self, db: Database, event: CheckpointSaved) -> None:
        """Record saved weights; with a newer state behind it, what killed the job before did not end it."""
        if event.is_last and event.step > runs.saved_step(db, self.run_id):
            jobs.forget_deaths(db, self.job.job.id)
        runs.put_checkpoint(db, self.run_id, **_checkpoint_values(event))

    def _save_predictions(self, event: PredictionsReady) -> None:
        with self.job.write() as db:
            checkpoint_id = runs.checkpoint_id_of(db, self.run_id, event.file_name)
            if checkpoint_id is None:
                raise ValueError(f"predictions came for {event.file_name!r}, which was not saved")
            predictions.store_predictions(
                db,
                run_id=self.run_id,
                split=event.split,
                detections=event.detections,
                snapshot_sha256=self.snapshot_sha256,
                checkpoint_id=checkpoint_id,
                name=event.file_name,
                took=event.took,
            )


def _checkpoint_values(event: CheckpointSaved) -> dict[str, Any]:
    names = ("epoch", "step", "file_name", "sha256", "map50", "f1", "score", "is_last")
    return {name: getattr(event, name) for name in names}


def _finished_epochs(point: Point) -> int:
    """A validation ends its epoch (they count from 1); any other number is written inside it."""
    return point[2] if point[3] == "valid" else point[2] - 1
