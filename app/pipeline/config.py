"""Every option of a run, declared once: the form, the command line and the user guide are made from these fields.

The groups below are the sections of the form, in order. Unknown keys are refused: a misspelt option must never be
silently ignored. Imports no torch.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from app.pipeline.augment.catalogue import Step
from app.pipeline.expectation import explain_error
from app.pipeline.models.catalogue import model_conflicts

BOX_LOSSES = ("smooth_l1", "l1", "iou", "giou", "diou", "ciou")
TestTimeAugmentation = Literal["off", "flip", "flip_scales"]
SELECTION_METRICS = ("map50_f1", "map", "map50", "map75", "f1")


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the options, what was found and what is accepted.

    ``problems``: option name to the reason, at the option to change; "" where it is of none.
    """

    def __init__(self, problems: dict[str, str] | str) -> None:
        self.problems = {"": problems} if isinstance(problems, str) else problems
        super().__init__("; ".join(f"{name}: {reason}" if name else reason for name, reason in self.problems.items()))


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _used_when(**others: Any) -> dict[str, Any]:
    """Declare that an option has an effect only beside others: a list of their values, "set" or "unset" (empty, 0)."""
    return {"used_when": others}


class Phase(_Group):
    """A stage of training with its own parts, length and rate."""

    train: Literal["rpn", "heads", "all"] = Field(
        description="Which parts learn: the feature pyramid and RPN, the box head, or everything that is trainable."
    )
    epochs: int = Field(ge=1, le=10_000, description="Length of the stage.")
    learning_rate: float = Field(gt=0, le=10, description="Peak learning rate of the stage.")


class ModelOptions(_Group):
    """Model"""

    model: str = Field(
        "fasterrcnn_resnet18_fpn",
        description="The detector. Start with the fewest parameters; larger ones need more data and time. Any backbone "
        "of timm that gives feature pyramids can be named too, as timm/NAME.",
    )
    pretrained: Literal["none", "backbone", "network", "file"] = Field(
        "none",
        description="Weights to start from: none, the ImageNet backbone, the whole COCO network, or a file of yours.",
    )
    weights_file: str = Field(
        "",
        description="What to start from when pretrained is 'file': a .pth or .safetensors file, or run:ID for the best "
        "checkpoint of an earlier run of the project.",
        json_schema_extra=_used_when(pretrained=["file"]),
    )
    trainable_layers: int = Field(
        5,
        ge=0,
        le=6,
        description="How many backbone stages are trained, counted from the top; the rest keep their pretrained "
        "weights. Backbones have five, MobileNet six.",
        json_schema_extra=_used_when(pretrained=["backbone", "network", "file"]),
    )
    norm: Literal["auto", "frozen", "batch", "group"] = Field(
        "auto",
        description="Norm layers of the backbone: frozen batch norm keeps pretrained statistics, batch and group norm "
        "learn from scratch. Auto takes frozen with pretrained weights and batch without.",
    )
    channels: Literal[3, 1] = Field(3, description="Channels the network sees: 3 for color, 1 for gray images.")
    gray_stem: Literal["mean", "repeat", "random"] = Field(
        "mean",
        description="How the first convolution of a 1-channel network starts: the mean of the color weights, their "
        "sum (as if gray were repeated into three channels), or at random.",
        json_schema_extra=_used_when(channels=[1]),
    )


class InputOptions(_Group):
    """Images"""

    image_size: int = Field(
        320, ge=64, le=2048, multiple_of=32, description="The longer side of an image after resizing, in pixels."
    )
    resize: Literal["longest", "letterbox", "stretch", "as_is"] = Field(
        "longest",
        description="Longest brings the longer side to the image size; letterbox pads that to a square; stretch makes "
        "both sides the image size; as is leaves the image alone.",
    )
    progressive_sizes: tuple[int, ...] = Field(
        (),
        max_length=8,
        description="Image sizes to train with one after the other, each for an equal part of the epochs; the last "
        "must be the image size. Empty trains at one size.",
        json_schema_extra=_used_when(resize=["longest", "letterbox", "stretch"]),
    )
    window_center: float = Field(
        0.0,
        ge=-65535,
        le=65535,
        description="Middle of the gray values shown, for 16-bit and gray images.",
        json_schema_extra=_used_when(window_width="set"),
    )
    window_width: float = Field(
        0.0, ge=0, le=131070, description="Range of gray values shown, black to white; 0 takes the whole range."
    )


