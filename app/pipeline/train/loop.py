"""The training loop. A run that was stopped or killed goes on from its folder, with the same weights in the end."""

import gc
import hashlib
import json
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from app.pipeline.anchors import boxes_of, resolve_shapes
from app.pipeline.config import RunConfig, explain_use, idle_options, parse_config
from app.pipeline.data.pixels import ResizedImages, default_budget_bytes
from app.pipeline.data.resize import image_size_at
from app.pipeline.data.snapshot import Snapshot
from app.pipeline.evaluate.selection import TITLES
from app.pipeline.faults import is_out_of_memory
from app.pipeline.machine import Machine, choose_machine, keep_freed_memory
from app.pipeline.models.build import resolve_max_detections
from app.pipeline.models.card import write_card
from app.pipeline.models.forward import Batch, compute_losses, place_model, settled
from app.pipeline.models.weights import start_model
from app.pipeline.predict import Detector
from app.pipeline.train.checkpoint import CheckpointError, DiskFull, Scores, check_free_space, tensors_of
from app.pipeline.train.ema import AveragedModel
from app.pipeline.train.estimate import MAX_SAVE_SHARE, SAVE_EVERY_S
from app.pipeline.train.files import LAST_NAME
from app.pipeline.train.gradients import GradientSum
from app.pipeline.train.guards import (
    MAX_SKIPPED_STEPS,
    OutOfMemory,
    Remedies,
    SkippedSteps,
    StepsSkipped,
    lower_rate,
    relieve_memory,
    relieve_validation,
)
from app.pipeline.train.keeper import CheckpointKeeper
from app.pipeline.train.loader import TrainLoader
from app.pipeline.train.optim import NonFiniteLoss, Updater, check_losses, check_weights
from app.pipeline.train.pace import Pace
from app.pipeline.train.phases import Phases
from app.pipeline.train.ranks import Ranks
from app.pipeline.train.resume import (
    StepStart,
    describe_arithmetic,
    go_back_before,
    load_state,
    random_states,
    random_states_kept,
    remove_leftovers,
    restore_random_states,
    save_state,
)
from app.pipeline.train.schedule import learning_rate_at, steps_per_epoch
from app.pipeline.train.speed import SpeedWatch
from app.pipeline.train.unreadable import UnreadableImages
from app.pipeline.train.validation import Judge, Judgement, Patience
from app.pipeline.train.write_behind import WriteBehind
from app.pipeline.types import (
    CheckpointDue,
    CheckpointSaved,
    Log,
    Metrics,
    PredictionsReady,
    Progress,
    RunBegun,
    RunContext,
    RunPaused,
)


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
    NonFiniteLoss, OutOfMemory or RunPaused, each with a message for people.
    """
    with Ranks.joined(config.processes) as ranks:
        start = partial(Run.start, config, snapshot, run_dir, ranks.context_for(context or RunContext()))
        remedies: Remedies | None = None
        while True:
            run = ranks.in_turn(partial(start, remedies, pixels_dir, ranks))
            with run.writing:
                try:
                    with run.loader:
                        return _train(run)
                except Exception as error:
                    remedies = run.find_remedy(error)
            del run
            gc.collect()  # its memory is needed for the next one


def _train(run: "Run") -> TrainResult:
    run.judge_if_due()  # a stop may have come in the middle of it
    while not run.is_over:
        epoch = run.epoch + 1
        run.begin_epoch(epoch)
        for batches in run.pace.timeline.waiting(run.ranks.taken_together(run.batches_of(epoch))):
            run.train_step(batches, epoch)
            if run.context.should_stop():
                return run.stop(epoch)
            if run.is_too_slow:
                return run.finish()
        run.finish_epoch(epoch)
        if run.context.should_stop() and not run.is_over:
            return run.stop(epoch)
    return run.finish() if not run.is_judgement_due else run.stop(run.epoch)


@dataclass
class Run:
    """The parts of a run and how far it is. ``average`` follows the weights when ema_decay is set."""

    config: RunConfig
    context: RunContext
    machine: Machine
    model: torch.nn.Module
    loader: TrainLoader
    phases: Phases
    updater: Updater
    average: AveragedModel | None
    judge: Judge
    patience: Patience
    writing: WriteBehind
    keeper: CheckpointKeeper
    detector: Detector
    pace: Pace
    ranks: Ranks
    gradients: GradientSum
    speed: SpeedWatch
    skipped_steps: SkippedSteps
    run_dir: Path
    snapshot_sha256: str
    step_start: StepStart
    remedies: Remedies = field(default_factory=Remedies)
    epoch: int = 0  # finished epochs
    step: int = 0  # finished optimizer steps
    num_batches: int = 0  # batches of the epoch under way that are behind
    is_judgement_due: bool = False
    judged_step: int = 0
    scores: Scores | None = None
    image_names: list[str] = field(default_factory=list)  # of the last update
    is_too_slow: bool = False
    is_updating: bool = False  # a step is half done, and cannot be undone
    saved_step: int | None = None  # of the newest saved state
    last_saved: float = field(default_factory=time.monotonic)
    save_every_s: float = field(default_factory=lambda: SAVE_EVERY_S)

    @classmethod
    def start(
        cls,
        config: RunConfig,
        snapshot: Snapshot,
        run_dir: Path,
        context: RunContext,
        remedies: Remedies | None = None,
        pixels_dir: Path | None = None,
        ranks: Ranks | None = None,
    ) -> "Run":
        """Build all parts, as they were saved last if a run has begun here; what can be refused is refused here.

        ``remedies`` are what the run does otherwise from here on; without them it is what was saved.
        """
        ranks = ranks or Ranks()
        if ranks.is_first:
            remove_leftovers(run_dir)
        found = load_state(run_dir)
        state, digest = found or (None, "")
        config = _resolve(config, snapshot, state)
        torch.manual_seed(config.seed)
        machine = choose_machine(config.device, config.precision)
        if machine.device.type == "cpu":
            keep_freed_memory()
        counts = snapshot.count_boxes("train")
        model, notes = start_model(config, snapshot.categories, counts, is_resumed=state is not None)
        if state is None and ranks.is_first:
            check_free_space(run_dir, model, is_averaged=config.ema_decay > 0)
            write_card(run_dir, model, config)
        place_model(model, machine).train()
        average = AveragedModel(model, config.ema_decay) if config.ema_decay else None
        images = ResizedImages.for_config(config, default_budget_bytes() // ranks.count, folder=pixels_dir)
        train, valid, is_pinned = snapshot.split("train"), snapshot.split("valid"), machine.device.type == "cuda"
        unreadable = UnreadableImages(len(train) + len(valid), context)
        loader = TrainLoader(train, len(snapshot.categories), config, images, context, is_pinned, ranks, unreadable)
        writing = WriteBehind()
        if not valid:
            notes.append("There are no validation images: nothing is scored, and only the last checkpoint is kept.")
        notes += [f"{name} has no effect in this run. {explain_use(name)}" for name in idle_options(config)]
        for note in [f"Training on {machine.describe()}.", *notes]:
            context.emit(Log(note))
        updater = Updater(model, config, machine)
        run = cls(
            config=config,
            context=context,
            machine=machine,
            model=model,
            loader=loader,
            phases=Phases(model, config),
            updater=updater,
            average=average,
            judge=Judge(
                valid,
                snapshot.categories,
                images,
                config.evaluate_every,
                context,
                config.selection_metric,
                ranks,
                unreadable,
            ),
            patience=Patience(config.patience),
            writing=writing,
            keeper=CheckpointKeeper(run_dir, config, snapshot.categories, context, writing),
            detector=Detector(average.model if average else model, snapshot.categories, config, machine),
            pace=Pace(config.epochs * steps_per_epoch(loader.batches_per_epoch, config), mark=machine.mark),
            ranks=ranks,
            gradients=GradientSum(model, ranks),
            speed=SpeedWatch(config.min_images_per_s, config.hint_when_slow),
            skipped_steps=SkippedSteps(updater.scaler),
            run_dir=run_dir,
            snapshot_sha256=snapshot.sha256,
            step_start=StepStart(model, machine),
        )
        if state is None:
            if ranks.is_first:
                run.keeper.forget_others()  # of an attempt that was killed before it was saved
            context.emit(RunBegun(0, 0, 0, 0.0))
        else:
            run._go_on(state, digest)
        if remedies is not None and remedies != run.remedies:
            run.remedies = remedies
            if state is not None and ranks.is_first:
                run._write_state()
                run.writing.finish()
        return run

    @property
    def num_steps(self) -> int:
        return self.config.epochs * steps_per_epoch(self.loader.batches_per_epoch, self.config)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train on; a judgement may be due all the same."""
        return self.is_judgement_due or self.epoch >= self.config.epochs or self.patience.is_out

    @property
    def kept_model(self) -> torch.nn.Module:
        """The weights that are judged, kept and exported: the average where there is one."""
        return self.average.model if self.average else self.model

    def begin_epoch(self, epoch: int) -> None:
        """Enter the phase of the epoch, if another one begins, with a new optimizer for what learns in it."""
        note = self.phases.enter(epoch)
        size = image_size_at(epoch, self.config.epochs, self.config.image_size, self.config.progressive_sizes)
        self.speed.begin_stage((self.phases.index, size))
        if note:
            self.updater.start_over(self.model)
            self.context.emit(Log(note))

    def batches_of(self, epoch: int) -> Iterator[list[Batch | None]]:
        """What is left of an epoch, a step at a time; raises what went wrong in writing meanwhile."""
        for batches in self.loader.steps(epoch, self.num_batches):
            self.writing.collect()
            yield batches

    def train_step(self, batches: Sequence[Batch | None], epoch: int) -> None:
        """One step on the batches of this rank and those of others: losses, gradients, new weights, and their figures.

        None stands for a batch of which no image can be read.
        """
        learning_rate = learning_rate_at(self.step, self.num_steps, self.config) * self.remedies.rate_factor
        self.updater.set_learning_rate(learning_rate)
        parts = list(self._parts_of(batches))
        num_images = sum(self.ranks.gather("images", sum(len(batch) for _, batch in parts)))
        if not num_images:
            return None
        values: dict[str, float] = {}
        self.step_start.note()
        with self.ranks.together(), self.gradients.of_step():
            for index, (place, batch) in enumerate(parts):
                if index and self.ranks.count == 1 and self.context.should_stop():
                    return self._undo_step()  # half of a step is none
                share = len(batch) / num_images
                with self.gradients.of_part(is_last=index == len(parts) - 1):
                    losses = self._add_gradients(place, batch, share)
                _add_up(values, {name: value * share for name, value in losses.items()})
        if self.ranks.count > 1:
            values = self._join_ranks(values)
        self.pace.timeline.enter("optimizer")
        self.step_start.forget()
        self.is_updating = True
        self.image_names = [name for _, batch in parts for name in batch.names]
        self.updater.apply(self.image_names)
        if self.average:
            self.average.update()
        self.pace.timeline.enter("other")
        self.step += 1
        self.num_batches = self.loader.num_taken
        self.is_updating = False
        self._check_skipped_steps()
        self.pace.add(num_images)
        self.context.emit(Metrics(self.step, epoch, "train", {**values, "learning_rate": learning_rate}))
        if self.pace.is_due():
            self._report_pace(epoch)
        if self._is_save_due():
            with self.pace.paused():
                self._save()
        self.is_too_slow = self.ranks.agree("too slow", bool(self.speed.too_slow))
        return None

    def _parts_of(self, batches: Sequence[Batch | None]) -> Iterator[tuple[int, Batch]]:
        """What goes through the network at once, each with its place in the step."""
        num_parts = self.remedies.batch_parts
        for index, batch in enumerate(batches):
            if batch is None:
                continue
            place = self.ranks.rank + index * self.ranks.count
            size = self.remedies.images_at_once(self.config) if num_parts > 1 else len(batch)
            yield from ((place * num_parts + number, part) for number, part in enumerate(batch.split(size)))

    def _throw_dice_for(self, place: int) -> None:
        """Let what a batch draws follow from its place in the step, so that it is the same in whatever process."""
        digest = hashlib.blake2b(f"{self.config.seed}:{self.step}:{place}".encode(), digest_size=8).digest()
        torch.manual_seed(int.from_bytes(digest) >> 1)

    def _join_ranks(self, values: dict[str, float]) -> dict[str, float]:
        """Add up the figures of all ranks, and even out the statistics of batch norm."""
        self.ranks.average_statistics(self.model)
        total: dict[str, float] = {}
        for part in self.ranks.gather("losses", values):
            _add_up(total, part)
        return total

    def _undo_step(self) -> None:
        """As if the batches of the step under way had not been seen."""
        self.step_start.restore()
        self.updater.forget()

    def _add_gradients(self, place: int, batch: Batch, share: float) -> dict[str, float]:
        """Forward and backward on a batch that is ``share`` of a step; returns its losses by name, and their sum.

        The one wait of a step is for these numbers. Where they tell that NMS was not settled, all is done once more.
        """
        self.pace.timeline.enter("forward")
        loss, values = settled(self.model, self.machine, partial(self._losses_of, place, batch))
        check_losses(values, batch.names)
        self.pace.timeline.enter("backward")
        self.updater.add(loss, share)
        return values

    def _check_skipped_steps(self) -> None:
        """Raise NonFiniteLoss when loss scaling leaves out one step after the other."""
        if self.skipped_steps.note_step():
            names = ", ".join(self.image_names)
            raise StepsSkipped(
                f"the gradient was not finite in {MAX_SKIPPED_STEPS} steps in a row, the last on a batch of {names}"
            )

    def _losses_of(self, place: int, batch: Batch, waits: bool) -> tuple[torch.Tensor, dict[str, float]]:
        """The sum of a batch's losses, to go back from, and the numbers: each by its name, and "loss"."""
        self._throw_dice_for(place)
        compute = partial(compute_losses, self.model, batch, self.machine, self.phases.part, waits)
        losses = self.gradients.losses(compute)
        loss = torch.stack(list(losses.values())).sum()
        return loss, dict(zip([*losses, "loss"], self.updater.read([*losses.values(), loss]), strict=True))

    def find_remedy(self, error: Exception) -> Remedies:
        """What to go on with from the last saved state after ``error``; raises what the run ends with."""
        try:
            with self.ranks.together():
                self.writing.finish()
        except DiskFull as full:
            error = full
        if isinstance(error, OutOfMemory):  # of a validation, which has done what it could
            self._save(is_awaited=True)
            raise error
        if is_out_of_memory(error):
            traceback.clear_frames(error.__traceback__)  # they hold the tensors of the step that went wrong
            return self._relieve_memory(error)
        if isinstance(error, NonFiniteLoss):
            return self._lower_rate(error)
        if isinstance(error, DiskFull) and self.config.pause_when_disk_is_full:
            raise RunPaused(f"the disk is full: {error}") from error
        raise error

    def _relieve_memory(self, error: Exception) -> Remedies:
        """Save the state before the step that did not fit; raises OutOfMemory when there is nothing more to give."""
        try:
            remedies, sentence = relieve_memory(self.remedies, self.config, self.epoch, self.step)
            self.context.emit(Log(sentence, "warning"))
            self.remedies = remedies
        except OutOfMemory as end:
            raise end from error
        finally:
            if not self.is_updating:
                self._undo_step()
                self._save(is_awaited=True)
        return self.remedies

    def _relieve_validation(self, error: Exception) -> None:
        """Let a validation be repeated with less at a time; raises what the run ends with when that is not to be."""
        if not is_out_of_memory(error):
            self.loader.give_way(error)
            return
        traceback.clear_frames(error.__traceback__)  # they hold its tensors
        self.detector.batch_size, sentence = relieve_validation(self.detector.batch_size, self.config, self.epoch)
        self.context.emit(Log(sentence, "warning"))

    def _lower_rate(self, error: NonFiniteLoss) -> Remedies:
        """Go back to the last state before the weights that ``error`` came from; raises it when that helps no more."""
        step = self.step - error.is_late
        remedies = lower_rate(self.remedies, self.config, step)
        if remedies is None:
            raise error
        if self.ranks.is_first:
            skipped = MAX_SKIPPED_STEPS if isinstance(error, StepsSkipped) else 0  # they left the weights as they were
            go_back_before(self.run_dir, step - skipped)
        self.context.emit(
            Log(
                f"After step {step} {error.what}: going back to the last good checkpoint, and on from there with "
                f"{remedies.rate_factor:g} of the learning rate.",
                "warning",
            )
        )
        return remedies

    def finish_epoch(self, epoch: int) -> None:
        """Judge the model when it is time, keep it if it is among the best, and save where the run stands."""
        self.epoch, self.num_batches = epoch, 0
        self.is_judgement_due = self.ranks.agree("judge", self.judge.is_due(epoch, self.config.epochs))
        with self.pace.paused():
            self.judge_if_due()
            if self._is_save_due():
                self._save()

    def stop(self, epoch: int) -> TrainResult:
        self._report_pace(epoch)
        self._save(is_awaited=True)
        self.context.emit(Log(f"Stopped in epoch {epoch} after {self.step} steps; the last state is saved."))
        return TrainResult("stopped", self.epoch, self.keeper.best, self.remedies)

    def finish(self) -> TrainResult:
        self._report_pace(self.epoch, num_steps=self.step)
        self._save(is_awaited=True)
        if self.speed.too_slow:
            self.context.emit(Log(self.speed.too_slow, "warning"))
        elif self.epoch < self.config.epochs:
            self._explain_early_end()
        return TrainResult("done", self.epoch, self.keeper.best, self.remedies)

    def judge_if_due(self) -> None:
        """Judge the finished epoch if that is still to be done; asked to stop in the middle, it stays to be done."""
        if not self.is_judgement_due:
            return
        self.updater.read()
        check_weights(self.kept_model, self.image_names)
        self.pace.timeline.enter("evaluation")
        with random_states_kept(self.machine):
            judgement = self.judge.judge(self.detector, self._relieve_validation)
        self.pace.timeline.enter("other")
        self.phases.apply()  # judging leaves all of the model in training mode
        self.is_judgement_due = judgement is None and self.context.should_stop()
        if judgement is None:
            return
        self.scores, self.judged_step = judgement.scores, self.step
        if self.phases.is_last:  # before, the head may not have learned anything yet
            self.patience.note(judgement.scores.score)
        self.context.emit(Metrics(self.step, self.epoch, "valid", judgement.scores.to_dict()))
        with self.ranks.together():
            if self.ranks.is_first:
                self._offer(judgement)

    def _offer(self, judgement: Judgement) -> None:
        """Keep the weights if they are among the best, with what they predict."""
        self.keeper.offer(
            self.kept_model,
            judgement.scores,
            self.epoch,
            self.step,
            then=lambda name: self.context.emit(PredictionsReady(name, "valid", judgement.detections, judgement.took)),
        )

    def _explain_early_end(self) -> None:
        metric, best = TITLES[self.config.selection_metric], self.keeper.best
        end = f"Ended early after epoch {self.epoch} of {self.config.epochs}"
        why = f"{self.patience.num_in_vain} validations without a better {metric}"
        self.context.emit(Log(f"{end}: {why} than {best['score']:.3f} of epoch {best['epoch']:.0f}."))

    def _is_save_due(self) -> bool:
        return self.ranks.agree("save", time.monotonic() - self.last_saved >= self.save_every_s)

    def _save(self, is_awaited: bool = False) -> None:
        """Save where the run stands, beside the steps to come unless it ``is_awaited``."""
        self.updater.read()
        for model in {self.model, self.kept_model}:
            check_weights(model, self.image_names)
        with self.ranks.together():
            if self.ranks.is_first:
                self._write_state()
                if is_awaited:
                    self.writing.finish()

    def _write_state(self) -> None:
        """The next time is due when what this one costs the steps is small against the time between."""
        began = time.monotonic()
        self.context.emit(CheckpointDue())
        contents = self.keeper.contents(self.kept_model, self.scores, self.epoch, self.step) | self._state_dict()
        saved, kept = self._last_saved(), [one.file_name for one in self.keeper.kept]
        save_state(
            self.run_dir,
            contents,
            self.writing,
            then=lambda digest: self.context.emit(replace(saved, sha256=digest)),
            late=lambda: {"kept_sha256": self.keeper.digests_of(kept)},
            is_in_place=self.step == self.saved_step,
        )
        self.saved_step = self.step
        self.last_saved = time.monotonic()
        self.save_every_s = max(SAVE_EVERY_S, (self.last_saved - began) / MAX_SAVE_SHARE)

    def _last_saved(self, digest: str = "") -> CheckpointSaved:
        figures = (self.scores.map50, self.scores.f1, self.scores.score) if self.scores else (None, None, None)
        return CheckpointSaved(LAST_NAME, digest, self.epoch, self.step, *figures, is_last=True)

    def _state_dict(self) -> dict[str, Any]:
        """All that is needed to go on exactly, as tensors and plain values; a step is in it whole or not at all."""
        behind = {"ema": self.average.state_dict(), "trained_model": tensors_of(self.model)} if self.average else {}
        progress = {
            "num_batches": self.num_batches,
            "is_judgement_due": self.is_judgement_due,
            "judged_step": self.judged_step,
            "scores": asdict(self.scores) if self.scores else None,
            "phase": self.phases.index,
            "keeper": self.keeper.state_dict(),
            "patience": self.patience.state_dict(),
            "judge": self.judge.state_dict(),
            "elapsed_s": self.pace.elapsed_s,
            "remedies": asdict(self.remedies),
            "arithmetic": describe_arithmetic(self.machine),
            "dataset_sha256": self.snapshot_sha256,
        }
        return {
            **behind,
            **self.updater.state_dict(),
            "random_states": random_states(self.machine),
            "progress_json": json.dumps(progress),
        }

    def _go_on(self, state: dict[str, Any], digest: str) -> None:
        """Put everything where :meth:`_state_dict` says it was."""
        progress = json.loads(state["progress_json"])
        if progress["dataset_sha256"] != self.snapshot_sha256:
            raise CheckpointError(
                f"{LAST_NAME} belongs to another dataset than the dataset.json beside it: train in a new folder"
            )
        self.model.load_state_dict(state["trained_model" if self.average else "model"])
        if self.average:
            self.average.load_state_dict(state["model"], state["ema"])
        self.phases.resume(progress["phase"])
        self.updater.start_over(self.model)  # over what learns in that phase
        self.updater.load_state_dict(state)
        self.keeper.load_state_dict(progress["keeper"], state.get("kept_sha256", {}))
        self.patience.load_state_dict(progress["patience"])
        self.judge.load_state_dict(progress["judge"])
        self.pace.go_on(progress["elapsed_s"])
        self.remedies = Remedies(**progress.get("remedies", {}))
        self.epoch, self.step, self.num_batches = state["epoch"], state["step"], progress["num_batches"]
        self.saved_step = self.step
        self.is_judgement_due, self.judged_step = progress["is_judgement_due"], progress["judged_step"]
        self.scores = Scores(**progress["scores"]) if progress["scores"] else None
        restore_random_states(self.machine, state["random_states"])
        checkpoints = (*self.keeper.kept, self._last_saved(digest))
        self.context.emit(RunBegun(self.step, self.epoch, self.judged_step, progress["elapsed_s"], checkpoints))
        self.context.emit(Log(f"Going on after step {self.step}, with {self.epoch} epochs finished."))
        now = describe_arithmetic(self.machine)
        if now != progress["arithmetic"]:
            text = f"It was saved on {progress['arithmetic']} and goes on with {now}"
            self.context.emit(Log(f"{text}: the weights will not be the same to the last bit.", "warning"))

    def _report_pace(self, epoch: int, num_steps: int | None = None) -> None:
        values = {"memory_mb": self.machine.memory_mb()}
        rate = self.pace.images_per_s()
        if rate is not None:
            values["images_per_s"] = rate
            hint = self.speed.note(*self.pace.window)
            if hint:
                self.context.emit(Log(hint, "warning"))
        values |= {f"share_{part}": share for part, share in self.pace.timeline.take_shares().items()}
        if self.remedies.batch_parts > 1:
            values["images_at_once"] = self.remedies.images_at_once(self.config)
        self.context.emit(Metrics(self.step, epoch, "system", values))
        message = f"epoch {epoch} of {self.config.epochs}"
        self.context.emit(Progress(self.step, num_steps or self.num_steps, message, self.pace.eta_s(self.step)))
        self.pace.restart()


def _add_up(total: dict[str, float], part: dict[str, float]) -> None:
    for name, value in part.items():
        total[name] = total.get(name, 0.0) + value


def _resolve(config: RunConfig, snapshot: Snapshot, state: dict[str, Any] | None) -> RunConfig:
    """The config with what it leaves to the data filled in, as it was at the start of a run that goes on."""
    if state is None:
        config = config.model_copy(update={"max_detections": resolve_max_detections(config, snapshot.max_objects)})
        return resolve_shapes(config, boxes_of(snapshot.split("train"), config))
    begun = parse_config(json.loads(state["config_json"]))
    filled_in = {"max_detections": begun.max_detections, "anchor_shapes": begun.anchor_shapes}
    if config.model_copy(update=filled_in) != begun:
        raise CheckpointError(
            f"{LAST_NAME} belongs to a run with other options than those given: train with those, or in a new folder"
        )
    return begun
