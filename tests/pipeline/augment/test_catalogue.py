"""The list of augmentations: what is on offer, what is refused, and that reading it costs no torch."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from app.pipeline.augment.catalogue import CATALOGUE, Step
from app.pipeline.augment.presets import PRESETS
from app.pipeline.config import ConfigError, parse_config


def test_default_of_every_slider_is_accepted():
    for entry in CATALOGUE.values():
        for slider in entry.sliders:
            assert slider.min <= slider.default <= slider.max
        step = Step(name=entry.name, strength={slider.name: slider.default for slider in entry.sliders})
        assert step.strengths() == step.strength


def test_missing_strengths_take_their_defaults():
    assert Step(name="Rotate").strengths() == {"limit": 20}
    assert Step(name="Rotate", strength={"limit": 5}).strengths() == {"limit": 5}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "HorizontalFlop"}, "no augmentation 'HorizontalFlop'"),  # misspelt transform
        ({"name": "Rotate", "strength": {"limits": 5}}, "no strength 'limits' (known: limit)"),  # misspelt slider
        ({"name": "ToGray", "strength": {"x": 1}}, "no strength 'x' (known: none)"),  # has no sliders
        ({"name": "Rotate", "strength": {"limit": 181}}, "limit must lie in 0..180, got 181"),  # too strong
        ({"name": "Rotate", "strength": {"limit": float("nan")}}, "finite"),  # NaN compares with nothing
        ({"name": "Rotate", "probability": 1.5}, "less than or equal to 1"),
        ({"name": "Rotate", "p": 0.5}, "Extra inputs"),  # albumentations' own spelling
    ],
)
def test_wrong_step_is_refused_with_what_is_known(values, said):
    with pytest.raises(ValidationError) as caught:
        Step(**values)
    assert said in str(caught.value)


def test_config_names_the_wrong_step():
    with pytest.raises(ConfigError, match="augmentation: number 2: there is no augmentation 'Blurr'"):
        parse_config({"augmentation": [{"name": "ToGray"}, {"name": "Blurr"}]})


def test_presets_hold_the_published_chains():
    names = {name: [step.name for step in preset.steps] for name, preset in PRESETS.items()}
    assert names["none"] == []
    assert names["flips"] == ["HorizontalFlip"]
    assert names["gastroscopy"] == [
        *("HorizontalFlip", "CLAHE", "ToGray", "ChannelDropout", "ChannelShuffle", "RGBShift"),
        *("XYMasking", "CoarseDropout", "BBoxSafeRandomCrop", "RandomGravel", "RandomSnow"),
    ]
    assert names["gastroscopy_mixing"] == [*names["gastroscopy"], "MixUp", "Mosaic"]
    backbones = {step.name: step.probability for step in PRESETS["backbones"].steps}
    assert backbones == {
        "HorizontalFlip": 0.5,
        "VerticalFlip": 0.5,
        "Rotate": 0.3,
        "RandomBrightnessContrast": 0.2,
        "HueSaturationValue": 0.3,
        "OneOfBlurs": 0.2,
    }


def test_strong_steps_are_those_that_make_unreal_pictures():
    assert {name for name, entry in CATALOGUE.items() if entry.is_strong} == {
        *("MixUp", "Mosaic", "CopyPaste", "CoarseDropout", "XYMasking"),
        *("BBoxSafeRandomCrop", "RandomGravel", "RandomSnow"),
    }


def test_catalogue_and_presets_load_neither_torch_nor_albumentations():
    code = (
        "import sys, app.pipeline.augment.presets, app.pipeline.config;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'albumentations', 'cv2')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
