"""Test-time augmentation: every view's boxes come back to their place in the image, and are merged by class."""

import numpy as np
import pytest
import torch

from app.pipeline import predict
from app.pipeline.models import build
from app.pipeline.predict import load_detector, merge
from app.pipeline.types import Detections
from app.pipeline.views import relative_cost, views_of
from tests.pipeline.train.test_predict_export import save_random_model
from tests.pipeline.train.tiny_dataset import construct_tiny, tiny_snapshot

SQUARE = (20.0, 30.0, 60.0, 80.0)  # of an image of 200 x 120, left of its middle: a mirrored box lies elsewhere


@pytest.fixture
def sizes_seen(monkeypatch):
    """The padded sizes of the batches that a stand-in detector was given; it finds what is white in them."""
    monkeypatch.setattr(build, "construct", construct_tiny)
    seen = []

    def find_white(model, batch, machine):
        seen.append(max(batch.sizes[0]))
        found = []
        for image in batch.pixels:
            y, x = torch.nonzero(image[..., 0] > 127, as_tuple=True)
            box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()[None]
            found.append({"boxes": box, "scores": torch.tensor([0.5]), "labels": torch.tensor([1])})
        return found

    monkeypatch.setattr(predict, "detect", find_white)
    return seen


def picture_with_a_square():
    image = np.zeros((120, 200, 3), np.uint8)
    x1, y1, x2, y2 = map(int, SQUARE)
    image[y1:y2, x1:x2] = 255
    return image


@pytest.mark.parametrize("resize", ["longest", "letterbox", "stretch", "as_is"])
@pytest.mark.parametrize("augmentation", ["flip", "flip_scales"])
def test_boxes_of_every_view_come_back_to_their_place(tmp_path, sizes_seen, resize, augmentation):
    categories = tiny_snapshot(tmp_path).categories
    checkpoint = save_random_model(tmp_path / "a.pt", categories, resize=resize, image_size=192)
    detector = load_detector(checkpoint, "cpu")
    image = picture_with_a_square()
    for view in views_of(augmentation):
        alone = detector._detect_view([image], [(200, 120)], view)[0]
        np.testing.assert_allclose(alone.boxes[0], SQUARE, atol=1.7)  # half a pixel of the smallest view
    sizes_seen.clear()
    merged = detector.predict_image(image, augmentation)
    assert len(merged) == 1  # the views agree, so the surest stays alone
    assert len(sizes_seen) == {"flip": 2, "flip_scales": 6}[augmentation]
    assert len(set(sizes_seen)) == {"flip": 1, "flip_scales": 3}[augmentation]


def test_samples_are_predicted_in_views_as_single_pictures_are(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "construct", construct_tiny)
    snapshot = tiny_snapshot(tmp_path)
    detector = load_detector(save_random_model(tmp_path / "a.pt", snapshot.categories), "cpu")
    samples = snapshot.split("valid")
    once = dict(detector.predict_samples(samples))
    twice = dict(detector.predict_samples(samples, augmentation="flip"))
    for sample in samples:
        alone = detector.predict_image(detector._images.read_upright(sample), "flip")
        np.testing.assert_allclose(twice[sample.image_id].scores, alone.scores, atol=1e-4)
        assert len(twice[sample.image_id]) <= detector.model.roi_heads.detections_per_img
    assert any(not np.array_equal(once[key].scores, twice[key].scores) for key in once)


def detections(*rows):
    boxes, scores, labels = zip(*rows, strict=True)
    return Detections(np.array(boxes), np.array(scores), np.array(labels))


def test_merging_is_nms_of_each_class_up_to_the_cap():
    box, near, far = (0, 0, 10, 10), (1, 0, 10, 10), (50, 50, 60, 60)
    first = detections((box, 0.6, 1), (far, 0.3, 1))
    second = detections((near, 0.8, 1), (near, 0.7, 2), (far, 0.2, 1))
    merged = merge([first, second], nms_threshold=0.5, max_detections=10)
    assert merged.labels.tolist() == [1, 2, 1]
    np.testing.assert_allclose(merged.scores, [0.8, 0.7, 0.3])
    np.testing.assert_allclose(merged.boxes, [near, near, far])
    assert len(merge([first, second], nms_threshold=0.95, max_detections=10)) == 4  # only equal boxes are merged
    assert len(merge([first, second], nms_threshold=0.5, max_detections=2)) == 2
    assert len(merge([Detections.empty()] * 2, 0.5, 10)) == 0


def test_cost_counts_the_pixels_of_all_views():
    assert [relative_cost(name) for name in ("off", "flip", "flip_scales")] == [1, 2, 6.25]
