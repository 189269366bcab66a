"""The training loop. A run that was stopped or killed goes on from its folder, with the same weights in the end."""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from app.pipeline.config import RunConfig
from app.pipeline.data.resize import image_size_at
from app.pipeline.data.snapshot import Snapshot
from app.pipeline.evaluate.selection import TITLES
from app.pipeline.models.forward import Batch
from app.pipeline.train.guards import Remedies
from app.pipeline.train.ranks import Ranks
from app.pipeline.train.resume import random_states_kept
from app.pipeline.train.run import Run
from app.pipeline.train.schedule import learning_rate_at
from app.pipeline.train.trouble import find_remedy, relieve_validation
from app.pipeline.train.validation import Judgement
from app.pipeline.types import Log, Metrics, PredictionsReady, Progress, RunContext


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: state 'done' or 'stopped', finished epochs, and the figures of its best checkpoint (or {}).

    A run that ended early, because nothing got better for as long as its config says, is done. ``remedies`` are what it
    did otherwise than its config says.
    """

    state: str
    epochs: int
    best: dict[str, float]
    remedies: Remedies = field(default_factory=Remedies)


def train(
    config: RunConfig,
    snapshot: Snapshot,
    run_dir: Path,
    context: RunContext | None = None,
    pixels_dir: Path | None = None,
) -> TrainResult:
    """Train a detector on the train split, judging it on the valid split; checkpoints go to ``run_dir``.

    Goes on from where the run in ``run_dir`` was saved last, if one has begun there. ``pixels_dir`` is a folder that
    keeps resized images for this run and later ones. Raises WeightsError, MachineError, DatasetError, CheckpointError,
    NonFiniteLoss, OutOfMemory, WorkersBlocked or RunPaused, each with a message for people; of several processes,
    PeerLost when one of them has died.
    """
    with Ranks.joined(config.processes) as ranks:
        start = partial(Run.start, config, snapshot, run_dir, ranks.context_for(context or RunContext()))
        remedies: Remedies | None = None
        while True:
            run = ranks.in_turn(partial(start, remedies, pixels_dir, ranks))
            with run.writing:
                try:
                    with run.loader, ranks.together():
                        return go_through(run)
                except Exception as error:
                    remedies = find_remedy(run, error)
            del run
            gc.collect()  # its memory is needed for the next one


def go_through(run: Run) -> TrainResult:
    """All that is left of a run, or as much as it takes until it is asked to stop."""
    judge_if_due(run)  # a stop may have come in the middle of it
    while not run.is_over:
        epoch = run.epoch + 1
        begin_epoch(run, epoch)
        for batches in run.pace.timeline.waiting(run.ranks.taken_together(_batches_of(run, epoch))):
            train_step(run, batches, epoch)
            if run.context.should_stop():
                return stop(run, epoch)
            if run.is_too_slow:
                return _finish(run)
        _finish_epoch(run, epoch)
        if run.context.should_stop() and not run.is_over:
            return stop(run, epoch)
    return _finish(run) if not run.is_judgement_due else stop(run, run.epoch)


def begin_epoch(run: Run, epoch: int) -> None:
    """Enter the phase of the epoch, counted from 1, if another one begins."""
    note = run.learner.enter(epoch)
    config = run.config
    size = image_size_at(epoch, config.epochs, config.image_size, config.progressive_sizes)
    run.speed.begin_stage((run.learner.phases.index, size))
    if note:
        run.context.emit(Log(note))


def _batches_of(run: Run, epoch: int) -> Iterator[list[Batch | None]]:
    """What is left of an epoch, a step at a time; raises what went wrong in writing meanwhile."""
    for batches in run.loader.steps(epoch, run.num_batches):
        run.writing.collect()
        yield batches


def train_step(run: Run, batches: Sequence[Batch | None], epoch: int) -> None:
    """One step on the batches of this rank and those of others, its figures, and what is due after it.

    None stands for a batch of which no image can be read.
    """
    learning_rate = learning_rate_at(run.step, run.num_steps, run.config) * run.remedies.rate_factor
    learned = run.learner.learn(batches, learning_rate, run.remedies, run.context.should_stop)
    if learned is None:
        return
    run.num_batches = run.loader.num_taken
    run.pace.add(learned.num_images)
    run.context.emit(Metrics(run.step, epoch, "train", {**learned.losses, "learning_rate": learning_rate}))
    if run.pace.is_due():
        _report_pace(run, epoch)
    if run.is_save_due():
        with run.pace.paused():
            run.save()
    run.is_too_slow = run.ranks.agree("too slow", bool(run.speed.too_slow))


def _finish_epoch(run: Run, epoch: int) -> None:
    """Judge the model when it is time, keep it if it is among the best, and save where the run stands."""
    run.epoch, run.num_batches = epoch, 0
    run.is_judgement_due = run.ranks.agree("judge", run.judge.is_due(epoch, run.config.epochs))
    with run.pace.paused():
        judge_if_due(run)
        if run.is_save_due():
            run.save()


def judge_if_due(run: Run) -> None:
    """Judge the finished epoch if that is still to be done; asked to stop in the middle, it stays to be done."""
    if not run.is_judgement_due:
        return
    run.learner.check()
    run.pace.timeline.enter("evaluation")
    with random_states_kept(run.machine):
        judgement = run.judge.judge(run.detector, partial(relieve_validation, run))
    run.pace.timeline.enter("other")
    run.learner.phases.apply()  # judging leaves all of the model in training mode
    run.is_judgement_due = judgement is None and run.context.should_stop()
    if judgement is None:
        return
    run.scores, run.judged_step = judgement.scores, run.step
    if run.learner.phases.is_last:  # before, the head may not have learned anything yet
        run.patience.note(judgement.scores.score)
    run.context.emit(Metrics(run.step, run.epoch, "valid", judgement.scores.to_dict()))
    with run.ranks.together():
        if run.ranks.is_first:
            _offer(run, judgement)


def _offer(run: Run, judgement: Judgement) -> None:
    """Keep the weights if they are among the best, with what they predict."""
    run.keeper.offer(
        run.learner.kept_model,
        judgement.scores,
        run.epoch,
        run.step,
        then=lambda name: run.context.emit(PredictionsReady(name, "valid", judgement.detections, judgement.took)),
    )


def stop(run: Run, epoch: int) -> TrainResult:
    """End a run in the middle of an ``epoch``, to go on from there another time."""
    _report_pace(run, epoch)
    run.save(is_awaited=True)
    run.context.emit(Log(f"Stopped in epoch {epoch} after {run.step} steps; the last state is saved."))
    return TrainResult("stopped", run.epoch, run.keeper.best, run.remedies)


def _finish(run: Run) -> TrainResult:
    _report_pace(run, run.epoch, num_steps=run.step)
    run.save(is_awaited=True)
    if run.ranks.is_first:  # the others do not know what is best
        _explain_early_end(run)
    return TrainResult("done", run.epoch, run.keeper.best, run.remedies)


def _explain_early_end(run: Run) -> None:
    """Tell why not all epochs were done, where it is so."""
    if run.is_too_slow:
        run.context.emit(Log(run.speed.too_slow, "warning"))
    elif run.epoch < run.config.epochs:
        metric, best = TITLES[run.config.selection_metric], run.keeper.best
        end = f"Ended early after epoch {run.epoch} of {run.config.epochs}"
        why = f"{run.patience.num_in_vain} validations without a better {metric}"
        than = f" than {best['score']:.3f} of epoch {best['epoch']:.0f}" if best else ""
        run.context.emit(Log(f"{end}: {why}{than}."))


def _report_pace(run: Run, epoch: int, num_steps: int | None = None) -> None:
    """How fast it goes and where the time goes, since the last report."""
    values = {"memory_mb": run.machine.memory_mb()}
    rate = run.pace.images_per_s()
    if rate is not None:
        values["images_per_s"] = rate
        hint = run.speed.note(*run.pace.window)
        if hint:
            run.context.emit(Log(hint, "warning"))
    values |= {f"share_{part}": share for part, share in run.pace.timeline.take_shares().items()}
    if run.remedies.batch_parts > 1:
        values["images_at_once"] = run.remedies.images_at_once(run.config)
    run.context.emit(Metrics(run.step, epoch, "system", values))
    message = f"epoch {epoch} of {run.config.epochs}"
    run.context.emit(Progress(run.step, num_steps or run.num_steps, message, run.pace.eta_s(run.step)))
    run.pace.restart()
