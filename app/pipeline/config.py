"""Every option of a run, declared once: the form, the command line and the user guide are made from these fields.

The groups below are the sections of the form, in order. Unknown keys are refused: a misspelt option must never be
silently ignored. Imports no torch.
"""

import json
import reprlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.pipeline.augment.catalogue import Step

MODEL_NAMES = (
    "fasterrcnn_resnet18_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
)


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the option, what was found and what is accepted."""


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelOptions(_Group):
    """Model"""

    model: Literal[MODEL_NAMES] = Field(
        "fasterrcnn_resnet18_fpn",
        description="The detector. Start with the fewest parameters; larger ones need more data and time.",
    )
    pretrained: Literal["none", "backbone", "network", "file"] = Field(
        "none",
        description="Weights to start from: none, the ImageNet backbone, the whole COCO network, or a file of yours.",
    )
    weights_file: str = Field("", description="The .pth or .safetensors file to start from when pretrained is 'file'.")
    trainable_layers: int = Field(
        5, ge=0, le=6, description="How many backbone stages are trained, counted from the top; the rest stay frozen."
    )


class InputOptions(_Group):
    """Images"""

    image_size: int = Field(
        320, ge=64, le=2048, multiple_of=32, description="The longer side of an image after resizing, in pixels."
    )
    keep_empty_images: bool = Field(True, description="Train on images without objects too.")
    augmentation: tuple[Step, ...] = Field(
        (), description="The chain of augmentations, in order; the Augment page edits it."
    )


class ScheduleOptions(_Group):
    """Schedule"""

    epochs: int = Field(20, ge=1, le=10_000, description="How many times every training image is seen.")
    batch_size: int = Field(4, ge=1, le=256, description="Images per optimizer step.")
    optimizer: Literal["sgd", "adamw"] = Field("adamw", description="AdamW is forgiving; SGD is the classic recipe.")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="The peak learning rate, reached after the warmup.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; not used by AdamW.")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="Pull of the weights towards zero.")
    warmup_steps: int = Field(100, ge=0, le=100_000, description="Steps of linear warmup, at most a fifth of the run.")
    warmup_factor: float = Field(1e-3, gt=0, le=1, description="The first step's share of the peak learning rate.")
    final_learning_rate: float = Field(1e-6, ge=0, le=1, description="Floor that the cosine decay ends at.")
    clip_gradient_norm: float = Field(10.0, ge=0, description="Largest gradient norm; 0 turns clipping off.")
    evaluate_every: int = Field(
        1, ge=0, le=10_000, description="Epochs between validations; 0 lets them take a fifth of the time at most."
    )


class SamplingOptions(_Group):
    """Proposals"""

    rpn_batch_size: int = Field(256, ge=8, le=4096, description="Anchors sampled per image for the RPN's losses.")
    roi_batch_size: int = Field(512, ge=8, le=4096, description="Proposals sampled per image for the head's losses.")
    roi_positive_fraction: float = Field(
        0.25, gt=0, le=1, description="Largest share of sampled proposals that lie on objects."
    )
    proposals: int = Field(
        0,
        ge=0,
        le=20_000,
        description="Proposals per image that the head looks at when predicting; 0 takes three for each detection "
        "allowed, at least 300.",
    )
    nms_threshold: float = Field(0.5, gt=0, le=1, description="Predictions of a class overlapping more are merged.")
    max_detections: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Most detections per image; 0 sets it from the most crowded image, at least 100.",
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
    seed: int = Field(42, ge=0, le=2**31 - 1, description="One seed for weights, order and augmentation.")


class RunConfig(ModelOptions, InputOptions, ScheduleOptions, SamplingOptions, MachineOptions):
    """All options of a training run, flat: `--set epochs=5` on the command line, one control each in the form."""

    @model_validator(mode="after")
    def _options_fit_together(self) -> "RunConfig":
        if self.pretrained == "file" and not self.weights_file:
            raise ValueError("weights_file must name a file when pretrained is 'file'")
        if self.pretrained == "network" and self.model == "fasterrcnn_resnet18_fpn":
            raise ValueError("pretrained 'network' is not published for fasterrcnn_resnet18_fpn: choose 'backbone'")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError("final_learning_rate must not exceed learning_rate")
        return self


GROUPS: tuple[type[_Group], ...] = (ModelOptions, InputOptions, ScheduleOptions, SamplingOptions, MachineOptions)


def parse_config(values: dict[str, Any]) -> RunConfig:
    """Validate ``values`` (option name to value; missing ones take their defaults).

    Raises ConfigError naming every option that is unknown or out of range.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(item) for item in error.errors())) from error


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


def _explain(error: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in error["loc"]) or "configuration"
    if error["type"] == "extra_forbidden":
        known = ", ".join(RunConfig.model_fields)
        return f"unknown option {name!r} (known: {known})"
    message = error["msg"].removeprefix("Value error, ")
    return f"{name}: {message}, got {reprlib.repr(error['input'])}" if error["loc"] else message