class AugmentationOptions(_Group):
    """Augmentation"""

    augmentation: tuple[Step, ...] = Field(
        (), description="The chain of augmentations, in order; the Augment page edits it."
    )
    augmentation_curve: Literal["constant", "linear", "cosine"] = Field(
        "constant",
        description="How the probability of the strong ones (MixUp, Mosaic, CopyPaste, dropouts, crops) goes over the "
        "run: constant, or falling to zero.",
        json_schema_extra=_used_when(augmentation="set"),
    )
    augmentation_off_epochs: int = Field(
        0,
        ge=0,
        le=10_000,
        description="In this many last epochs the strong augmentations are off.",
        json_schema_extra=_used_when(augmentation="set"),
    )


class SamplingOptions(_Group):
    """Sampling"""

    keep_empty_images: bool = Field(True, description="Train on images without objects too.")
    max_empty_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Largest share of an epoch that images without objects may have.",
        json_schema_extra=_used_when(keep_empty_images=[True]),
    )
    sampling: Literal["uniform", "inverse_frequency", "repeat_factor"] = Field(
        "uniform",
        description="How images are drawn: each once an epoch; in proportion to the mean inverse frequency of their "
        "classes; or each once and those of rare classes again (repeat-factor sampling as in LVIS).",
    )
    repeat_threshold: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Repeat-factor sampling repeats classes seen in a smaller share of the images.",
        json_schema_extra=_used_when(sampling=["repeat_factor"]),
    )


class AnchorOptions(_Group):
    """Anchors"""

    anchors: Literal["stock", "custom", "kmeans"] = Field(
        "stock",
        description="Anchor shapes: torchvision's, sizes and ratios of your own, or KMeans on this data's boxes after "
        "resizing.",
    )
    anchor_sizes: tuple[float, ...] = Field(
        (32.0, 64.0, 128.0, 256.0, 512.0),
        min_length=1,
        max_length=16,
        description="Sizes of custom anchors (square root of the area, in pixels after resizing): one for each level, "
        "the finest first; another number of them is used on every level.",
        json_schema_extra=_used_when(anchors=["custom"]),
    )
    anchor_ratios: tuple[float, ...] = Field(
        (0.5, 1.0, 2.0),
        min_length=1,
        max_length=9,
        description="Ratios of height to width of custom anchors.",
        json_schema_extra=_used_when(anchors=["custom"]),
    )
    num_anchor_shapes: int = Field(
        9,
        ge=1,
        le=45,
        description="How many shapes KMeans finds for all levels together.",
        json_schema_extra=_used_when(anchors=["kmeans"]),
    )
    anchor_shapes: tuple[tuple[float, float], ...] = Field(
        (),
        max_length=45,
        description="Width and height of each KMeans shape. A run fills them in at its start; given, they are used.",
        json_schema_extra={"readOnly": True, **_used_when(anchors=["kmeans"])},
    )


class HeadOptions(_Group):
    """Proposals and heads"""

    rpn_batch_size: int = Field(256, ge=8, le=4096, description="Anchors sampled per image for the RPN's losses.")
    rpn_positive_fraction: float = Field(
        0.5, gt=0, le=1, description="Largest share of sampled anchors that lie on objects."
    )
    rpn_nms_threshold: float = Field(0.7, gt=0, le=1, description="Proposals overlapping more are merged.")
    rpn_box_loss: Literal[BOX_LOSSES] = Field("smooth_l1", description="Loss of the RPN's boxes.")
    roi_batch_size: int = Field(512, ge=8, le=4096, description="Proposals sampled per image for the head's losses.")
    roi_positive_fraction: float = Field(
        0.25, gt=0, le=1, description="Largest share of sampled proposals that lie on objects."
    )
    box_loss: Literal[BOX_LOSSES] = Field("smooth_l1", description="Loss of the head's boxes.")
    class_loss: Literal["cross_entropy", "focal"] = Field(
        "cross_entropy", description="Loss of the head's classes; focal looks most at what is hard."
    )
    focal_gamma: float = Field(
        2.0,
        ge=0,
        le=10,
        description="How much focal loss turns away from what is easy.",
        json_schema_extra=_used_when(class_loss=["focal"]),
    )
    class_weights: Literal["none", "inverse_frequency"] = Field(
        "none", description="Weights of the classes in the head's loss: equal, or more for rare ones."
    )
    pooler_size: Literal[7, 14, 28] = Field(
        7, description="Bins per side that RoIAlign pools a region into; more see finer detail and cost memory."
    )
    proposals: int = Field(
        0,
        ge=0,
        le=20_000,
        description="Proposals per image that the head looks at when predicting; 0 takes three for each detection "
        "allowed, at least 300.",
    )
    nms_threshold: float = Field(0.5, gt=0, le=1, description="Predictions of a class overlapping more are merged.")
    score_threshold: float = Field(
        0.0, ge=0, lt=1, description="Predictions scored lower are dropped; true average precision needs 0."
    )
    max_detections: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Most detections per image; 0 sets it from the most crowded image, at least 100.",
    )


