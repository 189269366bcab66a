"""The training loop."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from app.pipeline.anchors import boxes_of, resolve_shapes
from app.pipeline.config import RunConfig, explain_use, idle_options
from app.pipeline.data.pixels import ResizedImages
from app.pipeline.data.snapshot import Snapshot
from app.pipeline.evaluate.selection import TITLES
from app.pipeline.machine import Machine, choose_machine
from app.pipeline.models.build import resolve_max_detections
from app.pipeline.models.card import write_card
from app.pipeline.models.forward import Batch, compute_losses, place_model
from app.pipeline.models.weights import start_model
from app.pipeline.predict import Detector
from app.pipeline.train.checkpoint import CheckpointKeeper, Scores, check_free_space, tensors_of
from app.pipeline.train.ema import AveragedModel
from app.pipeline.train.loader import TrainLoader
from app.pipeline.train.optim import Updater, check_losses
from app.pipeline.train.pace import Pace
from app.pipeline.train.phases import Phases
from app.pipeline.train.schedule import learning_rate_at, steps_per_epoch
from app.pipeline.train.validation import Judge, Patience
from app.pipeline.types import Log, Metrics, PredictionsReady, Progress, RunContext

SAVE_LAST_EVERY_S = 120.0


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: state 'done' or 'stopped', finished epochs, and the figures of its best checkpoint (or {}).

    A run that ended early, because nothing got better for as long as its config says, is done.
    """

    state: str
    epochs: int
    best: dict[str, float]


def train(config: RunConfig, snapshot: Snapshot, run_dir: Path, context: RunContext | None = None) -> TrainResult:
    """Train a detector on the train split, judging it on the valid split; checkpoints go to ``run_dir``.

    Raises WeightsError, MachineError, DatasetError, CheckpointError or NonFiniteLoss, each with a message for people.
    """
    run = Run.start(config, snapshot, run_dir, context or RunContext())
    for epoch in range(1, run.config.epochs + 1):
        run.begin_epoch(epoch)
        for batches in in_groups(run.loader.epoch(epoch), run.config.accumulate_batches):
            run.train_step(batches, epoch)
            if run.context.should_stop():
                return run.stop(epoch)
        run.finish_epoch(epoch)
        if run.context.should_stop() and epoch < run.config.epochs:
            return run.stop(epoch)
        if run.patience.is_out:
            break
    return run.finish()


