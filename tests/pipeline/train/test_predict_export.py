"""A checkpoint at work and on its way out: detections in original pixels, and weights that plain torchvision loads."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from app.pipeline import predict
from app.pipeline.config import parse_config
from app.pipeline.export import export_weights, torchvision_recipe
from app.pipeline.machine import MachineError, choose_machine
from app.pipeline.models import build
from app.pipeline.models.build import build_model, freeze_for_finetuning
from app.pipeline.predict import load_detector
from app.pipeline.train.checkpoint import CheckpointError, categories_to_json, save_checkpoint
from app.pipeline.types import Log, PredictionTime, Progress, RunContext
from tests.pipeline.train.tiny_dataset import TINY, construct_tiny, tiny_snapshot


@pytest.fixture
def exact(monkeypatch):
    """Detectors compute in float32, as what they are compared with does; a fast CPU would choose bfloat16."""
    monkeypatch.setattr(predict, "choose_machine", lambda device, precision: choose_machine(device, "float32"))


@pytest.fixture
def snapshot(tmp_path):
    return tiny_snapshot(tmp_path)


def save_random_model(path, categories, is_frozen=False, **values):
    """A checkpoint of a model that was never trained; batch norm has statistics, as after training."""
    torch.manual_seed(3)
    config = parse_config({**TINY, "max_detections": 20, **values})
    model = build_model(config, len(categories))
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            # Larger means would leave nothing of any ReLU: all regions would have the same score to the bit.
            buffer.uniform_(*((0.5, 1.5) if name.endswith("var") else (-0.3, 0.3)))
    if is_frozen:
        freeze_for_finetuning(model, 3)
    contents = {
        "model": dict(model.state_dict()),
        "config_json": config.model_dump_json(),
        "categories_json": categories_to_json(categories),
        "metrics_json": '{"map50": 0.5}',
        "epoch": 1,
        "step": 2,
    }
    save_checkpoint(path, contents)
    return path


@pytest.fixture
def detector(snapshot, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "construct", construct_tiny)
    return load_detector(save_random_model(tmp_path / "a.pt", snapshot.categories), "cpu")


def test_detections_come_back_in_original_pixels_and_clipped(detector, monkeypatch):
    """A 200 x 100 image is seen at 64 x 32: boxes grow by 3.125, and stay inside."""
    found = {
        "boxes": torch.tensor([[0.0, 0, 32, 16], [60.0, 30, 70, 40]]),
        "scores": torch.tensor([0.9, 0.1]),
        "labels": torch.tensor([1, 2]),
    }
    monkeypatch.setattr(predict, "detect", lambda model, batch, machine: [found])
    result = detector.predict_image(np.zeros((100, 200, 3), np.uint8))
    np.testing.assert_allclose(result.boxes, [[0, 0, 100, 50], [187.5, 93.75, 200, 100]])


def test_samples_and_single_images_get_the_same_detections(detector, snapshot):
    samples = snapshot.split("valid")
    by_id = dict(detector.predict_samples(samples))
    assert list(by_id) == [sample.image_id for sample in samples]
    alone = detector.predict_image(predict.ResizedImages(64, 0).read(samples[2]))
    np.testing.assert_allclose(by_id[samples[2].image_id].boxes, alone.boxes, atol=1e-2)
    np.testing.assert_allclose(by_id[samples[2].image_id].scores, alone.scores, atol=1e-4)


@pytest.mark.parametrize(("batch_size", "counted"), [(1, 2), (3, 3)], ids=["without the first batch", "one batch only"])
def test_time_of_an_image_is_measured_while_predicting(detector, snapshot, monkeypatch, batch_size, counted):
    detector.batch_size, clock, detect = batch_size, iter(range(100)), detector._detect
    assert detector.took is None

    def slow(*given):
        next(clock)  # a batch takes two ticks, between the readings before and after it
        return detect(*given)

    monkeypatch.setattr(detector, "_detect", slow)
    monkeypatch.setattr(predict, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    samples = snapshot.split("valid")
    assert len(dict(detector.predict_samples(samples))) == 3
    num_batches = {1: 2, 3: 1}[batch_size]
    assert detector.took == PredictionTime(1000 * 2 * num_batches / counted, detector.machine.describe())


def test_low_scores_are_not_cut_off(detector, snapshot):
    """An untrained detector is unsure of everything; mAP needs those detections all the same."""
    result = detector.predict_image(np.zeros((64, 64, 3), np.uint8))
    assert len(result) == 20
    assert (np.diff(result.scores) <= 0).all()


def test_prediction_tells_progress_stops_and_leaves_out_what_cannot_be_read(detector, snapshot):
    samples, events = snapshot.split("valid"), []
    samples[0].path.write_bytes(b"no image")
    detector.batch_size = 2
    context = RunContext(emit=events.append)
    assert len(dict(detector.predict_samples(samples, context))) == 2
    assert [event.done for event in events if isinstance(event, Progress)] == [2, 3]
    (log,) = (event for event in events if isinstance(event, Log))
    assert samples[0].file_name in log.text
    stopped = RunContext(emit=events.append, should_stop=lambda: True)
    assert list(detector.predict_samples(samples, stopped)) == []


def test_rotation_is_applied_before_predicting(detector, snapshot):
    sample = snapshot.split("valid")[1]
    upright = dict(detector.predict_samples([sample]))[sample.image_id]
    turned = dict(detector.predict_samples([replace(sample, rotation=90)]))[sample.image_id]
    assert not np.allclose(upright.boxes, turned.boxes)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    ("model", "format", "is_frozen"),
    [
        ("fasterrcnn_resnet18_fpn", "pth", False),
        ("fasterrcnn_resnet18_fpn", "safetensors", True),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "pth", False),
        ("fasterrcnn_resnet50_fpn", "pth", True),
        ("fasterrcnn_resnet50_fpn_v2", "safetensors", False),
    ],
)
def test_five_lines_of_torchvision_give_the_detectors_predictions(
    snapshot, tmp_path, monkeypatch, model, format, is_frozen
):
    checkpoint = save_random_model(tmp_path / "a.pt", snapshot.categories, is_frozen, model=model)
    written = export_weights(checkpoint, format, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in written)
    recipe = torchvision_recipe(model, format)
    assert len(recipe.splitlines()) == 5
    monkeypatch.chdir(tmp_path / "out")
    names: dict = {}
    exec(recipe, names)
    image = predict.ResizedImages(64, 0).read(snapshot.split("valid")[1])
    with torch.inference_mode():
        (theirs,) = names["model"]([torch.from_numpy(image).permute(2, 0, 1) / 255])
    ours = load_detector(checkpoint, "cpu").predict_image(image)
    assert len(ours) == len(theirs["scores"]) > 0
    np.testing.assert_allclose(ours.scores, theirs["scores"].numpy(), atol=1e-4)
    # An untrained model gives equal scores to several boxes, so their order is free.
    distances = np.abs(ours.boxes[:, None] - theirs["boxes"].numpy()).max(axis=2)
    assert distances.min(axis=1).max() < 0.05
    assert distances.min(axis=0).max() < 0.05


@pytest.mark.parametrize("resize", ["longest", "letterbox", "stretch", "as_is"])
def test_predictions_come_back_in_pixels_of_the_original_for_every_mode_of_resizing(
    snapshot, tmp_path, monkeypatch, resize
):
    """A model that finds the whole picture, and a white square by its pixels, on an image of odd sizes."""
    monkeypatch.setattr(build, "construct", construct_tiny)
    detector = load_detector(save_random_model(tmp_path / "a.pt", snapshot.categories, resize=resize), "cpu")
    image = np.zeros((67, 99, 3), np.uint8)
    image[20:40, 33:66] = 255

    def find_square(model, batch, machine):
        found = []
        for pixels, (height, width) in zip(batch.pixels.numpy(), batch.sizes, strict=True):
            rows, columns = np.nonzero(pixels[..., 0] > 127)
            square = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            boxes = torch.tensor([[0, 0, width, height], square], dtype=torch.float32)
            found.append({"boxes": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([1, 2])})
        return found

    monkeypatch.setattr(predict, "detect", find_square)
    both = [detector.predict_image(image), detector.predict_image(np.ascontiguousarray(image[:, :80]))]
    for found, width in zip(both, (99, 80), strict=True):
        np.testing.assert_allclose(found.boxes[0], [0, 0, width, 67], atol=1e-4)
        np.testing.assert_allclose(found.boxes[1], [33, 20, 66, 40], atol=1.6)  # a pixel of the resized image


def test_letterbox_gives_the_same_predictions_alone_and_in_a_batch(snapshot, tmp_path, monkeypatch):
    """Padding is part of what a network sees; with the square it is the same whatever the other images are."""
    monkeypatch.setattr(build, "construct", construct_tiny)
    detector = load_detector(save_random_model(tmp_path / "a.pt", snapshot.categories, resize="letterbox"), "cpu")
    wide, tall = np.full((20, 64, 3), 90, np.uint8), np.full((64, 20, 3), 160, np.uint8)
    shapes = []

    def note(model, batch, machine):
        shapes.append(tuple(batch.pixels.shape[1:3]))
        return original(model, batch, machine)

    original = predict.detect
    monkeypatch.setattr(predict, "detect", note)
    alone = detector.predict_image(wide)
    together, _ = detector._detect([wide, tall], [(64, 20), (20, 64)])
    assert shapes == [(64, 64), (64, 64)]
    np.testing.assert_allclose(alone.scores, together.scores, atol=1e-5)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(("resize", "height"), [("letterbox", 24), ("stretch", 24), ("as_is", 24)])
def test_export_resizes_as_it_was_trained(snapshot, tmp_path, monkeypatch, resize, height):
    """A flat image whose sides scale to whole pixels: torchvision averages and rounds otherwise than we do.

    It fills half of a letterbox: alone, it would make torchvision's pooling take the maps for twice as large.
    """
    model = "fasterrcnn_resnet18_fpn"
    checkpoint = save_random_model(tmp_path / "a.pt", snapshot.categories, model=model, resize=resize)
    export_weights(checkpoint, "pth", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    names: dict = {}
    exec(torchvision_recipe(model, "pth", resize), names)
    image = np.zeros((height, 48, 3), np.uint8) + np.array([200, 90, 30], np.uint8)
    with torch.inference_mode():
        (theirs,) = names["model"]([torch.from_numpy(image).permute(2, 0, 1) / 255])
    ours = load_detector(checkpoint, "cpu").predict_image(image)
    assert len(ours) == len(theirs["scores"]) > 0
    np.testing.assert_allclose(ours.scores, theirs["scores"].numpy(), atol=1e-4)
    distances = np.abs(ours.boxes[:, None] - theirs["boxes"].numpy()).max(axis=2)
    assert distances.min(axis=1).max() < 0.05
    assert json.loads((tmp_path / "out" / "classes.json").read_text())["resize"] == resize


def test_classes_file_gives_labels_ids_and_names(snapshot, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "construct", construct_tiny)
    export_weights(save_random_model(tmp_path / "a.pt", snapshot.categories), "pth", tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert facts["classes"] == [{"label": 1, "id": 5, "name": "red"}, {"label": 2, "id": 9, "name": "blue"}]
    assert facts["image_size"] == 64


def test_unknown_format_and_broken_checkpoints_are_refused(tmp_path):
    with pytest.raises(ValueError, match="pth, safetensors"):
        export_weights(tmp_path / "a.pt", "onnx", tmp_path)
    (tmp_path / "a.pt").write_bytes(b"broken")
    with pytest.raises(CheckpointError):
        load_detector(tmp_path / "a.pt")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_device_that_is_not_there_is_refused_with_advice():
    with pytest.raises(MachineError, match="choose 'auto' or 'cpu'"):
        choose_machine("cuda")
    with pytest.raises(MachineError, match="float16"):
        choose_machine("cpu", "float16")
