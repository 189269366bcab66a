"""Ready-made chains. Imports neither torch nor albumentations."""

from dataclasses import dataclass

from app.pipeline.augment.catalogue import Step


@dataclass(frozen=True, slots=True)
class Preset:
    """A named chain; ``help`` says when it fits."""

    name: str
    title: str
    help: str
    steps: tuple[Step, ...]


_GASTROSCOPY = (
    "HorizontalFlip",
    "CLAHE",
    "ToGray",
    "ChannelDropout",
    "ChannelShuffle",
    "RGBShift",
    "XYMasking",
    "CoarseDropout",
    "BBoxSafeRandomCrop",
    "RandomGravel",
    "RandomSnow",
)

_GASTROSCOPY_STEPS = tuple(
    Step(name=name, probability=0.5 if name == "HorizontalFlip" else 0.1) for name in _GASTROSCOPY
)

_PRESETS = (
    Preset("none", "None", "Images as they are.", ()),
    Preset(
        "flips",
        "Flips",
        "A safe start wherever mirrored objects are still the same objects.",
        (Step(name="HorizontalFlip", probability=0.5),),
    ),
    Preset(
        "gastroscopy",
        "Gastroscopy (strong)",
        "Many color, dropout and crop steps, each rarely: for small sets of pictures from one kind of camera.",
        _GASTROSCOPY_STEPS,
    ),
    Preset(
        "gastroscopy_mixing",
        "Gastroscopy with MixUp and Mosaic",
        "The same, and other images mixed in: MixUp at .1, Mosaic at .25.",
        (*_GASTROSCOPY_STEPS, Step(name="MixUp", probability=0.1), Step(name="Mosaic", probability=0.25)),
    ),
    Preset(
        "backbones",
        "Balanced",
        "Flips, a small turn, exposure, color and blur: for scenes without a fixed up.",
        (
            Step(name="HorizontalFlip", probability=0.5),
            Step(name="VerticalFlip", probability=0.5),
            Step(name="Rotate", probability=0.3, strength={"limit": 20}),
            Step(name="RandomBrightnessContrast", probability=0.2),
            Step(name="HueSaturationValue", probability=0.3),
            Step(name="OneOfBlurs", probability=0.2),
        ),
    ),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _PRESETS}
