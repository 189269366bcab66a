"""Frozen records that cross floors. No behaviour beyond what follows from the fields; no imports of other floors."""

from dataclasses import dataclass, field
from typing import Any

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class Project:
    """A project as the Projects page lists it; ``slug`` is its folder under the workspace."""

    slug: str
    name: str
    created_at: float
    opened_at: float
    num_images: int
    num_annotations: int
    num_categories: int
    num_runs: int
    size_bytes: int
    problem: str = ""  # why it cannot be opened; empty for a healthy project


@dataclass(frozen=True, slots=True)
class Category:
    """An object class. ``id`` is the COCO category id of the import and goes out again on export."""

    id: int
    name: str
    supercategory: str
    position: int  # order in lists, number keys and the colour palette; 0-based and contiguous
    num_annotations: int = 0


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a project; ``width`` and ``height`` are those of the upright picture, in pixels."""

    id: int
    file_name: str  # the label it had in the export; never used as a path
    sha256: str
    extension: str  # of the stored bytes, chosen by sniffing: jpg, png, webp, bmp, tiff
    width: int
    height: int
    split: str
    source_key: str  # images cut or augmented from one source share it; "" where the source is not known
    coco_id: int
    rotation: int  # degrees clockwise, applied after EXIF: 0, 90, 180, 270
    problem: str  # "" when usable; otherwise why it is quarantined
    is_empty_on_purpose: bool
    revision: int  # grows by one at each save of its boxes
    num_annotations: int = 0


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image about to be added; ``extra`` are further keys of its COCO entry, given out again on export."""

    file_name: str
    sha256: str
    extension: str
    width: int
    height: int
    split: str
    source_key: str
    coco_id: int
    needs_rendering: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    rotation: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """Which images to list; None and "" ask for nothing. ``name`` is part of the file name, in any case."""

    split: str | None = None
    category_id: int | None = None
    has_problem: bool | None = None
    name: str = ""
    min_boxes: int | None = None
    max_boxes: int | None = None


@dataclass(frozen=True, slots=True)
class Annotation:
    """A labelled box. ``bbox`` is xyxy in float pixels of the upright original image."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    is_crowd: bool = False
    segmentation: Any = None  # COCO polygons or RLE as imported; dropped when the box is edited
    coco_id: int | None = None
    source_bbox_xywh: tuple[float, float, float, float] | None = None  # as imported; exported while it equals bbox


def state_word(state: str) -> str:
    """The state of a job or a run as people read it, the same on the screen and on the command line."""
    return "stopped" if state == "cancelled" else state


def explain_end(state: str, error: str) -> str:
    """How work that is not done ended, to go on with behind what it was: "was stopped", "ended as failed: no room"."""
    return f"ended as {state_word(state)}: {error.rstrip('.')}" if error else f"was {state_word(state)}"


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of long work in the queue of a project."""

    id: int
    kind: str  # import, train, predict, ensemble, ensemble_lab, sweep, export
    state: str  # queued, running, stopping, paused, done, failed, cancelled, interrupted
    attempt: int
    payload: dict[str, Any]
    progress: dict[str, Any]  # done, total, message, eta_s
    result: dict[str, Any]
    error: str
    pid: int | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    heartbeat_at: float | None
    stop_as: str  # the state it was asked to end in: cancelled, paused, or "" while nobody asked
    rank: float  # the lower, the sooner its turn comes; the time of queueing unless it was moved
    num_deaths: int  # attempts whose process died since it was started or saved a newer state
    death_step: int | None  # where the last of them was, when a signal ended it
    gpu: str  # what CUDA_VISIBLE_DEVICES is for it; "" leaves that alone
    hung: str  # what to say when it gives no sign of life; "" while it does

    @property
    def is_finished(self) -> bool:
        """Whether nothing more happens unless somebody asks for it."""
        return self.state in ("paused", "done", "failed", "cancelled", "interrupted")

    @property
    def is_stop_requested(self) -> bool:
        return self.stop_as != ""


@dataclass(frozen=True, slots=True)
class Run:
    """A training run; its state is that of its newest job."""

    id: int
    job_id: int
    name: str
    state: str
    config: dict[str, Any]
    created_at: float
    epoch: int  # finished epochs
    error: str
    best: dict[str, float]  # map50, f1, score, epoch of the best kept checkpoint; empty before the first
    progress: dict[str, Any] = field(default_factory=dict)
    attempt: int = 0
    pid: int | None = None
    hung: str = ""  # see Job


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One number of a run. ``id`` grows in the order of writing: ask for what is newer than the last one seen."""

    id: int
    run_id: int
    step: int
    epoch: int
    split: str
    name: str
    value: float
    elapsed_s: float  # since the start of the run, by the monotonic clock


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Saved weights of a run; ``file_name`` lies in the run's folder."""

    id: int
    run_id: int
    epoch: int
    step: int
    file_name: str
    sha256: str
    map50: float | None
    f1: float | None
    score: float | None  # 0.5 mAP50 + 0.5 F1
    is_last: bool

    @property
    def soup(self) -> str:
        """Which soup of other checkpoints it is (uniform, greedy); "" for one that was trained."""
        prefix, _, rest = self.file_name.partition("-")
        return rest.partition("-")[0] if prefix == "soup" else ""


@dataclass(frozen=True, slots=True)
class PredictionSet:
    """Stored predictions of a checkpoint or an ensemble on one split, with all their scores."""

    id: int
    kind: str  # checkpoint, ensemble
    run_id: int
    checkpoint_id: int | None
    split: str
    name: str
    members: tuple[int, ...]  # prediction sets an ensemble was fused from
    options: dict[str, Any]
    snapshot_sha256: str  # of the ground truth they were made for
    created_at: float
    ms_per_image: float | None  # while they were made, of an ensemble in fusing alone; None where nobody measured it
    device: str  # that they were made on, "" where nobody measured

    @property
    def test_time_augmentation(self) -> str:
        """The views a checkpoint predicted in; predictions of a run's own validations are "off"."""
        return self.options.get("test_time_augmentation", "off")


@dataclass(frozen=True, slots=True)
class IgnoredSuspect:
    """A disagreement between a model and the labels that somebody looked at and left as it is."""

    id: int
    image_id: int
    kind: str  # missing_box, wrong_class, loose_box
    predicted_id: int  # class of the predicted box
    labeled_id: int | None  # class of the labeled box, None for a missing one
    bbox: tuple[float, float, float, float]  # predicted; xyxy pixels of the upright original image
    score: float
    created_at: float
