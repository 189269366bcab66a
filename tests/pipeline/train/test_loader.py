"""What reaches the model: boxes with their labels, checked, in an order that follows from the seed."""

import re
import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from app.pipeline.augment.chain import Augmented
from app.pipeline.config import parse_config
from app.pipeline.data.pixels import ResizedImages, UnreadableImage
from app.pipeline.data.snapshot import Sample
from app.pipeline.train import loader as loader_module
from app.pipeline.train.loader import DatasetError, TrainLoader
from app.pipeline.types import Log, RunContext
from tests.pipeline.train.tiny_dataset import TINY, tiny_snapshot


@pytest.fixture
def snapshot(tmp_path):
    return tiny_snapshot(tmp_path, num_train=5)


def make_loader(samples, events=None, **values) -> TrainLoader:
    config = parse_config({**TINY, **values})
    context = RunContext(emit=(events if events is not None else []).append)
    return TrainLoader(samples, 2, config, ResizedImages(config.image_size), context)


def test_every_image_comes_once_an_epoch_and_the_last_batch_is_not_dropped(snapshot):
    loader = make_loader(snapshot.split("train"))
    batches = list(loader.epoch(1))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert loader.batches_per_epoch == 3
    assert sorted(name for batch in batches for name in batch.names) == [f"train_{i}.png" for i in range(1, 6)]


def test_order_follows_from_seed_and_epoch(snapshot):
    def order(seed, epoch):
        loader = make_loader(snapshot.split("train"), seed=seed)
        return [name for batch in loader.epoch(epoch) for name in batch.names]

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)


def test_boxes_are_scaled_to_the_resized_image_with_labels_from_one(snapshot):
    sample = snapshot.split("train")[1]
    (batch,) = make_loader([sample], image_size=128).epoch(1)
    assert batch.sizes == [(128, 128)]
    np.testing.assert_allclose(batch.targets[0]["boxes"].numpy(), sample.boxes * 2)
    assert batch.targets[0]["labels"].tolist() == [1, 2]


def test_image_without_objects_is_kept_or_left_out_as_configured(snapshot):
    samples = snapshot.split("train")
    assert sum(len(batch) for batch in make_loader(samples).epoch(1)) == 5
    assert sum(len(batch) for batch in make_loader(samples, keep_empty_images=False).epoch(1)) == 4


def augmented_with(boxes, labels):
    def apply(self, image, old_boxes, old_labels, **others):
        kept = np.arange(len(labels))
        return Augmented(image, np.asarray(boxes, np.float32), np.asarray(labels), kept, 0)

    return apply


def test_boxes_and_labels_filtered_together(snapshot, monkeypatch):
    """torchvision trains on one box with two labels without a word."""
    boxes = [[5, 5, 5, 20], [1, 2, 30, 40]]
    monkeypatch.setattr(loader_module.Chain, "apply", augmented_with(boxes, [1, 2]))
    (batch,) = make_loader(snapshot.split("train")[1:2]).epoch(1)
    assert batch.targets[0]["boxes"].tolist() == [[1, 2, 30, 40]]
    assert batch.targets[0]["labels"].tolist() == [2]


def test_unequal_boxes_and_labels_are_an_error_naming_the_image(snapshot, monkeypatch):
    monkeypatch.setattr(loader_module.Chain, "apply", augmented_with([[1, 2, 30, 40]], [1, 2]))
    with pytest.raises(DatasetError, match=r"train_2\.png.*1 boxes, 2 labels"):
        list(make_loader(snapshot.split("train")[1:2]).epoch(1))


