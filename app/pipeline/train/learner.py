"""What learns in a run: the detector, its optimizer, its averaged weights. One optimizer step at a time.

Until a step changes weights it can be undone, dice and statistics of batch norm included.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from app.pipeline.config import RunConfig
from app.pipeline.machine import Machine
from app.pipeline.models.forward import Batch, compute_losses, settled
from app.pipeline.timeline import Timeline
from app.pipeline.train.checkpoint import tensors_of
from app.pipeline.train.ema import AveragedModel
from app.pipeline.train.gradients import GradientSum
from app.pipeline.train.guards import MAX_SKIPPED_STEPS, Remedies, SkippedSteps, StepsSkipped
from app.pipeline.train.optim import Updater, check_losses, check_weights
from app.pipeline.train.phases import Phases
from app.pipeline.train.ranks import Ranks
from app.pipeline.train.resume import StepStart, random_states, restore_random_states


class Learned(NamedTuple):
    """How many images of all ranks a step was made of, and their mean losses by name, with "loss" for the sum."""

    num_images: int
    losses: dict[str, float]


class Learner:
    """A detector that learns. ``step`` counts its optimizer steps; ``average`` follows it when ema_decay is set.

    The model is where it shall compute. ``timeline`` is told which part of a step is under way.
    """

    def __init__(self, model: nn.Module, config: RunConfig, machine: Machine, ranks: Ranks, timeline: Timeline) -> None:
        self.model = model.train()
        self.average = AveragedModel(model, config.ema_decay) if config.ema_decay else None
        self.phases = Phases(model, config)
        self.updater = Updater(model, config, machine)
        self.step = 0
        self.image_names: list[str] = []  # of the last update
        self.is_updating = False  # a step is half done, and cannot be undone
        self._config = config
        self._machine = machine
        self._ranks = ranks
        self._timeline = timeline
        self._gradients = GradientSum(model, ranks)
        self._skipped = SkippedSteps(self.updater.scaler)
        self._step_start = StepStart(model, machine)

    @property
    def kept_model(self) -> nn.Module:
        """The weights that are judged, kept and exported: the average where there is one."""
        return self.average.model if self.average else self.model

    def enter(self, epoch: int) -> str:
        """Set up for an epoch; returns a sentence where another phase begins, with a new optimizer for what learns."""
        note = self.phases.enter(epoch)
        if note:
            self.updater.start_over(self.model)
        return note

    def learn(
        self,
        batches: Sequence[Batch | None],
        learning_rate: float,
        remedies: Remedies,
        should_stop: Callable[[], bool],
    ) -> Learned | None:
        """One step on the batches of this rank and those of others.

        None, and nothing has changed, where none of their images can be read (a batch is None then), or where one is
        asked to stop before all of them are seen.
        """
        self.updater.set_learning_rate(learning_rate)
        parts = list(self._parts_of(batches, remedies))
        names = list(chain(*self._ranks.gather("images", [name for _, batch in parts for name in batch.names])))
        num_images = len(names)
        if not num_images:
            return None
        losses = self._add_up_gradients(parts, num_images, should_stop)
        if losses is None:
            return None
        self._update(names)
        return Learned(num_images, losses)

    def undo_step(self) -> None:
        """As if the batches of the step under way had not been seen."""
        self._step_start.restore()
        self.updater.forget()

    def check(self) -> None:
        """For what is judged or saved: raises NonFiniteLoss where a weight, or the last gradient, is not finite."""
        self.updater.read()
        for model in {self.model, self.kept_model}:
            check_weights(model, self.image_names)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values to go on from, besides the weights of ``kept_model``, the step and the phase."""
        behind = {"ema": self.average.state_dict(), "trained_model": tensors_of(self.model)} if self.average else {}
        rest = {"skipped_steps": self._skipped.state_dict(), "random_states": random_states(self._machine)}
        return {**behind, **self.updater.state_dict(), **rest}

    def load_state_dict(self, state: dict[str, Any], phase: int | None) -> None:
        """Go on from :meth:`state_dict`, with "model" and "step" beside it, in a ``phase`` (see :class:`Phases`)."""
        self.model.load_state_dict(state["trained_model" if self.average else "model"])
        if self.average:
            self.average.load_state_dict(state["model"], state["ema"])
        self.phases.resume(phase)
        self.updater.start_over(self.model)  # over what learns in that phase
        self.updater.load_state_dict(state)
        if "skipped_steps" in state:  # runs of earlier versions go on without
            self._skipped.load_state_dict(state["skipped_steps"])
        self.step = state["step"]
        restore_random_states(self._machine, state["random_states"])

    def _parts_of(self, batches: Sequence[Batch | None], remedies: Remedies) -> Iterator[tuple[int, Batch]]:
        """What goes through the network at once, each with its place in the step."""
        num_parts = remedies.batch_parts
        for index, batch in enumerate(batches):
            if batch is None:
                continue
            place = self._ranks.rank + index * self._ranks.count
            size = remedies.images_at_once(self._config) if num_parts > 1 else len(batch)
            yield from ((place * num_parts + number, part) for number, part in enumerate(batch.split(size)))

    def _add_up_gradients(
        self, parts: Sequence[tuple[int, Batch]], num_images: int, should_stop: Callable[[], bool]
    ) -> dict[str, float] | None:
        """Gradients of the mean loss over the images of all ranks; the losses, or None where it was to stop."""
        total: dict[str, float] = {}
        self._step_start.note()
        with self._ranks.together(), self._gradients.of_step():
            for index, (place, batch) in enumerate(parts):
                if index and self._ranks.count == 1 and should_stop():
                    self.undo_step()  # half of a step is none
                    return None
                share = len(batch) / num_images
                with self._gradients.of_part(is_last=index == len(parts) - 1):
                    losses = self._add_gradients(place, batch, share)
                _add_up(total, {name: value * share for name, value in losses.items()})
        return self._join_ranks(total) if self._ranks.count > 1 else total

    def _add_gradients(self, place: int, batch: Batch, share: float) -> dict[str, float]:
        """Forward and backward on a batch that is ``share`` of a step; returns its losses by name, and their sum.

        The one wait of a step is for these numbers. Where they tell that NMS was not settled, all is done once more.
        """
        self._timeline.enter("forward")
        loss, values = settled(self.model, self._machine, partial(self._losses_of, place, batch))
        check_losses(values, batch.names)
        self._timeline.enter("backward")
        self.updater.add(loss, share)
        return values

    def _losses_of(self, place: int, batch: Batch, waits: bool) -> tuple[Tensor, dict[str, float]]:
        """The sum of a batch's losses, to go back from, and the numbers: each by its name, and "loss"."""
        self._throw_dice_for(place)
        compute = partial(compute_losses, self.model, batch, self._machine, self.phases.part, waits)
        losses = self._gradients.losses(compute)
        loss = torch.stack(list(losses.values())).sum()
        return loss, dict(zip([*losses, "loss"], self.updater.read([*losses.values(), loss]), strict=True))

    def _throw_dice_for(self, place: int) -> None:
        """Let what a batch draws follow from its place in the step, so that it is the same in whatever process."""
        digest = hashlib.blake2b(f"{self._config.seed}:{self.step}:{place}".encode(), digest_size=8).digest()
        torch.manual_seed(int.from_bytes(digest) >> 1)

    def _join_ranks(self, values: dict[str, float]) -> dict[str, float]:
        """Add up the figures of all ranks, and even out the statistics of batch norm."""
        self._ranks.average_statistics(self.model)
        total: dict[str, float] = {}
        for part in self._ranks.gather("losses", values):
            _add_up(total, part)
        return total

    def _update(self, image_names: list[str]) -> None:
        """New weights from the gradients. Raises NonFiniteLoss when too many steps in a row were left out."""
        self._timeline.enter("optimizer")
        self._step_start.forget()
        self.is_updating = True
        self.image_names = image_names
        with self._ranks.together():  # the first one allocates what the optimizer remembers
            self.updater.apply(image_names)
            if self.average:
                self.average.update()
        self._timeline.enter("other")
        self.step += 1
        self.is_updating = False
        if self._skipped.note_step():
            names = ", ".join(image_names)
            raise StepsSkipped(
                f"the gradient was not finite in {MAX_SKIPPED_STEPS} steps in a row, the last on a batch of {names}"
            )


def _add_up(total: dict[str, float], part: dict[str, float]) -> None:
    for name, value in part.items():
        total[name] = total.get(name, 0.0) + value