class ScheduleOptions(_Group):
    """Schedule"""

    epochs: int = Field(20, ge=1, le=10_000, description="How many times every training image is seen.")
    batch_size: int = Field(4, ge=1, le=256, description="Images per batch.")
    accumulate_batches: int = Field(
        1, ge=1, le=256, description="Batches whose gradients are added up for one optimizer step."
    )
    optimizer: Literal["sgd", "adamw"] = Field("adamw", description="AdamW is forgiving; SGD is the classic recipe.")
    learning_rate: float = Field(
        1e-3,
        gt=0,
        le=10,
        description="The peak learning rate, reached after the warmup.",
        json_schema_extra=_used_when(phases="unset"),
    )
    momentum: float = Field(
        0.9, ge=0, lt=1, description="Momentum of SGD.", json_schema_extra=_used_when(optimizer=["sgd"])
    )
    weight_decay: float = Field(1e-4, ge=0, le=1, description="Pull of the weights towards zero.")
    schedule: Literal["cosine", "onecycle", "multistep", "polynomial", "constant"] = Field(
        "cosine",
        description="How the learning rate goes after the warmup; OneCycle rises over three tenths of it, then falls.",
    )
    milestones: tuple[float, ...] = Field(
        (0.7, 0.9),
        max_length=16,
        description="Where the multi-step schedule drops the rate, as shares of the run, rising.",
        json_schema_extra=_used_when(schedule=["multistep"]),
    )
    decay_factor: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="What the multi-step schedule multiplies the rate by.",
        json_schema_extra=_used_when(schedule=["multistep"]),
    )
    polynomial_power: float = Field(
        0.9,
        gt=0,
        le=10,
        description="Exponent of the polynomial schedule.",
        json_schema_extra=_used_when(schedule=["polynomial"]),
    )
    warmup_steps: int = Field(
        100,
        ge=0,
        le=100_000,
        description="Optimizer steps of linear warmup, at most a fifth of the run.",
        json_schema_extra=_used_when(warmup_share="unset"),
    )
    warmup_share: float = Field(
        0.0, ge=0, le=0.5, description="Warmup as a share of the run's steps (1/20 is 0.05); 0 takes warmup_steps."
    )
    warmup_factor: float = Field(
        1e-3, gt=0, le=1, description="The first step's share of the rate that the warmup ends at."
    )
    final_learning_rate: float = Field(
        1e-6,
        ge=0,
        le=1,
        description="Floor that the schedule ends at.",
        json_schema_extra=_used_when(schedule=["cosine", "onecycle", "polynomial"]),
    )
    clip_gradient_norm: float = Field(
        10.0, ge=0, description="Largest gradient norm, in every step; 0 turns clipping off."
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of an exponential moving average of the weights, which is then judged and kept; 0 is off.",
    )
    phases: tuple[Phase, ...] = Field(
        (),
        max_length=8,
        description="Stages of training one after the other; their epochs must add up to the run's. Empty trains "
        "everything throughout.",
    )


class JudgementOptions(_Group):
    """Judgement"""

    evaluate_every: int = Field(
        1, ge=0, le=10_000, description="Epochs between validations; 0 lets them take a fifth of the time at most."
    )
    selection_metric: Literal[SELECTION_METRICS] = Field(
        "map50_f1", description="What makes a checkpoint better: map50_f1 is the mean of mAP50 and F1."
    )
    patience: int = Field(
        0, ge=0, le=10_000, description="Stop after this many validations without a better one; 0 never stops early."
    )
    test_time_augmentation: TestTimeAugmentation = Field(
        "off",
        description="Predict each image mirrored too, and at 3/4 and 5/4 of its size, and merge what is found: twice "
        "or six times the work, wherever checkpoints are judged or used. Not in the validations during training.",
    )


