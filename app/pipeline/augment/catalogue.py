"""The augmentations on offer: Albumentations' names, sliders and ranges. Imports neither torch nor albumentations."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["geometry", "color", "blur", "dropout", "mixing"]


@dataclass(frozen=True, slots=True)
class Slider:
    """One adjustable strength of a transform; whole-numbered when ``step`` is a whole number."""

    name: str
    label: str
    min: float
    max: float
    step: float
    default: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A transform the user can put into the chain; ``name`` is Albumentations' class name, or one of our own.

    ``is_strong``: it makes pictures unlike any real one, so a run may do it less and less (see ``curve``).
    """

    name: str
    title: str
    kind: Kind
    help: str
    sliders: tuple[Slider, ...] = ()
    is_strong: bool = False


_ENTRIES = (
    Entry("HorizontalFlip", "Flip left-right", "geometry", "Mirrors the image. Leave out if left and right differ."),
    Entry("VerticalFlip", "Flip upside down", "geometry", "For images without a fixed up: microscopes, aerial views."),
    Entry(
        "Rotate",
        "Rotate",
        "geometry",
        "Turns by a random angle. Boxes grow to enclose the turned ones, so keep the angle small.",
        (Slider("limit", "Largest angle (degrees)", 0, 180, 1, 20),),
    ),
    Entry(
        "BBoxSafeRandomCrop",
        "Crop around the boxes",
        "geometry",
        "Cuts at random around all boxes and enlarges back to full size; objects become bigger and stretched.",
        (Slider("erosion_rate", "May cut into the boxes", 0, 0.9, 0.05, 0),),
        is_strong=True,
    ),
    Entry(
        "RandomBrightnessContrast",
        "Brightness, contrast",
        "color",
        "Other exposures of the same scene.",
        (
            Slider("brightness", "Brightness", 0, 0.8, 0.05, 0.2),
            Slider("contrast", "Contrast", 0, 0.8, 0.05, 0.2),
        ),
    ),
    Entry(
        "HueSaturationValue",
        "Hue, saturation, value",
        "color",
        "Other lamps and cameras. Leave out if color tells the classes apart.",
        (
            Slider("hue", "Hue shift", 0, 90, 1, 20),
            Slider("saturation", "Saturation shift", 0, 150, 1, 30),
            Slider("value", "Value shift", 0, 150, 1, 20),
        ),
    ),
    Entry(
        "RGBShift",
        "Shift color channels",
        "color",
        "Adds a random amount to red, green and blue separately.",
        (Slider("shift", "Largest shift", 0, 100, 1, 20),),
    ),
    Entry(
        "CLAHE",
        "Local contrast (CLAHE)",
        "color",
        "Brings out detail in dark and bright parts.",
        (
            Slider("clip_limit", "Clip limit", 1, 16, 0.5, 4),
            Slider("tiles", "Tiles per side", 2, 16, 1, 8),
        ),
    ),
    Entry("ToGray", "To gray", "color", "Removes color, so that the detector learns shape."),
    Entry("ChannelShuffle", "Shuffle color channels", "color", "Swaps red, green and blue at random."),
    Entry(
        "ChannelDropout",
        "Drop color channels",
        "color",
        "Sets one or two of the color channels to black.",
        (Slider("channels", "Most channels dropped", 1, 2, 1, 1),),
    ),
    Entry(
        "RandomSnow",
        "Bleach (snow)",
        "color",
        "Bleaches the darker parts, like snow, glare or foam.",
        (
            Slider("snow_point", "Amount", 0.1, 1, 0.05, 0.3),
            Slider("brightness", "Brightness", 1, 5, 0.1, 2.5),
        ),
        is_strong=True,
    ),
    Entry(
        "RandomGravel",
        "Specks (gravel)",
        "color",
        "Scatters small specks in patches, like dirt or bubbles.",
        (Slider("patches", "Patches", 1, 20, 1, 2),),
        is_strong=True,
    ),
    Entry(
        "MotionBlur",
        "Motion blur",
        "blur",
        "A moving camera or object.",
        (Slider("kernel", "Largest kernel (pixels)", 3, 31, 2, 7),),
    ),
    Entry(
        "GaussianBlur",
        "Gaussian blur",
        "blur",
        "Out of focus.",
        (Slider("sigma", "Largest sigma (pixels)", 0.5, 8, 0.1, 3),),
    ),
    Entry(
        "OneOfBlurs",
        "Blur, one of two",
        "blur",
        "Motion or Gaussian blur, picked at random each time.",
        (
            Slider("kernel", "Motion kernel (pixels)", 3, 31, 2, 3),
            Slider("sigma", "Gaussian sigma (pixels)", 0.5, 8, 0.1, 1),
        ),
    ),
    Entry(
        "CoarseDropout",
        "Drop rectangles",
        "dropout",
        "Blacks out rectangles; boxes hidden almost entirely are lost.",
        (
            Slider("holes", "Most holes", 1, 20, 1, 2),
            Slider("size", "Largest hole (share of side)", 0.02, 0.6, 0.01, 0.2),
        ),
        is_strong=True,
    ),
    Entry(
        "XYMasking",
        "Mask stripes",
        "dropout",
        "Blacks out whole rows and columns; boxes hidden almost entirely are lost.",
        (
            Slider("masks", "Most stripes each way", 1, 8, 1, 2),
            Slider("size", "Widest stripe (share of side)", 0.01, 0.4, 0.01, 0.1),
        ),
        is_strong=True,
    ),
    Entry(
        "MixUp",
        "MixUp (blend two)",
        "mixing",
        "Lays another training image over this one, its weight drawn from a Beta distribution; both keep their boxes.",
        (
            Slider("alpha", "Alpha of Beta", 0.1, 10, 0.1, 2),
            Slider("beta", "Beta of Beta", 0.1, 10, 0.1, 2),
        ),
        is_strong=True,
    ),
    Entry(
        "Mosaic",
        "Mosaic (four in one)",
        "mixing",
        "Puts parts of this image and of three others around a center that moves; objects become smaller.",
        (Slider("center", "Center moves by (share of side)", 0, 0.4, 0.05, 0.25),),
        is_strong=True,
    ),
    Entry(
        "CopyPaste",
        "Copy-Paste objects",
        "mixing",
        "Pastes the boxes of some objects of another image where they hide least; what they hide is shrunk or lost.",
        (Slider("objects", "Most objects", 1, 20, 1, 3),),
        is_strong=True,
    ),
)