def test_image_whose_boxes_all_vanish_is_trained_on_as_a_negative(snapshot, monkeypatch):
    monkeypatch.setattr(loader_module.Chain, "apply", augmented_with(np.zeros((0, 4)), []))
    (batch,) = make_loader(snapshot.split("train")[1:2]).epoch(1)
    assert batch.targets[0]["boxes"].shape == (0, 4)
    assert batch.targets[0]["labels"].shape == (0,)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"labels": np.array([0, 1])}, "label 0"),
        ({"labels": np.array([-1, 1])}, "label -1"),
        ({"labels": np.array([1, 3])}, "label 3"),
        ({"labels": np.array([1])}, "2 boxes but 1 labels"),
        ({"boxes": np.array([[1, 1, np.inf, 9], [1, 1, 9, 9]])}, "not finite"),
        ({"boxes": np.array([[1, 1, np.nan, 9], [1, 1, 9, 9]])}, "not finite"),
    ],
    ids=["background", "negative", "beyond the classes", "too few", "infinite: roi_align would crash", "NaN"],
)
def test_wrong_boxes_and_labels_are_an_error_naming_the_image(snapshot, change, reason):
    sample = replace(snapshot.split("train")[1], **change)
    with pytest.raises(DatasetError, match=rf"train_2\.png.*{reason}"):
        list(make_loader([sample]).epoch(1))


def test_crowd_regions_are_not_trained_on_as_objects(snapshot):
    sample = replace(snapshot.split("train")[1], is_crowd=np.array([True, False]))
    (batch,) = make_loader([sample]).epoch(1)
    assert batch.targets[0]["labels"].tolist() == [2]


def test_unreadable_image_is_skipped_with_one_line_then_too_many_stop_the_run(snapshot):
    samples, events = snapshot.split("train"), []
    samples[1].path.write_bytes(samples[1].path.read_bytes()[:200])
    loader = make_loader(samples, events)
    for epoch in (1, 2):
        names = [name for batch in loader.epoch(epoch) for name in batch.names]
        assert len(names) == 4
        assert "train_2.png" not in names
    logs = [event.text for event in events if isinstance(event, Log)]
    assert len(logs) == 1
    assert "train_2.png" in logs[0]
    samples[2].path.unlink()
    with pytest.raises(DatasetError, match=r"2 images .* cannot be read, the last: .*train_[23]\.png"):
        list(make_loader(samples, events).epoch(1))


def test_without_images_the_error_says_what_to_do():
    with pytest.raises(DatasetError, match="put some into the train split"):
        make_loader([])


def test_images_have_the_size_of_their_epoch_and_memory_is_given_back(snapshot):
    loader = make_loader(snapshot.split("train"), image_size=128, epochs=5, progressive_sizes=[64, 96, 128])
    budget = loader._images._budget._left
    with loader:
        sizes = [{size for batch in loader.epoch(epoch) for size in batch.sizes} for epoch in range(1, 6)]
    assert sizes == [{(64, 64)}, {(64, 64)}, {(96, 96)}, {(96, 96)}, {(128, 128)}]
    assert budget - loader._images._budget._left == 5 * 128 * 128 * 3


def test_batches_are_the_same_to_the_bit_for_any_number_of_threads(snapshot):
    """Threads that finish in another order, steps that mix images, and epochs that run into each other."""
    steps = [{"name": name, "probability": 0.5} for name in ("Mosaic", "HorizontalFlip", "RandomBrightnessContrast")]

    def run(num_workers):
        loader = make_loader(
            snapshot.split("train"), num_workers=num_workers, epochs=3, augmentation=steps, image_size=96
        )
        with loader:
            return [batch for epoch in range(1, 4) for batch in loader.epoch(epoch)]

    alone, together = run(1), run(7)
    assert [batch.names for batch in alone] == [batch.names for batch in together]
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        for target, expected in zip(other.targets, one.targets, strict=True):
            assert torch.equal(target["boxes"], expected["boxes"])
            assert torch.equal(target["labels"], expected["labels"])


def test_epoch_begins_at_a_batch_without_preparing_those_before(snapshot, monkeypatch):
    samples = snapshot.split("train")
    whole = list(make_loader(samples, epochs=1).epoch(1))
    seen, read = [], ResizedImages.read
    monkeypatch.setattr(ResizedImages, "read", lambda self, sample: seen.append(sample.file_name) or read(self, sample))
    loader = make_loader(samples, epochs=1)
    rest = list(loader.epoch(1, first_batch=1))
    assert [batch.names for batch in rest] == [batch.names for batch in whole[1:]]
    assert all(torch.equal(one.pixels, other.pixels) for one, other in zip(rest, whole[1:], strict=True))
    assert sorted(seen) == sorted(name for batch in whole[1:] for name in batch.names)
    assert loader.num_taken == 3