def in_groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """The batches of each optimizer step: ``size`` of them, fewer in the last step of an epoch."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


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
    keeper: CheckpointKeeper
    detector: Detector
    pace: Pace
    epoch: int = 0  # finished epochs
    step: int = 0  # finished optimizer steps
    scores: Scores | None = None
    last_saved: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, config: RunConfig, snapshot: Snapshot, run_dir: Path, context: RunContext) -> "Run":
        """Build all parts; everything that can be refused is refused here."""
        config = config.model_copy(update={"max_detections": resolve_max_detections(config, snapshot.max_objects)})
        config = resolve_shapes(config, boxes_of(snapshot.split("train"), config))
        torch.manual_seed(config.seed)
        machine = choose_machine(config.device, config.precision)
        model, notes = start_model(config, snapshot.categories, snapshot.count_boxes("train"))
        check_free_space(run_dir, model, is_averaged=config.ema_decay > 0)
        write_card(run_dir, model, config)
        place_model(model, machine).train()
        average = AveragedModel(model, config.ema_decay) if config.ema_decay else None
        images = ResizedImages.for_config(config)
        loader = TrainLoader(snapshot.split("train"), len(snapshot.categories), config, images, context)
        valid = snapshot.split("valid")
        if not valid:
            notes.append("There are no validation images: nothing is scored, and only the last checkpoint is kept.")
        notes += [f"{name} has no effect in this run. {explain_use(name)}" for name in idle_options(config)]
        for note in [f"Training on {machine.describe()}.", *notes]:
            context.emit(Log(note))
        return cls(
            config=config,
            context=context,
            machine=machine,
            model=model,
            loader=loader,
            phases=Phases(model, config),
            updater=Updater(model, config, machine),
            average=average,
            judge=Judge(valid, snapshot.categories, images, config.evaluate_every, context, config.selection_metric),
            patience=Patience(config.patience),
            keeper=CheckpointKeeper(run_dir, config, snapshot.categories, context),
            detector=Detector(average.model if average else model, snapshot.categories, config, machine),
            pace=Pace(config.epochs * steps_per_epoch(loader.batches_per_epoch, config)),
        )

    @property
    def num_steps(self) -> int:
        return self.config.epochs * steps_per_epoch(self.loader.batches_per_epoch, self.config)

    @property
    def kept_model(self) -> torch.nn.Module:
        """The weights that are judged, kept and exported: the average where there is one."""
        return self.average.model if self.average else self.model

    def begin_epoch(self, epoch: int) -> None:
        """Enter the phase of the epoch, if another one begins, with a new optimizer for what learns in it."""
        note = self.phases.enter(epoch)
        if note:
            self.updater.start_over(self.model)
            self.context.emit(Log(note))

    def train_step(self, batches: list[Batch], epoch: int) -> None:
        """One step on one or several batches: losses, gradients, new weights, and the figures of all that."""
        learning_rate = learning_rate_at(self.step, self.num_steps, self.config)
        self.updater.set_learning_rate(learning_rate)
        num_images = sum(len(batch) for batch in batches)
        values: dict[str, float] = {}
        for index, batch in enumerate(batches):
            if index and self.context.should_stop():
                return self.updater.forget()  # half of a step is none
            share = len(batch) / num_images
            for name, value in self._add_gradients(batch, share).items():
                values[name] = values.get(name, 0.0) + value * share
        self.updater.apply([name for batch in batches for name in batch.names])
        if self.average:
            self.average.update()
        self.step += 1
        self.pace.add(num_images)
        self.context.emit(Metrics(self.step, epoch, "train", {**values, "learning_rate": learning_rate}))
        if self.pace.is_due():
            self._report_pace(epoch)
        return None

    def _add_gradients(self, batch: Batch, share: float) -> dict[str, float]:
        """Forward and backward on a batch that is ``share`` of a step; returns its losses by name, and their sum."""
        losses = compute_losses(self.model, batch, self.machine, self.phases.part)
        loss = torch.stack(list(losses.values())).sum()
        numbers = torch.stack([*losses.values(), loss]).detach().float().tolist()
        values = dict(zip([*losses, "loss"], numbers, strict=True))
        check_losses(values, batch.names)
        self.updater.add(loss, share)
        return values

    def finish_epoch(self, epoch: int) -> None:
        """Judge the model when it is time, keep it if it is among the best, and save where the run stands."""
        self.epoch = epoch
        with self.pace.paused():
            if self.judge.is_due(epoch, self.config.epochs):
                self._judge(epoch)
            if time.monotonic() - self.last_saved > SAVE_LAST_EVERY_S:
                self._save_last()

    def stop(self, epoch: int) -> TrainResult:
        self._report_pace(epoch)
        self._save_last()
        self.context.emit(Log(f"Stopped in epoch {epoch} after {self.step} steps; the last state is saved."))
        return TrainResult("stopped", self.epoch, self.keeper.best)

    def finish(self) -> TrainResult:
        self._report_pace(self.epoch, num_steps=self.step)
        self._save_last()
        if self.epoch < self.config.epochs:
            self._explain_early_end()
        return TrainResult("done", self.epoch, self.keeper.best)

    def _judge(self, epoch: int) -> None:
        judgement = self.judge.judge(self.detector)
        self.phases.apply()  # judging leaves all of the model in training mode
        if judgement is None:
            return
        self.scores = judgement.scores
        if self.phases.is_last:  # before, the head may not have learned anything yet
            self.patience.note(judgement.scores.score)
        self.context.emit(Metrics(self.step, epoch, "valid", judgement.scores.to_dict()))
        name = self.keeper.offer(self.kept_model, judgement.scores, epoch, self.step)
        if name is not None:
            self.context.emit(PredictionsReady(name, "valid", judgement.detections))

    def _explain_early_end(self) -> None:
        metric, best = TITLES[self.config.selection_metric], self.keeper.best
        end = f"Ended early after epoch {self.epoch} of {self.config.epochs}"
        why = f"{self.patience.num_in_vain} validations without a better {metric}"
        self.context.emit(Log(f"{end}: {why} than {best['score']:.3f} of epoch {best['epoch']:.0f}."))

    def _save_last(self) -> None:
        self.keeper.save_last(self.kept_model, self._progress(), self.scores)
        self.last_saved = time.monotonic()

    def _progress(self) -> dict[str, Any]:
        """Where the run stands, as tensors and plain values, for going on from here."""
        random_states = {"cpu": torch.get_rng_state()}
        if self.machine.device.type == "cuda":
            random_states["cuda"] = torch.cuda.get_rng_state(self.machine.device)
        behind = {"ema": self.average.state_dict(), "trained_model": tensors_of(self.model)} if self.average else {}
        return {
            **behind,
            "epoch": self.epoch,
            "step": self.step,
            "optimizer": self.updater.optimizer.state_dict(),
            "scaler": self.updater.scaler.state_dict(),
            "random_states": random_states,
        }

    def _report_pace(self, epoch: int, num_steps: int | None = None) -> None:
        values = {"memory_mb": self.machine.memory_mb()}
        rate = self.pace.images_per_s()
        if rate is not None:
            values["images_per_s"] = rate
        self.context.emit(Metrics(self.step, epoch, "system", values))
        message = f"epoch {epoch} of {self.config.epochs}"
        self.context.emit(Progress(self.step, num_steps or self.num_steps, message, self.pace.eta_s(self.step)))
        self.pace.restart()
