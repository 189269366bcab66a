"""Settings on offer: valid, fit for the data, and without surprises (downloads, mirrored digits)."""

import subprocess
import sys

import pytest

from app.pipeline.config import RunConfig, parse_config
from app.pipeline.presets import PRESETS, suggest, suggest_augmentation

LAPTOP = {"num_train_images": 100, "object_shares": [0.2] * 100}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
@pytest.mark.parametrize("has_gpu", [False, True])
def test_every_preset_over_the_suggestion_is_a_valid_run(preset, has_gpu):
    config = parse_config({**suggest(**LAPTOP, has_gpu=has_gpu), **preset.values})
    assert isinstance(config, RunConfig)


def test_preset_names_are_distinct():
    assert len({preset.name for preset in PRESETS}) == len(PRESETS)


def test_weights_that_would_be_downloaded_are_never_suggested():
    assert suggest(**LAPTOP)["pretrained"] == "none"
    assert suggest(**LAPTOP, has_gpu=True)["pretrained"] == "none"
    cached = [("fasterrcnn_resnet18_fpn", "backbone")]
    assert suggest(**LAPTOP, cached_weights=cached)["pretrained"] == "backbone"


@pytest.mark.parametrize(
    ("names", "is_flipped"),
    [(["cat", "dog"], True), ([str(digit) for digit in range(10)], False), (["left hand", "right hand"], False)],
    ids=["objects", "digits", "sides"],
)
def test_images_are_flipped_unless_a_mirror_changes_the_class(names, is_flipped):
    steps = suggest_augmentation(names)
    assert [step["name"] for step in steps] == (["HorizontalFlip"] if is_flipped else [])


@pytest.mark.parametrize(
    ("share", "longest", "expected"),
    [(0.2, 640, 224), (0.065, 640, 256), (0.01, 640, 320), (0.01, 200, 224), (0.01, 50, 64)],
    ids=["large objects", "small objects", "tiny objects: what a CPU can do", "small images", "tiny images"],
)
def test_image_size_follows_the_small_objects(share, longest, expected):
    shares = [share] * 6 + [0.5] * 94
    values = suggest(num_train_images=100, object_shares=shares, longest_side_px=longest)
    assert values["image_size"] == expected


@pytest.mark.parametrize(("num_images", "expected"), [(1, 100), (87, 41), (255, 14), (100_000, 8)])
def test_epochs_give_a_run_of_about_nine_hundred_steps_of_small_images(num_images, expected):
    assert suggest(num_train_images=num_images)["epochs"] == expected


@pytest.mark.parametrize(
    ("share", "num_cores", "expected"),
    [(0.2, 2, 36), (0.01, 2, 18), (0.2, 4, 72), (0.2, 1, 18)],
    ids=["small images", "large ones take as long", "twice the cores", "half the cores"],
)
def test_a_run_on_a_cpu_takes_about_the_same_time_for_every_dataset(share, num_cores, expected):
    values = suggest(num_train_images=100, object_shares=[share] * 20, num_cores=num_cores)
    assert values["epochs"] == expected


def test_presets_load_no_torch():
    code = "import sys, app.pipeline.presets, app.pipeline.models.catalogue, app.pipeline.train.schedule;"
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)