class MachineOptions(_Group):
    """Machine"""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where to train; auto takes a GPU.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Arithmetic of the forward pass; auto takes bfloat16 where it is fast."
    )
    num_workers: int = Field(
        0, ge=0, le=64, description="Threads that decode and augment images; 0 chooses from the processor."
    )
    processes: int = Field(
        1,
        ge=0,
        le=256,
        description="Processes that share the batches of each step, one per GPU; 0 takes as many as there are GPUs. "
        "accumulate_batches must be a multiple of it.",
    )
    seed: int = Field(42, ge=0, le=2**31 - 1, description="One seed for weights, order and augmentation.")


class TroubleOptions(_Group):
    """Trouble"""

    halve_batch_when_out_of_memory: bool = Field(
        True,
        description="Out of memory in the first epoch: send half as many images through the network at a time, up to "
        "three times. The images of an optimizer step stay the same. In a validation, of whatever epoch: repeat it "
        "with half as many at a time.",
    )
    halve_rate_when_not_finite: bool = Field(
        True,
        description="A loss or gradient that is not finite: go back to the last good checkpoint and on from there with "
        "half the learning rate, up to two times.",
    )
    fewer_workers_when_reading_fails: bool = Field(
        True,
        description="Images cannot be read or prepared for want of memory, files or threads: go on with fewer threads, "
        "in the end with the training's own.",
    )
    pause_when_disk_is_full: bool = Field(
        True, description="A full disk pauses the run, to go on when there is room, instead of ending it as failed."
    )
    min_images_per_s: float = Field(
        0.0,
        ge=0,
        le=1e6,
        description="End the run after its first 50 steps if they took fewer images a second; 0 takes any speed.",
    )
    hint_when_slow: bool = Field(
        True, description="Say in the log when the run has been less than half as fast as usual for a minute."
    )
    flag_when_hung: bool = Field(
        True,
        description="Say on the page and in the log when the run gives no sign of life for two minutes, or for ten "
        "times as long as its steps take.",
    )


class RunConfig(
    ModelOptions,
    InputOptions,
    AugmentationOptions,
    SamplingOptions,
    AnchorOptions,
    HeadOptions,
    ScheduleOptions,
    JudgementOptions,
    MachineOptions,
    TroubleOptions,
):
    """All options of a training run, flat: `--set epochs=5` on the command line, one control each in the form."""

    @model_validator(mode="after")
    def _options_fit_together(self) -> "RunConfig":
        problems: dict[str, str] = {}
        for option, reason in _conflicts(self):
            problems.setdefault(option, reason)
        if problems:
            raise PydanticCustomError(
                _CONFLICT, "{message}", {"message": str(ConfigError(problems)), "found": problems}
            )
        return self


GROUPS: tuple[type[_Group], ...] = RunConfig.__bases__
_CONFLICT = "options_conflict"


def _conflicts(config: RunConfig) -> Iterator[tuple[str, str]]:
    """(option to change, why it cannot work together with others), if so."""
    yield from model_conflicts(config.model, config.pretrained, config.norm)
    if config.pretrained == "file" and not config.weights_file:
        yield "weights_file", "must name a file when pretrained is 'file'"
    if config.norm == "frozen" and config.pretrained == "none":
        yield "norm", "'frozen' needs pretrained weights: without them its statistics would stay as they start"
    if config.norm == "group" and config.pretrained in ("backbone", "network"):
        yield "norm", "'group' starts from scratch, the published weights are of batch norm: choose pretrained 'none'"
    yield from _size_conflicts(config)
    yield from _anchor_conflicts(config)
    yield from _schedule_conflicts(config)
    if config.precision == "float16" and config.device == "cpu":
        yield "precision", "'float16' needs a GPU, and device is 'cpu'"


def _size_conflicts(config: RunConfig) -> Iterator[tuple[str, str]]:
    sizes = config.progressive_sizes
    if not sizes:
        return
    if config.resize == "as_is":
        yield "progressive_sizes", "cannot be combined with resize 'as_is'"
    if sizes[-1] != config.image_size:
        yield "progressive_sizes", f"must end with image_size: the last is {sizes[-1]}, image_size {config.image_size}"
    if any(size % 32 or not 64 <= size <= 2048 for size in sizes):
        yield "progressive_sizes", f"must be multiples of 32 from 64 to 2048, got {', '.join(map(str, sizes))}"
    if len(sizes) > config.epochs:
        yield "progressive_sizes", f"must not be more than epochs: {len(sizes)} sizes, {config.epochs} epochs"


