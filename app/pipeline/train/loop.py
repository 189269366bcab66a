"""The training loop."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from app.pipeline.config import RunConfig
from app.pipeline.data.pixels import ResizedImages
from app.pipeline.data.snapshot import Snapshot
from app.pipeline.machine import Machine, choose_machine
from app.pipeline.models.build import resolve_max_detections
from app.pipeline.models.forward import Batch, compute_losses, place_model
from app.pipeline.models.weights import start_model
from app.pipeline.predict import Detector
from app.pipeline.train.checkpoint import CheckpointKeeper, Scores, check_free_space
from app.pipeline.train.loader import TrainLoader
from app.pipeline.train.optim import Updater, check_losses
from app.pipeline.train.pace import Pace
from app.pipeline.train.schedule import learning_rate_at
from app.pipeline.train.validation import Judge
from app.pipeline.types import Log, Metrics, PredictionsReady, Progress, RunContext

SAVE_LAST_EVERY_S = 120.0


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: state 'done' or 'stopped', finished epochs, and the figures of its best checkpoint (or {})."""

    state: str
    epochs: int
    best: dict[str, float]


def train(config: RunConfig, snapshot: Snapshot, run_dir: Path, context: RunContext | None = None) -> TrainResult:
    """Train a detector on the train split, judging it on the valid split; checkpoints go to ``run_dir``.

    Raises WeightsError, MachineError, DatasetError, CheckpointError or NonFiniteLoss, each with a message for people.
    """
    run = Run.start(config, snapshot, run_dir, context or RunContext())
    for epoch in range(1, run.config.epochs + 1):
        for batch in run.loader.epoch(epoch):
            run.train_step(batch, epoch)
            if run.context.should_stop():
                return run.stop(epoch)
        run.finish_epoch(epoch)
        if run.context.should_stop() and epoch < run.config.epochs:
            return run.stop(epoch)
    return run.finish()


@dataclass
class Run:
    """The parts of a run and how far it is."""

    config: RunConfig
    context: RunContext
    machine: Machine
    model: torch.nn.Module
    loader: TrainLoader
    updater: Updater
    judge: Judge
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
        torch.manual_seed(config.seed)
        machine = choose_machine(config.device, config.precision)
        model, notes = start_model(config, snapshot.categories)
        check_free_space(run_dir, model)
        place_model(model, machine).train()
        images = ResizedImages(config.image_size)
        loader = TrainLoader(snapshot.split("train"), len(snapshot.categories), config, images, context)
        valid = snapshot.split("valid")
        if not valid:
            notes.append("There are no validation images: nothing is scored, and only the last checkpoint is kept.")
        for note in [f"Training on {machine.describe()}.", *notes]:
            context.emit(Log(note))
        return cls(
            config=config,
            context=context,
            machine=machine,
            model=model,
            loader=loader,
            updater=Updater(model, config, machine),
            judge=Judge(valid, snapshot.categories, images, config.evaluate_every, context),
            keeper=CheckpointKeeper(run_dir, config, snapshot.categories, context),
            detector=Detector(model, snapshot.categories, config, machine),
            pace=Pace(config.epochs * loader.batches_per_epoch),
        )

    @property
    def num_steps(self) -> int:
        return self.config.epochs * self.loader.batches_per_epoch

    def train_step(self, batch: Batch, epoch: int) -> None:
        """One batch: losses, gradients, new weights, and the figures of all that."""
        learning_rate = learning_rate_at(self.step, self.num_steps, self.config)
        self.updater.set_learning_rate(learning_rate)
        losses = compute_losses(self.model, batch, self.machine)
        loss = torch.stack(list(losses.values())).sum()
        numbers = torch.stack([*losses.values(), loss]).detach().float().tolist()
        values = dict(zip([*losses, "loss"], numbers, strict=True))
        check_losses(values, batch.names)
        self.updater.step(loss, batch.names)
        self.step += 1
        self.pace.add(len(batch))
        self.context.emit(Metrics(self.step, epoch, "train", {**values, "learning_rate": learning_rate}))
        if self.pace.is_due():
            self._report_pace(epoch)

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
        self._report_pace(self.epoch)
        self._save_last()
        return TrainResult("done", self.epoch, self.keeper.best)

    def _judge(self, epoch: int) -> None:
        judgement = self.judge.judge(self.detector)
        if judgement is None:
            return
        self.scores = judgement.scores
        self.context.emit(Metrics(self.step, epoch, "valid", judgement.scores.to_dict()))
        name = self.keeper.offer(self.model, judgement.scores, epoch, self.step)
        if name is not None:
            self.context.emit(PredictionsReady(name, "valid", judgement.detections))

    def _save_last(self) -> None:
        self.keeper.save_last(self.model, self._progress(), self.scores)
        self.last_saved = time.monotonic()

    def _progress(self) -> dict[str, Any]:
        """Where the run stands, as tensors and plain values, for going on from here."""
        random_states = {"cpu": torch.get_rng_state()}
        if self.machine.device.type == "cuda":
            random_states["cuda"] = torch.cuda.get_rng_state(self.machine.device)
        return {
            "epoch": self.epoch,
            "step": self.step,
            "optimizer": self.updater.optimizer.state_dict(),
            "scaler": self.updater.scaler.state_dict(),
            "random_states": random_states,
        }

    def _report_pace(self, epoch: int) -> None:
        values = {"memory_mb": self.machine.memory_mb()}
        rate = self.pace.images_per_s()
        if rate is not None:
            values["images_per_s"] = rate
        self.context.emit(Metrics(self.step, epoch, "system", values))
        message = f"epoch {epoch} of {self.config.epochs}"
        self.context.emit(Progress(self.step, self.num_steps, message, self.pace.eta_s(self.step)))
        self.pace.restart()
