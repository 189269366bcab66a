"""A run: its parts, how far it is, and how both come from its folder and get there."""

import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from app.pipeline.anchors import boxes_of, resolve_shapes
from app.pipeline.config import RunConfig, explain_use, idle_options, parse_config
from app.pipeline.data.pixels import ResizedImages, default_budget_bytes
from app.pipeline.data.snapshot import Snapshot
from app.pipeline.machine import Machine, choose_machine, keep_freed_memory
from app.pipeline.models.build import resolve_max_detections
from app.pipeline.models.card import write_card
from app.pipeline.models.forward import place_model
from app.pipeline.models.weights import start_model
from app.pipeline.predict import Detector
from app.pipeline.train.checkpoint import CheckpointError, Scores, check_free_space
from app.pipeline.train.estimate import MAX_SAVE_SHARE, SAVE_EVERY_S
from app.pipeline.train.files import LAST_NAME
from app.pipeline.train.guards import Remedies
from app.pipeline.train.keeper import CheckpointKeeper
from app.pipeline.train.learner import Learner
from app.pipeline.train.loader import TrainLoader
from app.pipeline.train.pace import Pace
from app.pipeline.train.ranks import Ranks
from app.pipeline.train.resume import describe_arithmetic, load_state, remove_leftovers, save_state
from app.pipeline.train.schedule import steps_per_epoch
from app.pipeline.train.speed import SpeedWatch
from app.pipeline.train.unreadable import UnreadableImages
from app.pipeline.train.validation import Judge, Patience
from app.pipeline.train.write_behind import WriteBehind
from app.pipeline.types import CheckpointDue, CheckpointSaved, Log, RunBegun, RunContext