def _anchor_conflicts(config: RunConfig) -> Iterator[tuple[str, str]]:
    for name, values in (("anchor_sizes", config.anchor_sizes), ("anchor_ratios", config.anchor_ratios)):
        if min(values) <= 0:
            yield name, f"must be above 0, got {min(values):g}"
    if config.anchor_shapes and config.anchors != "kmeans":
        yield "anchor_shapes", "are of anchors 'kmeans': leave them out, or choose it"
    if any(min(shape) <= 0 for shape in config.anchor_shapes):
        yield "anchor_shapes", "must be above 0"


def _schedule_conflicts(config: RunConfig) -> Iterator[tuple[str, str]]:
    if config.phases and sum(phase.epochs for phase in config.phases) != config.epochs:
        epochs = [phase.epochs for phase in config.phases]
        yield (
            "phases",
            f"the epochs of phases must add up to epochs: {' + '.join(map(str, epochs))} is {sum(epochs)}, "
            f"epochs is {config.epochs}; change epochs, or phases, or train without phases ([])",
        )
    if list(config.milestones) != sorted(config.milestones) or any(not 0 < at < 1 for at in config.milestones):
        yield "milestones", "must be rising shares of the run between 0 and 1"
    lowest = min([config.learning_rate, *(phase.learning_rate for phase in config.phases)])
    if is_used(config, "final_learning_rate") and config.final_learning_rate > lowest:
        yield (
            "final_learning_rate",
            f"must not exceed learning_rate: {config.final_learning_rate:g} is above {lowest:g}",
        )
    if config.processes > 1 and config.accumulate_batches % config.processes:
        yield (
            "accumulate_batches",
            f"must be a multiple of processes, which share the batches of a step: got {config.accumulate_batches} "
            f"for {config.processes} processes",
        )


def used_when(name: str) -> dict[str, Any]:
    """Beside which values of other options an option has an effect: a list, "set" or "unset"; {} is always."""
    extra = RunConfig.model_fields[name].json_schema_extra
    return extra.get("used_when", {}) if isinstance(extra, dict) else {}


def is_used(config: RunConfig, name: str) -> bool:
    """Whether an option has an effect beside the others of ``config``."""
    for other, wanted in used_when(name).items():
        value = getattr(config, other)
        if (value not in wanted) if isinstance(wanted, list) else (bool(value) != (wanted == "set")):
            return False
    return True


def explain_use(name: str) -> str:
    """When an option has an effect, in words; "" when always."""
    words = []
    for other, wanted in used_when(name).items():
        if isinstance(wanted, list):
            words.append(f"{other} is {' or '.join(json.dumps(value).strip(chr(34)) for value in wanted)}")
        else:
            words.append(f"{other} is {wanted}")
    return f"Used when {' and '.join(words)}." if words else ""


def idle_options(config: RunConfig) -> list[str]:
    """Options that were changed from their defaults but have no effect beside the others."""
    fields = RunConfig.model_fields.items()
    return [
        name for name, field in fields if getattr(config, name) != field.get_default() and not is_used(config, name)
    ]


def parse_config(values: dict[str, Any]) -> RunConfig:
    """Validate ``values`` (option name to value; missing ones take their defaults).

    Raises ConfigError naming every option that is unknown or out of range.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_problems_of(error)) from error


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """``["epochs=5", "model=..."]`` to ``{"epochs": 5, "model": "..."}``; values are JSON if they parse, else text."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not name.strip():
            raise ConfigError(f"an option must be written key=value, got {assignment!r}")
        try:
            values[name.strip()] = json.loads(text)
        except (ValueError, RecursionError):
            values[name.strip()] = text.strip()
    return values


def load_config(path: Path) -> RunConfig:
    """Read a run's ``config.json``; raises ConfigError."""
    return parse_config(json.loads(path.read_text(encoding="utf-8")))


def _problems_of(error: ValidationError) -> dict[str, str]:
    """Option name to what must hold and what was found there; the first reason for each option."""
    problems: dict[str, str] = {}
    for item in error.errors():
        if item["type"] == _CONFLICT:
            return item["ctx"]["found"]
        name, *inside = (str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden" and not inside:
            reason = f"unknown option (known: {', '.join(name for group in GROUPS for name in group.model_fields)})"
        else:
            words = [f"number {int(part) + 1}:" if part.isdecimal() else f"{part}:" for part in inside]
            reason = " ".join([*words, explain_error(RunConfig, item)])
        problems.setdefault(name, reason)
    return problems
