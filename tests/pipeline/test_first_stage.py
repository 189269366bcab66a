"""What is told of proposals and anchors, against the model run by hand and torchvision's own choice of them."""

import cv2
import numpy as np
import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.ops import box_iou

from app.pipeline import first_stage, predict
from app.pipeline.data.categories import CategoryMap
from app.pipeline.data.image import read_image
from app.pipeline.data.pixels import UnreadableImage
from app.pipeline.data.snapshot import Sample
from app.pipeline.machine import choose_machine
from app.pipeline.models import build
from app.pipeline.models.forward import IMAGENET_MEAN, IMAGENET_STD
from app.pipeline.train.checkpoint import CheckpointError
from tests.pipeline.train.test_predict_export import save_random_model
from tests.pipeline.train.tiny_dataset import CATEGORIES, construct_tiny

BOXES = np.array([[5.0, 10, 45, 70], [50, 80, 58, 90], [0, 0, 80, 120]])


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(build, "construct", construct_tiny)
    monkeypatch.setattr(predict, "choose_machine", lambda device, precision: choose_machine(device, "float32"))
    first_stage._load.cache_clear()
    yield
    first_stage._load.cache_clear()


@pytest.fixture
def sample(tmp_path):
    """Stored lying on its side: upright it is 80 x 120."""
    noise = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), noise)
    nothing = np.zeros(len(BOXES), bool)
    return Sample(1, tmp_path / "a.png", "a.png", "valid", 80, 120, 90, BOXES, np.array([1, 2, 1]), nothing)


@pytest.mark.parametrize(("resize", "scale"), [("stretch", (80 / 64, 120 / 64)), ("longest", (80 / 43, 120 / 64))])
def test_proposals_are_those_of_the_model_in_pixels_of_the_original(tmp_path, sample, resize, scale):
    path = save_random_model(tmp_path / "a.pt", CategoryMap.from_coco(CATEGORIES), resize=resize)
    look = first_stage.look_at(str(path), sample)

    model = predict.load_detector(path, "cpu").model.eval()
    width, height = round(80 / scale[0]), round(120 / scale[1])
    small = cv2.resize(read_image(sample.path, 90), (width, height), interpolation=cv2.INTER_AREA) / 255
    pixels = torch.zeros(1, 3, 64, 64)
    normal = (small - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    pixels[0, :, :height, :width] = torch.from_numpy(normal).permute(2, 0, 1)
    with torch.no_grad():
        maps = list(model.backbone(pixels).values())
        objectness, deltas = model.rpn.head(maps)
        counts = [level[0].numel() for level in objectness]
        anchors = model.rpn.anchor_generator(ImageList(pixels, [(height, width)]), maps)[0]
        scores, deltas = concat_box_prediction_layers(objectness, deltas)
        decoded = model.rpn.box_coder.decode(deltas, [anchors]).view(1, -1, 4)
        (boxes,), (scores,) = RegionProposalNetwork.filter_proposals(
            model.rpn, decoded, scores, [(height, width)], counts
        )
    back = torch.tensor([*scale, *scale], dtype=torch.float64)
    assert 5 < len(boxes) <= 30
    np.testing.assert_allclose(look["proposals"], boxes.double() * back, atol=0.01)
    np.testing.assert_allclose(look["scores"], scores, atol=1e-5)
    assert (np.diff(look["scores"]) <= 0).all()
    ious = box_iou(torch.from_numpy(BOXES) / back, anchors.double())
    np.testing.assert_allclose(look["anchor_ious"], ious.max(dim=1).values, atol=1e-6)
    np.testing.assert_allclose(look["anchors"], anchors.double()[ious.argmax(dim=1)] * back, atol=0.01)


def test_the_last_detector_stays_loaded_until_its_file_changes(tmp_path, sample, monkeypatch):
    categories = CategoryMap.from_coco(CATEGORIES)
    path = save_random_model(tmp_path / "a.pt", categories)
    loaded = []
    load = first_stage.load_detector
    monkeypatch.setattr(first_stage, "load_detector", lambda *at: loaded.append(at) or load(*at))
    before = first_stage.look_at(str(path), sample)
    first_stage.look_at(str(path), sample)
    assert len(loaded) == 1
    save_random_model(path, categories, proposals=5)
    assert len(first_stage.look_at(str(path), sample)["proposals"]) == 5 < len(before["proposals"])


def test_what_cannot_be_looked_at_is_named(tmp_path, sample):
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"bad\.pt"):
        first_stage.look_at(str(tmp_path / "bad.pt"), sample)
    path = save_random_model(tmp_path / "a.pt", CategoryMap.from_coco(CATEGORIES))
    sample.path.write_bytes(b"nothing")
    with pytest.raises(UnreadableImage, match=r"a\.png"):
        first_stage.look_at(str(path), sample)
