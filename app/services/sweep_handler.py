"""The work of sweep jobs. Torch is imported inside functions that only a job's process calls."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.jobs.context import JobContext, Stopped
from app.jobs.handlers import predict_split
from app.pipeline.data.snapshot import load_snapshot
from app.pipeline.evaluate.coco_numbers import GroundTruth, evaluate
from app.pipeline.evaluate.selection import DEFAULT_METRIC, selection_score
from app.pipeline.types import Event, Progress, RunContext
from app.services import sweeping
from app.services.context import Services
from app.services.sweeping import Step
from app.store import runs


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
            checkpoint = sweeping.checkpoint_of(services, job.slug, run_id, step.file_name)
            predict_split(job, checkpoint.id, split, step.views, context.emit)
    return {"run_id": run_id, "split": split}


class _Whole:
    """The progress of the steps told as that of the whole job, in images, with the time that is left."""

    def __init__(self, job: JobContext, total: int) -> None:
        self._job = job
        self._total = total
        self._done_before = 0
        self._began = time.monotonic()

    def context_of(self, step: Step) -> RunContext:
        """The pipeline's view of the job for the next step."""
        before = self._done_before
        self._done_before += step.num_images

        def emit(event: Event) -> None:
            if not isinstance(event, Progress):
                return self._job.emit(event)
            done = before + event.done
            elapsed = time.monotonic() - self._began
            eta_s = elapsed / done * (self._total - done) if done else None
            return self._job.set_progress(done, self._total, step.title, eta_s)

        emit(Progress(0, step.num_images))
        return RunContext(emit, self._job.should_stop)


def _mix(job: JobContext, services: Services, run_id: int, step: Step, context: RunContext) -> None:
    """Mix a soup and record it as a checkpoint of the run, in place of the ones that were mixed of other weights."""
    from app.pipeline.soup import mix_all, mix_greedily

    folder = job.files.run(run_id)
    paths, target = [folder / name for name in step.members], folder / step.file_name
    if step.recipe == "greedy":
        soup = mix_greedily(paths, target, _judge_of(job, run_id, folder, context))
    else:
        soup = mix_all(paths, target)
    if job.should_stop():
        raise Stopped
    sweeping.write_members(target, soup.members)
    outdated = sweeping.outdated_soups(services, job.slug, run_id, step)
    with job.write() as db:
        runs.put_checkpoint(
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
        runs.remove_checkpoints(db, run_id, outdated)
    for path in folder.glob(f"soup-{step.recipe}-*"):
        if path.stem != target.stem:
            path.unlink()


def _judge_of(job: JobContext, run_id: int, folder: Path, context: RunContext) -> Callable[[Path], float]:
    """Scores a checkpoint file on the validation split by the run's selection metric; raises Stopped."""
    from app.pipeline.predict import load_detector

    snapshot = load_snapshot(folder / "dataset.json")
    samples = snapshot.split(sweeping.GREEDY_SPLIT)
    metric = runs.get_run(job.database, run_id).config.get("selection_metric", DEFAULT_METRIC)
    trials = 0

    def emit(event: Event) -> None:
        if isinstance(event, Progress):
            event = Progress(trials * len(samples) + event.done, event.total)
        context.emit(event)

    def score(path: Path) -> float:
        nonlocal trials
        found = dict(load_detector(path).predict_samples(samples, RunContext(emit, job.should_stop)))
        if job.should_stop():
            raise Stopped
        trials += 1
        readable = [sample for sample in samples if sample.image_id in found]
        result = evaluate(GroundTruth.from_samples(readable, snapshot.categories), found)
        return selection_score(metric, {name: getattr(result, name) for name in sweeping.FIGURES})

    return score
