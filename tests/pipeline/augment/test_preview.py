"""The preview shows the very pixels and boxes that training will see."""

import cv2
import numpy as np
import pytest

from app.pipeline.augment import preview
from app.pipeline.augment.catalogue import Step
from app.pipeline.augment.curve import strong_share
from app.pipeline.augment.presets import PRESETS
from app.pipeline.config import RunConfig
from app.pipeline.data.pixels import ResizedImages
from app.pipeline.data.snapshot import Sample
from app.pipeline.train.loader import TrainLoader
from app.pipeline.types import RunContext

BOXES = np.array([[10.5, 20.25, 90, 80], [100, 30, 160, 110], [0, 0, 199, 133]])
LABELS = np.array([1, 2, 1])


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (13, 19, 3), np.uint8), (200, 133))
    cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def pictures(tmp_path, picture):
    """The picture, and two of other shapes."""
    others = []
    for number in (1, 2):
        others.append(tmp_path / f"{number}.png")
        pixels = np.random.default_rng(number).integers(0, 256, (133, 200 - 40 * number, 3), np.uint8)
        cv2.imwrite(str(others[-1]), pixels)
    return [picture, *others]


@pytest.fixture
def lossless(monkeypatch):
    """Keep the arrays that would be encoded."""
    monkeypatch.setattr(preview, "encode_jpeg", lambda image, quality: image.copy())


def render(path, steps, **changes):
    values = {"rotation": 0, "boxes": BOXES.tolist(), "labels": LABELS.tolist(), "image_id": 7, "seed": 42}
    dumped = [step.model_dump(mode="json") for step in steps]
    return preview.render(path=str(path), steps=dumped, **(values | {"count": 4, "size": 128} | changes))


MIXED = tuple(Step(name=name, probability=0.7) for name in ("CopyPaste", "HorizontalFlip", "MixUp", "Mosaic"))


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        (PRESETS["none"].steps, {}),
        (PRESETS["gastroscopy"].steps, {}),
        (PRESETS["backbones"].steps, {"resize": "stretch"}),
        (MIXED, {}),  # the same partners too
        (MIXED, {"resize": "as_is"}),
        (MIXED, {"augmentation_curve": "linear", "epochs": 8}),
    ],
    ids=["none", "gastroscopy", "stretched", "mixed", "mixed as is", "less and less"],
)
def test_preview_equals_the_training_loader(pictures, lossless, steps, options):
    samples = [
        Sample(7 + n, path, path.name, "train", 200 - 40 * n, 133, 0, boxes, labels, np.zeros(len(boxes), bool))
        for n, (path, boxes, labels) in enumerate(
            zip(pictures, [BOXES, BOXES[:2] / 2, BOXES[:0]], [LABELS, LABELS[:2], LABELS[:0]], strict=True)
        )
    ]
    config = RunConfig(augmentation=steps, image_size=128, seed=42, batch_size=1, num_workers=1, **options)
    shares = [strong_share(epoch, config.epochs, config.augmentation_curve) for epoch in range(3, 9)]
    partners = [(str(sample.path), 0, sample.boxes, sample.labels) for sample in samples]
    shown = render(
        *(pictures[0], steps),
        **{"count": 6, "partners": partners, "first_epoch": 3, "strong_shares": shares, "resize": config.resize},
    )
    loader = TrainLoader(samples, 2, config, ResizedImages.for_config(config), RunContext())
    for variant in shown["variants"]:
        (batch,) = (one for one in loader.epoch(variant["epoch"]) if one.names == [pictures[0].name])
        height, width = variant["jpeg"].shape[:2]
        assert (batch.pixels[0, :height, :width].numpy() == variant["jpeg"]).all()
        np.testing.assert_allclose(batch.targets[0]["boxes"].numpy(), variant["boxes"], atol=0.006)  # shown in 0.01 px
        assert batch.targets[0]["labels"].tolist() == variant["labels"]
    if steps is MIXED and options.get("epochs") is None:
        assert any(len(variant["boxes"]) > 3 for variant in shown["variants"])  # partners were there
    assert shown["images_per_s"] > 0


def test_gray_values_are_shown_through_the_window_that_training_uses(tmp_path, lossless):
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16))
    sample = Sample(7, path, path.name, "train", 64, 64, 0, BOXES[:0], LABELS[:0], np.zeros(0, bool))
    config = RunConfig(window_center=1000, window_width=800, image_size=64, batch_size=1)
    (batch,) = TrainLoader([sample], 2, config, ResizedImages.for_config(config), RunContext()).epoch(1)
    shown = render(path, (), boxes=[], labels=[], size=64, window=(1000, 800))["original"]["jpeg"]
    assert (batch.pixels[0].numpy() == shown).all()
    assert len(np.unique(shown)) > 40  # of the 65 values in the window; without it these are 4 shades of black


def test_original_is_not_augmented_and_counts_boxes_too_small_for_the_size(picture, lossless):
    shown = render(picture, PRESETS["gastroscopy"].steps, boxes=[[0, 0, 100, 66.5], [5, 5, 6, 60]], labels=[3, 4])
    assert (shown["original"]["width"], shown["original"]["height"]) == (128, 85)
    np.testing.assert_allclose(shown["original"]["boxes"], [[0, 0, 64, 42.5]], atol=0.01)
    assert (shown["original"]["labels"], shown["original"]["lost"]) == ([3], 1)  # one pixel wide became 0.64


def test_variants_repeat_and_another_seed_gives_others(picture, lossless):
    steps = PRESETS["backbones"].steps
    one, two, other = (render(picture, steps, seed=seed) for seed in (1, 1, 2))
    same = [(a["jpeg"] == b["jpeg"]).all() for a, b in zip(one["variants"], two["variants"], strict=True)]
    assert all(same)
    assert any((a["jpeg"] != b["jpeg"]).any() for a, b in zip(one["variants"], other["variants"], strict=True))


def test_pictures_are_jpeg_of_the_stated_size(picture):
    shown = render(picture, PRESETS["flips"].steps)
    for item in (shown["original"], *shown["variants"]):
        decoded = cv2.imdecode(np.frombuffer(item["jpeg"], np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape[:2] == (item["height"], item["width"])


def test_rotation_turns_the_picture_before_its_boxes_are_laid_on(picture, lossless):
    shown = render(picture, (), rotation=90, boxes=[[0, 0, 133, 200]], labels=[1])
    assert (shown["original"]["width"], shown["original"]["height"]) == (85, 128)
    np.testing.assert_allclose(shown["original"]["boxes"], [[0, 0, 85, 128]], atol=0.01)


def test_cache_keeps_the_images_used_last_within_its_budget(tmp_path):
    paths = []
    for number in range(3):
        paths.append(str(tmp_path / f"{number}.png"))
        cv2.imwrite(paths[-1], np.full((40, 40, 3), number, np.uint8))
    cache, view = preview.ResizedCache(budget_bytes=2 * 40 * 40 * 3), preview.View(40)
    first = cache.read(paths[0], 0, view)
    cache.read(paths[1], 0, view)
    assert cache.read(paths[0], 0, view) is first
    cache.read(paths[2], 0, view)  # drops the second, which was used longest ago
    assert cache.read(paths[0], 0, view) is first
    assert len(cache._images) == 2
