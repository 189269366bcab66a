"""The augmentations on offer: Albumentations' names, strengths and ranges. Imports neither torch nor albumentations."""

from pydantic import BaseModel, ConfigDict, Field


class Step(BaseModel):
    """One entry of the ordered augmentation chain."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(description="Name of the transform, as in the catalogue.")
    probability: float = Field(0.5, ge=0, le=1, description="How often it is applied.")
    strength: dict[str, float] = Field(default_factory=dict, description="Sliders by name; missing ones take defaults.")
    is_enabled: bool = Field(True, description="Off keeps the entry in the list without applying it.")