@dataclass
class Run:
    """The parts of a run and how far it is; what it has learned lies in ``learner``."""

    config: RunConfig
    context: RunContext
    machine: Machine
    learner: Learner
    loader: TrainLoader
    judge: Judge
    patience: Patience
    detector: Detector  # of the weights that are judged
    writing: WriteBehind
    keeper: CheckpointKeeper
    pace: Pace
    speed: SpeedWatch
    ranks: Ranks
    run_dir: Path
    snapshot_sha256: str
    remedies: Remedies = field(default_factory=Remedies)
    epoch: int = 0  # finished epochs
    num_batches: int = 0  # batches of the epoch under way that are behind
    is_judgement_due: bool = False
    judged_step: int = 0
    scores: Scores | None = None
    is_too_slow: bool = False
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
        config = _resolve(config, snapshot, found[0] if found else None)
        run = cls._build(config, snapshot, run_dir, context, pixels_dir, ranks, is_resumed=found is not None)
        if found:
            run._go_on(*found)
        else:
            if ranks.is_first:
                run.keeper.forget_others()  # of an attempt that was killed before it was saved
            context.emit(RunBegun(0, 0, 0, 0.0))
        if remedies is not None and remedies != run.remedies:
            run.remedies = remedies
            if found and ranks.is_first:
                run._write_state()
                run.writing.finish()
        return run

    @classmethod
    def _build(
        cls,
        config: RunConfig,
        snapshot: Snapshot,
        run_dir: Path,
        context: RunContext,
        pixels_dir: Path | None,
        ranks: Ranks,
        is_resumed: bool,
    ) -> "Run":
        """All parts as they are at the beginning of a run; of one that goes on the weights are still to come."""
        torch.manual_seed(config.seed)
        machine = choose_machine(config.device, config.precision)
        if machine.device.type == "cpu":
            keep_freed_memory()
        categories, train, valid = snapshot.categories, snapshot.split("train"), snapshot.split("valid")
        model, notes = start_model(config, categories, snapshot.count_boxes("train"), is_resumed=is_resumed)
        if not is_resumed and ranks.is_first:
            check_free_space(run_dir, model, is_averaged=config.ema_decay > 0)
            write_card(run_dir, model, config)
        place_model(model, machine)
        images = ResizedImages.for_config(config, default_budget_bytes() // ranks.count, folder=pixels_dir)
        unreadable = UnreadableImages(len(train) + len(valid), context)
        is_pinned = machine.device.type == "cuda"
        loader = TrainLoader(train, len(categories), config, images, context, is_pinned, ranks, unreadable)
        every, metric = config.evaluate_every, config.selection_metric
        if not valid:
            notes.append("There are no validation images: nothing is scored, and only the last checkpoint is kept.")
        notes += [f"{name} has no effect in this run. {explain_use(name)}" for name in idle_options(config)]
        for note in [f"Training on {machine.describe()}.", *notes]:
            context.emit(Log(note))
        pace = Pace(config.epochs * steps_per_epoch(loader.batches_per_epoch, config), mark=machine.mark)
        learner = Learner(model, config, machine, ranks, pace.timeline)
        writing = WriteBehind()
        return cls(
            config=config,
            context=context,
            machine=machine,
            learner=learner,
            loader=loader,
            judge=Judge(valid, categories, images, every, context, metric, ranks, unreadable),
            patience=Patience(config.patience),
            detector=Detector(learner.kept_model, categories, config, machine),
            writing=writing,
            keeper=CheckpointKeeper(run_dir, config, categories, context, writing),
            pace=pace,
            speed=SpeedWatch(config.min_images_per_s, config.hint_when_slow),
            ranks=ranks,
            run_dir=run_dir,
            snapshot_sha256=snapshot.sha256,
        )

    @property
    def step(self) -> int:
        """Finished optimizer steps."""
        return self.learner.step

    @property
    def num_steps(self) -> int:
        """Those of the whole run."""
        return self.pace.num_steps

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train on; a judgement may be due all the same."""
        return self.is_judgement_due or self.epoch >= self.config.epochs or self.patience.is_out

    def is_save_due(self) -> bool:
        return self.ranks.agree("save", time.monotonic() - self.last_saved >= self.save_every_s)

    def save(self, is_awaited: bool = False) -> None:
        """Save where the run stands, beside the steps to come unless it ``is_awaited``."""
        self.learner.check()
        with self.ranks.together():
            if self.ranks.is_first:
                self._write_state()
                if is_awaited:
                    self.writing.finish()

    def _write_state(self) -> None:
        """The next time is due when what this one costs the steps is small against the time between."""
        began = time.monotonic()
        self.context.emit(CheckpointDue())
        contents = self.keeper.contents(self.learner.kept_model, self.scores, self.epoch, self.step)
        saved, kept = self._last_saved(), [one.file_name for one in self.keeper.kept]
        save_state(
            self.run_dir,
            contents | self._state_dict(),
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
        progress = {
            "num_batches": self.num_batches,
            "is_judgement_due": self.is_judgement_due,
            "judged_step": self.judged_step,
            "scores": asdict(self.scores) if self.scores else None,
            "phase": self.learner.phases.index,
            "keeper": self.keeper.state_dict(),
            "patience": self.patience.state_dict(),
            "judge": self.judge.state_dict(),
            "elapsed_s": self.pace.elapsed_s,
            "remedies": asdict(self.remedies),
            "arithmetic": describe_arithmetic(self.machine, self.ranks.count),
            "dataset_sha256": self.snapshot_sha256,
        }
        return {**self.learner.state_dict(), "progress_json": json.dumps(progress)}

    def _go_on(self, state: dict[str, Any], digest: str) -> None:
        """Put everything where :meth:`_state_dict` says it was."""
        progress = json.loads(state["progress_json"])
        if progress["dataset_sha256"] != self.snapshot_sha256:
            raise CheckpointError(
                f"{LAST_NAME} belongs to another dataset than the dataset.json beside it: train in a new folder"
            )
        self.learner.load_state_dict(state, progress["phase"])
        self.keeper.load_state_dict(progress["keeper"], state.get("kept_sha256", {}))
        self.patience.load_state_dict(progress["patience"])
        self.judge.load_state_dict(progress["judge"])
        self.pace.go_on(progress["elapsed_s"])
        self.remedies = Remedies(**progress.get("remedies", {}))
        self.epoch, self.num_batches = state["epoch"], progress["num_batches"]
        self.saved_step = self.step
        self.is_judgement_due, self.judged_step = progress["is_judgement_due"], progress["judged_step"]
        self.scores = Scores(**progress["scores"]) if progress["scores"] else None
        checkpoints = (*self.keeper.kept, self._last_saved(digest))
        self.context.emit(RunBegun(self.step, self.epoch, self.judged_step, progress["elapsed_s"], checkpoints))
        self.context.emit(Log(f"Going on after step {self.step}, with {self.epoch} epochs finished."))
        now = describe_arithmetic(self.machine, self.ranks.count)
        if now != progress["arithmetic"]:
            text = f"It was saved on {progress['arithmetic']} and goes on with {now}"
            self.context.emit(Log(f"{text}: the weights will not be the same to the last bit.", "warning"))


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
