"""Ready-made settings, and the ones suggested for a dataset and a machine. Imports no torch."""

from collections.abc import Iterable, Sequence
from typing import Any

from app.pipeline.config import RunConfig
from app.pipeline.models.catalogue import WEIGHTS, is_transformer
from app.pipeline.recipes import RECIPES, Preset

SMALL_OBJECT_PX = 16  # what one object in twenty may fall below after resizing
CPU_SIZES_PX = (224, 320)
GPU_SIZES_PX = (320, 640)
CPU_PIXELS = 600 * 4 * 224**2  # trained on by two cores in about twenty minutes
CPU_STEPS = (300, 1200)
GPU_STEPS = 6000
# AdamW on transformers: 1e-4 is what Swin's authors trained detectors with; at 1e-3 the loss ran to 121 here.
TRANSFORMER_RATE = 1e-4
LARGEST_TRANSFORMER_RATE = 3e-4


PRESETS = (
    Preset("suggested", "Suggested", "What suits this dataset and this machine."),
    Preset(
        "quick",
        "Quick look",
        "A third of the epochs on small images: to see whether the labels make sense.",
        {"epochs": 8, "image_size": 192, "roi_batch_size": 64},
    ),
    Preset(
        "thorough",
        "Thorough",
        "Three times as long, for the last points of accuracy.",
        {"epochs": 100, "roi_batch_size": 128},
    ),
    Preset(
        "classic",
        "Classic SGD",
        "The published recipe: SGD with momentum from a pretrained backbone, 512 regions an image.",
        {
            "model": "fasterrcnn_resnet50_fpn",
            "pretrained": "backbone",
            "trainable_layers": 3,
            "optimizer": "sgd",
            "learning_rate": 0.005,
            "roi_batch_size": 512,
            "image_size": 640,
        },
    ),
    Preset(
        "crowded",
        "Small and crowded",
        "Large images and many sampled regions, for hundreds of small objects an image.",
        {"image_size": 640, "batch_size": 2, "roi_batch_size": 256, "roi_positive_fraction": 0.5},
    ),
    *RECIPES,
)


def explain_needs(values: dict[str, Any], cached: Iterable[tuple[str, str]]) -> str:
    """What a preset with these values downloads at its start, and how to do without; "" when it needs nothing."""
    start = (values.get("model", ""), values.get("pretrained", "none"))
    if start not in WEIGHTS or start in set(cached):
        return ""
    return (
        f"Its weights ({WEIGHTS[start].file_name}) are not on this machine: they are downloaded at the start, unless "
        "pretrained is 'none'."
    )


def suggest(
    *,
    num_train_images: int,
    object_shares: Sequence[float] = (),
    longest_side_px: int = 640,
    has_gpu: bool = False,
    num_cores: int = 2,
    cached_weights: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Option values that suit a dataset and a machine; the options left out keep their defaults.

    ``object_shares``: for each labelled object, the square root of its area over the longer side of its image.
    ``longest_side_px``: the longer side of a typical image. ``cached_weights``: (model, part) pairs on this machine;
    weights that would have to be downloaded are never suggested.
    """
    model, pretrained = _choose_model(has_gpu, frozenset(cached_weights))
    batch_size = 8 if has_gpu else 4
    image_size = _choose_image_size(object_shares, longest_side_px, has_gpu, num_cores)
    steps = GPU_STEPS if has_gpu else _choose_cpu_steps(batch_size * image_size**2, num_cores)
    steps //= 1 if pretrained == "none" else 2
    return {
        "model": model,
        "pretrained": pretrained,
        "image_size": image_size,
        "batch_size": batch_size,
        "epochs": min(100, max(8, round(steps / max(1, -(-num_train_images // batch_size))))),
        "learning_rate": 1e-3 if pretrained == "none" else 3e-4,
        "roi_batch_size": 256 if has_gpu else 64,
    }


def suggest_for_model(model: str) -> dict[str, Any]:
    """Option values that a chosen model wants in place of those of :func:`suggest`."""
    return {"learning_rate": TRANSFORMER_RATE} if is_transformer(model) else {}


def explain_doubts(config: RunConfig) -> dict[str, str]:
    """Option name to why its value may end badly, of values that are accepted all the same."""
    if config.optimizer != "adamw" or not is_transformer(config.model):
        return {}
    option = "phases" if config.phases else "learning_rate"
    rate = max((phase.learning_rate for phase in config.phases), default=config.learning_rate)
    if rate <= LARGEST_TRANSFORMER_RATE:
        return {}
    return {
        option: f"{rate:g} is high for a transformer: its loss may run away. {TRANSFORMER_RATE:g} is usual with AdamW, "
        f"up to {LARGEST_TRANSFORMER_RATE:g} is sound."
    }


def _choose_model(has_gpu: bool, cached: frozenset[tuple[str, str]]) -> tuple[str, str]:
    """The model and what it starts from: only weights that are already here."""
    model = "fasterrcnn_resnet50_fpn" if has_gpu else "fasterrcnn_resnet18_fpn"
    for pretrained in ("network", "backbone"):
        if (model, pretrained) in cached:
            return model, pretrained
    return "fasterrcnn_resnet18_fpn", "none"


def _choose_image_size(shares: Sequence[float], longest_side_px: int, has_gpu: bool, num_cores: int) -> int:
    """Large enough that nearly all objects stay visible, within what the machine can do, never above the images."""
    smallest, largest = GPU_SIZES_PX if has_gpu else CPU_SIZES_PX
    if not has_gpu and num_cores >= 8:
        largest = 512
    ordered = sorted(shares)
    wanted = SMALL_OBJECT_PX / max(1e-6, ordered[len(ordered) // 20]) if ordered else smallest
    size = min(max(smallest, wanted), largest, max(longest_side_px, 64))
    return max(64, int(size + 31) // 32 * 32)


def _choose_cpu_steps(pixels_per_step: int, num_cores: int) -> int:
    """Fewer steps of larger images, more of smaller ones: about the same time for every dataset."""
    fewest, most = CPU_STEPS
    return min(most, max(fewest, round(CPU_PIXELS * num_cores / 2 / pixels_per_step)))


def suggest_augmentation(class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The chain a project starts with: flips, unless the classes read as signs, which a mirror turns into others.

    Digits, letters, left and right are such signs.
    """
    words = [name.strip().lower() for name in class_names]
    if any(len(word) == 1 or "left" in word or "right" in word for word in words):
        return []
    return [{"name": "HorizontalFlip", "probability": 0.5}]