def test_next_epoch_is_prepared_while_this_one_is_judged(snapshot):
    loader = make_loader(snapshot.split("train"), epochs=2)
    with loader:
        first = [batch.names for batch in loader.epoch(1)]
        assert [(coming.epoch, coming.index) for coming in loader._ahead] == [(2, 0), (2, 1), (2, 2)]
        assert len(first) + len(list(loader.epoch(2))) == 6
        assert not loader._ahead


def test_broken_worker_is_told_with_the_name_of_the_image(snapshot, monkeypatch):
    def fail(self, image, *args, **kwargs):
        raise RuntimeError("no such color")

    monkeypatch.setattr(loader_module.Chain, "apply", fail)
    with pytest.raises(RuntimeError, match="no such color") as caught:
        list(make_loader(snapshot.split("train")).epoch(1))
    assert re.fullmatch(r"This happened while image \d \(train_\d\.png\) was prepared\.", caught.value.__notes__[0])


@pytest.mark.parametrize(
    ("resize", "sizes", "padded"),
    [
        ("longest", [(64, 43)], (64, 64)),  # 43 is padded to the stride
        ("letterbox", [(64, 43)], (64, 64)),
        ("stretch", [(64, 64)], (64, 64)),
        ("as_is", [(99, 67)], (128, 96)),
    ],
)
def test_every_mode_of_resizing_moves_the_boxes_with_the_pixels(tmp_path, resize, sizes, padded):
    pixels = np.zeros((99, 67, 3), np.uint8)
    pixels[33:66, 20:40] = 255
    cv2.imwrite(str(tmp_path / "odd.png"), pixels)
    boxes, labels = np.array([[20, 33, 40, 66.0]]), np.array([1])
    sample = Sample(1, tmp_path / "odd.png", "odd.png", "train", 67, 99, 0, boxes, labels, np.zeros(1, bool))
    config = parse_config({**TINY, "resize": resize})
    loader = TrainLoader([sample], 1, config, ResizedImages.for_config(config), RunContext())
    (batch,) = loader.epoch(1)
    assert (batch.sizes, tuple(batch.pixels.shape[1:3])) == (sizes, padded)
    rows, columns = np.nonzero(batch.pixels[0, :, :, 0].numpy() > 127)
    drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(batch.targets[0]["boxes"][0].numpy(), drawn, atol=0.8)


def test_repeated_images_come_in_as_many_batches_as_are_told(snapshot):
    loader = make_loader(snapshot.split("train")[:3], sampling="repeat_factor", repeat_threshold=1.0, batch_size=1)
    for epoch in range(1, 10):
        assert len(list(loader.epoch(epoch))) == loader.batches_per_epoch == 4  # 1 + 2 * sqrt(3 / 2), rounded up


def test_unreadable_partner_is_left_out_and_told(snapshot):
    samples, events = snapshot.split("train"), []
    samples[1].path.write_bytes(b"broken")
    loader = make_loader(samples, events, augmentation=[{"name": "Mosaic", "probability": 1}])
    assert sum(len(batch) for batch in loader.epoch(1)) == 4
    assert [event.text for event in events if isinstance(event, Log)][0].startswith("Skipped: image 2")


def test_images_are_kept_in_memory_only_within_the_budget(snapshot):
    first, second = snapshot.samples[:2]
    images = ResizedImages(64, budget_bytes=64 * 64 * 3)
    before = [images.read(first), images.read(second)]
    for sample in (first, second):
        sample.path.unlink()
    assert images.read(first) is before[0]
    with pytest.raises(UnreadableImage, match=r"train_2\.png"):
        images.read(second)


def test_one_pool_serves_all_epochs_and_leaves_no_threads(snapshot):
    def threads():
        return {thread.ident for thread in threading.enumerate() if thread.name.startswith("loader")}

    before = threads()
    with make_loader(snapshot.split("train"), batch_size=1, num_workers=2, epochs=9) as loader:
        next(loader.epoch(1))
        own = threads() - before
        list(loader.epoch(2))
        later = threads() - before
        assert own and own <= later and len(later) <= 2  # another is begun only while none is idle
    assert not threads() - before
