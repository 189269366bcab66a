"""Staged training: which parts of a detector learn in a phase; the others stay as they are, to the bit."""

from torch import nn

from app.pipeline.config import RunConfig
from app.pipeline.models.forward import Part
from app.pipeline.train.schedule import phase_of_epoch

# Names of the modules that learn in a phase; "all" is everything that was trainable when the run began.
MODULES: dict[Part, tuple[str, ...]] = {"rpn": ("backbone.fpn", "rpn"), "heads": ("roi_heads",)}
# The model as a whole is training; the RPN's own mode decides how many proposals the head may sample from.
_MODES_KEPT = ("", "rpn")


class Phases:
    """Sets a model up for each phase of a run, and remembers where it is; without phases everything learns."""

    def __init__(self, model: nn.Module, config: RunConfig) -> None:
        self._model = model
        self._config = config
        self._trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._index: int | None = None
        self.part: Part = "all"

    def enter(self, epoch: int) -> str:
        """Set up for an epoch, counted from 1; returns a sentence for the log when another phase begins, else ""."""
        index, phase = phase_of_epoch(epoch, self._config)
        if index == self._index:
            return ""
        self.resume(index)
        if phase is None:
            return ""
        length = f"{phase.epochs} epoch{'' if phase.epochs == 1 else 's'}"
        return f"Phase {index + 1} of {len(self._config.phases)}: {_WORDS[self.part]} for {length}."

    @property
    def index(self) -> int | None:
        """Which phase the model is set up for; None before the first epoch."""
        return self._index

    def resume(self, index: int | None) -> None:
        """Set up for the phase of this index, as :meth:`enter` did before."""
        self._index = index
        if index is not None and self._config.phases:
            self.part = self._config.phases[index].train
            self.apply()

    @property
    def is_last(self) -> bool:
        """Whether no phase follows this one."""
        return not self._config.phases or self._index == len(self._config.phases) - 1

    def apply(self) -> None:
        """Put the model into training mode for the phase: again after whatever has changed its mode.

        What is frozen gets no gradients, keeps the statistics of its batch norm, and drops nothing out.
        """
        learning = MODULES.get(self.part)
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(name in self._trainable and (learning is None or _lies_in(name, learning)))
        for name, module in self._model.named_modules():
            module.training = learning is None or name in _MODES_KEPT or _lies_in(name, learning)


_WORDS = {
    "rpn": "the feature pyramid and the RPN learn",
    "heads": "the box head learns",
    "all": "everything learns",
}


def _lies_in(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
