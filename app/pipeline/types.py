"""What goes through the pipeline: detections, events and the context of a run. Imports no torch.

Legend: N boxes. Boxes are xyxy, absolute float pixels of the upright original image; labels are contiguous 1..K.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


class RunPaused(RuntimeError):
    """A run cannot go on for now, and goes on exactly when the message's advice was followed: nothing is lost."""


@dataclass(frozen=True, eq=False)
class Detections:
    """Predicted boxes of one image, checked once at birth.

    boxes: float32 [N, 4], xyxy pixels, finite, x2 >= x1 and y2 >= y1. scores: float32 [N] in 0..1. labels: int32 [N].
    Labels are 1..K.
    Raises ValueError when shapes, lengths or ranges do not fit.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        boxes = np.ascontiguousarray(self.boxes, dtype=np.float32).reshape(-1, 4)
        scores = np.ascontiguousarray(self.scores, dtype=np.float32).reshape(-1)
        labels = np.ascontiguousarray(self.labels, dtype=np.int32).reshape(-1)
        if not len(boxes) == len(scores) == len(labels):
            raise ValueError(
                f"boxes, scores and labels must have one length; got {len(boxes)}, {len(scores)} and {len(labels)}"
            )
        if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
            raise ValueError("boxes and scores must be finite")
        if len(boxes) and ((boxes[:, 2:] < boxes[:, :2]).any() or scores.min() < 0 or scores.max() > 1):
            raise ValueError("boxes must have x2 >= x1 and y2 >= y1, and scores must lie in 0..1")
        if len(labels) and labels.min() < 1:
            raise ValueError("labels must be at least 1: 0 is the background")
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, keep: np.ndarray) -> "Detections":
        """The rows picked by ``keep`` (a boolean mask [N] or indices)."""
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep])

    @classmethod
    def empty(cls) -> "Detections":
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))


@dataclass(frozen=True, slots=True)
class Metrics:
    """Named numbers of one step or epoch (split: train, valid or system)."""

    step: int
    epoch: int
    split: str
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is; ``eta_s`` is None while unknown."""

    done: int
    total: int
    message: str = ""
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """One line for the run's log, meant for people."""

    text: str
    level: str = "info"


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint lies complete on disk. ``removed`` are file names that were deleted because better ones are kept."""

    file_name: str
    sha256: str
    epoch: int
    step: int
    map50: float | None
    f1: float | None
    score: float | None
    is_last: bool
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunBegun:
    """A run begins, or goes on from where it was saved: what was told of later steps is void and comes again.

    ``step`` and ``epoch`` are those finished, ``judged_step`` the step of the last validation among them (0 before the
    first), ``elapsed_s`` the time they took. ``checkpoints`` are the files that lie on disk now.
    """

    step: int
    epoch: int
    judged_step: int
    elapsed_s: float
    checkpoints: tuple[CheckpointSaved, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckpointDue:
    """Where the run stands is about to be saved: what was told so far must be safe before, it is not told again."""


@dataclass(frozen=True, slots=True)
class PredictionTime:
    """Milliseconds an image took while predictions were made, on which device: decoding left out, all views in it."""

    ms_per_image: float
    device: str


@dataclass(frozen=True, eq=False)
class PredictionsReady:
    """Validation predictions by image id, with all scores, of the checkpoint saved just before (``file_name``)."""

    file_name: str
    split: str
    detections: dict[int, Detections]
    took: PredictionTime | None = None


Event = Metrics | Progress | Log | CheckpointSaved | RunBegun | CheckpointDue | PredictionsReady


def _ignore(event: Event) -> None:
    """Drop the event."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class RunContext:
    """How long work talks to whoever started it: ``emit`` events, ask ``should_stop`` at each step."""

    emit: Callable[[Event], None] = field(default=_ignore)
    should_stop: Callable[[], bool] = field(default=_never)
