"""Settings on offer: valid, fit for the data, and without surprises (downloads, mirrored digits)."""

import subprocess
import sys

import pytest

from app.pipeline.config import RunConfig, parse_config
from app.pipeline.presets import PRESETS, explain_needs, suggest, suggest_augmentation

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


@pytest.mark.parametrize(("num_images", "expected"), [(1, 100), (87, 27), (255, 9), (100_000, 8)])
def test_epochs_give_a_run_of_about_six_hundred_steps_of_small_images(num_images, expected):
    assert suggest(num_train_images=num_images)["epochs"] == expected


@pytest.mark.parametrize(
    ("share", "num_cores", "expected"),
    [(0.2, 2, 24), (0.01, 2, 12), (0.2, 4, 48), (0.2, 1, 12)],
    ids=["small images", "large ones take as long", "twice the cores", "half the cores"],
)
def test_a_run_on_a_cpu_takes_about_the_same_time_for_every_dataset(share, num_cores, expected):
    values = suggest(num_train_images=100, object_shares=[share] * 20, num_cores=num_cores)
    assert values["epochs"] == expected


def test_presets_load_no_torch():
    code = "import sys, app.pipeline.presets, app.pipeline.models.catalogue, app.pipeline.train.schedule;"
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)


def values_of(name):
    return next(preset.values for preset in PRESETS if preset.name == name)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_without_pretrained_weights_every_preset_runs_from_scratch(preset):
    assert parse_config({**suggest(**LAPTOP), **preset.values, "pretrained": "none"}).pretrained == "none"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "gastroscopy_schedule",  # G5
            {"batch_size": 8, "final_learning_rate": 1e-9, "weight_decay": 1e-4, "warmup_factor": 1e-4}
            | {"warmup_share": 1 / 20, "schedule": "cosine"},
        ),
        ("gastroscopy_ciou", {"box_loss": "ciou", "rpn_box_loss": "ciou", "image_size": 512, "pooler_size": 14}),  # G6
        (
            "gastroscopy",  # G7
            {"rpn_batch_size": 384, "roi_batch_size": 256, "roi_positive_fraction": 0.5, "box_loss": "ciou"}
            | {"anchor_sizes": [16, 32, 64, 128, 256, 512]},
        ),
        (
            "backbones_swin_s",
            {"model": "fasterrcnn_swin_s_fpn", "progressive_sizes": [224, 448], "clip_gradient_norm": 5}
            | {"schedule": "onecycle", "anchors": "kmeans", "num_anchor_shapes": 9, "sampling": "inverse_frequency"}
            | {"keep_empty_images": False, "seed": 42, "optimizer": "adamw"},
        ),
        ("small_objects", {"channels": 1, "gray_stem": "mean", "trainable_layers": 5, "max_detections": 1000}),
        (
            "nuclei",  # steps 3000, 3500, 4500 of 5000
            {"learning_rate": 2.5e-4, "milestones": [0.6, 0.7, 0.9], "roi_batch_size": 256, "batch_size": 1}
            | {"model": "fasterrcnn_resnext101_32x8d_fpn", "max_detections": 1000},
        ),
        ("mask_rcnn_by_hand", {"roi_batch_size": 256, "roi_positive_fraction": 0.25, "pooler_size": 7}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_recipes_have_the_values_of_the_published_work(name, expected):
    values = values_of(name)
    assert {option: values[option] for option in expected} == expected


def test_steps_of_the_gastroscopy_recipe_build_on_each_other():
    steps = [preset.values for preset in PRESETS if preset.name.startswith("gastroscopy")]
    baseline, twice = steps[0], steps.pop(1)
    assert twice == {**baseline, "test_time_augmentation": "flip"}
    names = [{step["name"] for step in values["augmentation"]} for values in steps]
    assert names[0] == set()
    assert {"CLAHE", "ToGray", "XYMasking", "RandomGravel"} <= names[1]
    assert names[2] - names[1] == {"MixUp", "Mosaic"}
    mixing = {step["name"]: step["probability"] for step in steps[2]["augmentation"]}
    assert (mixing["MixUp"], mixing["Mosaic"]) == (0.1, 0.25)
    assert names[2:] == [names[2]] * len(names[2:])


def test_staged_recipe_trains_the_rpn_first_then_the_head_then_all():
    values = values_of("mask_rcnn_by_hand")
    assert [phase["train"] for phase in values["phases"]] == ["rpn", "heads", "all"]
    assert sum(phase["epochs"] for phase in values["phases"]) == values["epochs"]


def test_preset_says_which_weights_are_missing_here():
    values = values_of("nuclei")
    assert "resnext101_32x8d-8ba56ff5.pth" in explain_needs(values, [])
    assert explain_needs(values, [("fasterrcnn_resnext101_32x8d_fpn", "backbone")]) == ""
    assert explain_needs({**values, "pretrained": "none"}, []) == ""
    assert explain_needs(values_of("quick"), []) == ""
