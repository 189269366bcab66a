"""The work of sweep jobs. Torch is imported inside functions that only a job's process calls."""

import math
import time
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from app.jobs.context import JobContext, Stopped
from app.jobs.handlers import predict_split
from app.pipeline.config import TestTimeAugmentation
from app.pipeline.data.pixels import ResizedImages
from app.pipeline.data.snapshot import load_snapshot
from app.pipeline.evaluate.coco_numbers import GroundTruth, evaluate
from app.pipeline.evaluate.selection import DEFAULT_METRIC, selection_score
from app.pipeline.types import Detections, Event, PredictionTime, Progress, RunContext
from app.services import review, sweeping
from app.services.context import Services
from app.services.sweeping import Step
from app.store import predictions, runs


def sweep(job: JobContext) -> dict[str, Any]:
    """Predict ``split`` with every kept checkpoint of run ``run_id`` and with their soups, mixing those first.

    What is there already is left alone, so a sweep that was stopped goes on where it was. Raises Stopped.
    """
    services = Services(job.workspace)
    run_id, split = int(job.payload["run_id"]), job.payload["split"]
    steps = sweeping.missing_steps(services, job.slug, run_id, split)
    whole = _Whole(job, sum(step.num_images for step in steps))
    for step in steps:
        context = whole.context_of(step)
        if step.recipe:
            _mix(job, services, run_id, step, context)
        else:
            _predict(job, services, run_id, split, step, context)
    _note_figures(job, services, run_id)
    return {"run_id": run_id, "split": split}


def _note_figures(job: JobContext, services: Services, run_id: int) -> None:
    """Soups get the figures on valid that training notes of its checkpoints; their score stays open."""
    views = sweeping.views_of(services, job.slug, run_id)
    for checkpoint in runs.list_checkpoints(job.database, run_id):
        found = predictions.find_set(job.database, checkpoint.id, "valid", views)
        if checkpoint.soup and checkpoint.map50 is None and found:
            figures = review.judge(services, job.slug, found.id).evaluation
            with job.write() as db:
                runs.set_figures(db, checkpoint.id, map50=figures.map50, f1=figures.f1)


class _Whole:
    """The progress of the steps told as that of the whole job, in images, with the time that is left."""

    def __init__(self, job: JobContext, total: int) -> None:
        self._job = job
        self._total = total
        self._done_before = 0
        self._paced_from: tuple[float, int] | None = None  # when, and how many were done: the first loads the model too

    def context_of(self, step: Step) -> RunContext:
        """The pipeline's view of the job for the next step."""
        before = self._done_before
        self._done_before += step.num_images

        def emit(event: Event) -> None:
            if not isinstance(event, Progress):
                return self._job.emit(event)
            done = before + event.done
            now = time.monotonic()
            if done and not self._paced_from:
                self._paced_from = (now, done)
            began, first = self._paced_from or (now, done)
            eta_s = (now - began) / (done - first) * (self._total - done) if done > first else None
            return self._job.set_progress(done, self._total, step.title, eta_s)

        emit(Progress(0, step.num_images))
        return RunContext(emit, self._job.should_stop)


def _predict(job: JobContext, services: Services, run_id: int, split: str, step: Step, context: RunContext) -> None:
    """Predict with a checkpoint; what other ones of the very same weights have found is taken over."""
    checkpoint = sweeping.checkpoint_of(services, job.slug, run_id, step.file_name)
    members = sweeping.members_of(services, job.slug, checkpoint)
    same = sweeping.find_predictions(services, job.slug, run_id, members, split, step.views)
    if same is None:
        predict_split(job, checkpoint.id, split, step.views, context.emit)
    elif same.checkpoint_id != checkpoint.id:
        found = predictions.read_detections(job.database, same.id)
        with job.write() as db:
            given = (same.snapshot_sha256, split, step.views, found, predictions.time_of(same))
            _store(db, run_id, checkpoint.id, checkpoint.file_name, *given)
    context.emit(Progress(step.num_images, step.num_images))


