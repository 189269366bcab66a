"""What a run may do otherwise than its config says when it meets trouble, so that a night of training is not lost.

A remedy never patches up a run in the middle: the run begins again from a saved state, as if it had been killed, and
does one thing otherwise from there on. What it does otherwise is saved with its state and told in its log.
"""

from dataclasses import dataclass, replace

from torch.amp import GradScaler

from app.pipeline.config import RunConfig
from app.pipeline.train.optim import NonFiniteLoss

MAX_BATCH_HALVINGS = 3
MAX_RATE_HALVINGS = 2
MAX_SKIPPED_STEPS = 20


@dataclass(frozen=True)
class Remedies:
    """What a run does otherwise than its config says.

    Each batch goes through the network in ``batch_parts``; the learning rate is halved ``rate_halvings`` times.
    """

    batch_parts: int = 1
    rate_halvings: int = 0

    @property
    def rate_factor(self) -> float:
        """What the learning rate of the schedule is multiplied by."""
        return 0.5**self.rate_halvings

    def images_at_once(self, config: RunConfig) -> int:
        """The most images that go through the network together."""
        return -(-config.batch_size // self.batch_parts)


class OutOfMemory(RuntimeError):
    """The memory does not suffice for the run; the message says where it ended and what to do."""


class StepsSkipped(NonFiniteLoss):
    """The gradient was not finite in MAX_SKIPPED_STEPS steps in a row, each of which loss scaling has left out."""


class SkippedSteps:
    """Notices when loss scaling leaves out one step after the other.

    A single one is ordinary: the ``scaler`` halves its scale and tries again. To read the scale is to wait for the GPU,
    so it is done once in MAX_SKIPPED_STEPS steps: only if all of them were left out has it fallen that far.
    """

    def __init__(self, scaler: GradScaler) -> None:
        self._scaler = scaler
        self._num_steps = 0
        self._scale = 0.0  # when it was read last

    def note_step(self) -> bool:
        """Count a step; whether as many as may be, up to this one, were all left out."""
        if not self._scaler.is_enabled():
            return False
        self._num_steps += 1
        if self._num_steps % MAX_SKIPPED_STEPS != 1:
            return False
        before, self._scale = self._scale, self._scaler.get_scale()
        return self._scale <= before * self._scaler.get_backoff_factor() ** MAX_SKIPPED_STEPS

    def state_dict(self) -> dict[str, float]:
        """Plain values to go on from, beside the scaler's."""
        return {"num_steps": self._num_steps, "scale": self._scale}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from :meth:`state_dict`."""
        self._num_steps, self._scale = int(state["num_steps"]), state["scale"]


def halve_batch(remedies: Remedies, config: RunConfig, epoch: int, step: int) -> tuple[Remedies, str]:
    """The remedies with the batch halved, and the sentence for the log; raises OutOfMemory when that is not to be.

    ``epoch`` and ``step`` are those finished. Only in the first epoch: what is later compared with other runs must not
    change in its middle. The images of an optimizer step, and so its gradient, stay what they are.
    """
    at_once = remedies.images_at_once(config)
    is_allowed = config.halve_batch_when_out_of_memory and epoch == 0
    if not is_allowed or at_once == 1 or remedies.batch_parts >= 2**MAX_BATCH_HALVINGS:
        raise OutOfMemory(_explain_end(remedies, config, epoch))
    halved = replace(remedies, batch_parts=remedies.batch_parts * 2)
    return halved, (
        f"Out of memory after step {step}: from here on {halved.images_at_once(config)} images at a time go through "
        f"the network instead of {at_once}; those of each optimizer step stay together."
    )


def halve_predicted(at_once: int, config: RunConfig, epoch: int) -> tuple[int, str]:
    """How many images to predict at a time instead of ``at_once``, and the sentence for the log.

    In whatever epoch: weights do not depend on it. Raises OutOfMemory when that is not to be.
    """
    if not config.halve_batch_when_out_of_memory or at_once == 1:
        raise OutOfMemory(
            f"out of memory in the validation of epoch {epoch}, with {at_once} at a time; the last state is saved. "
            "Close what else uses the memory and go on, or start a run with a smaller batch_size or image_size "
            f"({config.image_size})"
        )
    halved = -(-at_once // 2)
    return halved, (
        f"Out of memory in the validation of epoch {epoch}: it is repeated, and from here on {halved} images at a time "
        f"are predicted instead of {at_once}; the weights do not depend on it."
    )


def lower_rate(remedies: Remedies, config: RunConfig, step: int) -> Remedies | None:
    """The remedies with the learning rate halved once more; None when that is not to be, or cannot help.

    ``step`` are the steps finished: without one the rate had no part in what happened.
    """
    if not config.halve_rate_when_not_finite or remedies.rate_halvings >= MAX_RATE_HALVINGS or step == 0:
        return None
    return replace(remedies, rate_halvings=remedies.rate_halvings + 1)


def _explain_end(remedies: Remedies, config: RunConfig, epoch: int) -> str:
    at_once = remedies.images_at_once(config)
    smaller = "image_size" if at_once == 1 else f"batch_size (here {at_once} at a time) or image_size"
    return (
        f"out of memory in epoch {epoch + 1}; the last state is saved. Close what else uses the memory and go on, or "
        f"start a run with a smaller {smaller} ({config.image_size}); with accumulate_batches the images of a step "
        "can stay as many"
    )
