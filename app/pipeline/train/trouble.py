"""What becomes of a run that met an error: it goes on from a saved state with a remedy, or ends in plain words."""

import traceback

from app.pipeline.faults import is_out_of_memory
from app.pipeline.train.checkpoint import DiskFull
from app.pipeline.train.guards import (
    MAX_SKIPPED_STEPS,
    OutOfMemory,
    Remedies,
    StepsSkipped,
    halve_batch,
    halve_predicted,
    lower_rate,
)
from app.pipeline.train.optim import NonFiniteLoss
from app.pipeline.train.resume import go_back_before
from app.pipeline.train.run import Run
from app.pipeline.types import Log, RunPaused


def find_remedy(run: Run, error: Exception) -> Remedies:
    """What to go on with from the last saved state after ``error``; raises what the run ends with."""
    try:
        with run.ranks.together():
            run.writing.finish()
    except DiskFull as full:
        error = full
    if isinstance(error, OutOfMemory):  # of a validation, which has done what it could
        run.save(is_awaited=True)
        raise error
    if is_out_of_memory(error):
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the step that went wrong
        return _relieve_memory(run, error)
    if isinstance(error, NonFiniteLoss):
        return _lower_rate(run, error)
    if isinstance(error, DiskFull) and run.config.pause_when_disk_is_full:
        raise RunPaused(f"the disk is full: {error}") from error
    raise error


def relieve_validation(run: Run, error: Exception) -> None:
    """Let a validation be repeated with less at a time; raises what the run ends with when that is not to be."""
    if not is_out_of_memory(error):
        run.loader.give_way(error)
        return
    traceback.clear_frames(error.__traceback__)  # they hold its tensors
    run.detector.batch_size, sentence = halve_predicted(run.detector.batch_size, run.config, run.epoch)
    run.context.emit(Log(sentence, "warning"))


def _relieve_memory(run: Run, error: Exception) -> Remedies:
    """Save the state before the step that did not fit; raises OutOfMemory when there is nothing more to give."""
    try:
        remedies, sentence = halve_batch(run.remedies, run.config, run.epoch, run.step)
        run.context.emit(Log(sentence, "warning"))
        run.remedies = remedies
    except OutOfMemory as end:
        raise end from error
    finally:
        if not run.learner.is_updating:
            run.learner.undo_step()
            run.save(is_awaited=True)
    return run.remedies


def _lower_rate(run: Run, error: NonFiniteLoss) -> Remedies:
    """Go back to the last state before the weights that ``error`` came from; raises it when that helps no more."""
    step = run.step - error.is_late
    remedies = lower_rate(run.remedies, run.config, step)
    if remedies is None:
        raise error
    if run.ranks.is_first:
        skipped = MAX_SKIPPED_STEPS if isinstance(error, StepsSkipped) else 0  # they left the weights as they were
        go_back_before(run.run_dir, step - skipped)
    run.context.emit(
        Log(
            f"After step {step} {error.what}: going back to the last good checkpoint, and on from there with "
            f"{remedies.rate_factor:g} of the learning rate.",
            "warning",
        )
    )
    return remedies