def _mix(job: JobContext, services: Services, run_id: int, step: Step, context: RunContext) -> None:
    """Mix a soup and record it as a checkpoint of the run, in place of the ones that were mixed of other weights.

    What a greedy one found while it was chosen is stored with it.
    """
    from app.pipeline.soup import mix_all, mix_greedily

    folder = job.files.run(run_id)
    paths, target = [folder / name for name in step.members], folder / step.file_name
    judge = _GreedyJudge(job, services, run_id, step.views, context)
    soup = mix_greedily(paths, target, judge) if step.recipe == "greedy" else mix_all(paths, target)
    if job.should_stop():
        raise Stopped
    context.emit(Progress(step.num_images, step.num_images))
    sweeping.write_members(target, soup.members)
    outdated = sweeping.outdated_soups(services, job.slug, run_id, step)
    with job.write() as db:
        checkpoint_id = runs.put_checkpoint(
            db,
            run_id,
            epoch=soup.epoch,
            step=soup.step,
            file_name=target.name,
            sha256=soup.sha256,
            map50=None,
            f1=None,
            score=None,  # never the run's best by itself: people choose it where it is better
            is_last=False,
        )
        if step.recipe == "greedy":
            given = (judge.snapshot.sha256, sweeping.GREEDY_SPLIT, step.views, judge.found, judge.took)
            _store(db, run_id, checkpoint_id, target.name, *given)
        runs.remove_checkpoints(db, run_id, outdated)
    for path in folder.glob(f"soup-{step.recipe}-*"):
        if path.stem != target.stem:
            path.unlink()


def _store(
    db: Database,
    run_id: int,
    checkpoint_id: int,
    name: str,
    snapshot_sha256: str,
    split: str,
    views: TestTimeAugmentation,
    found: dict[int, Detections],
    took: PredictionTime | None,
) -> None:
    predictions.store_predictions(
        db,
        run_id=run_id,
        split=split,
        detections=found,
        snapshot_sha256=snapshot_sha256,
        checkpoint_id=checkpoint_id,
        name=name,
        options={} if views == "off" else {"test_time_augmentation": views},
        took=took,
    )


class _GreedyJudge:
    """Scores soups on the validation split by the run's selection metric, in the views that the run is judged in.

    ``found`` is what the best so far predicts there, the last of equals: that of the soup that is chosen; ``took`` is
    how long that took. Nothing is predicted again that is stored, under whatever name.
    """

    def __init__(
        self, job: JobContext, services: Services, run_id: int, views: TestTimeAugmentation, context: RunContext
    ) -> None:
        self._job, self._services, self._run_id, self._views = job, services, run_id, views
        self._context = context
        self._metric = runs.get_run(job.database, run_id).config.get("selection_metric", DEFAULT_METRIC)
        self._num_predicted = 0
        self._best = -math.inf
        self.snapshot = load_snapshot(job.files.run(run_id) / "dataset.json")
        self.found: dict[int, Detections] = {}
        self.took: PredictionTime | None = None

    def __call__(self, path: Path, members: tuple[str, ...]) -> float:
        """The score of a checkpoint file that is the average of ``members``; raises Stopped."""
        same = sweeping.find_predictions(
            self._services, self._job.slug, self._run_id, members, sweeping.GREEDY_SPLIT, self._views
        )
        if same:
            found, took = predictions.read_detections(self._job.database, same.id), predictions.time_of(same)
        else:
            found, took = self._predict(path)
        samples = self.snapshot.split(sweeping.GREEDY_SPLIT)
        result = evaluate(GroundTruth.from_samples(samples, self.snapshot.categories), found)
        score = selection_score(self._metric, {name: getattr(result, name) for name in sweeping.FIGURES})
        if score >= self._best:
            self._best, self.found, self.took = score, found, took
        return score

    def _predict(self, path: Path) -> tuple[dict[int, Detections], PredictionTime | None]:
        from app.pipeline.predict import load_detector

        samples, before = self.snapshot.split(sweeping.GREEDY_SPLIT), self._num_predicted

        def emit(event: Event) -> None:
            if isinstance(event, Progress):
                event = Progress(before + event.done, event.total)
            self._context.emit(event)

        detector = load_detector(path)
        images = ResizedImages.for_config(detector.config, budget_bytes=0, folder=self._job.files.pixels)
        told = RunContext(emit, self._job.should_stop)
        found = dict(detector.predict_samples(samples, told, images, augmentation=self._views))
        if self._job.should_stop():
            raise Stopped
        self._num_predicted += len(samples)
        return found, detector.took