CATALOGUE: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}


class Step(BaseModel):
    """One entry of the ordered augmentation chain."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(description="Name of the transform, as in the catalogue.")
    probability: float = Field(0.5, ge=0, le=1, description="How often it is applied.")
    strength: dict[str, float] = Field(default_factory=dict, description="Sliders by name; missing ones take defaults.")
    is_enabled: bool = Field(True, description="Off keeps the entry in the list without applying it.")

    @model_validator(mode="after")
    def _is_in_catalogue(self) -> "Step":
        entry = CATALOGUE.get(self.name)
        if entry is None:
            raise ValueError(f"there is no augmentation {self.name!r} (known: {', '.join(CATALOGUE)})")
        sliders = {slider.name: slider for slider in entry.sliders}
        for name, value in self.strength.items():
            slider = sliders.get(name)
            if slider is None:
                known = ", ".join(sliders) or "none"
                raise ValueError(f"{self.name} has no strength {name!r} (known: {known})")
            if not slider.min <= value <= slider.max:
                raise ValueError(f"{self.name}: {name} must lie in {slider.min:g}..{slider.max:g}, got {value:g}")
        return self

    def strengths(self) -> dict[str, float]:
        """Every slider's value, defaults filled in."""
        return {slider.name: slider.default for slider in CATALOGUE[self.name].sliders} | self.strength
