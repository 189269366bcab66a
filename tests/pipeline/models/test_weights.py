"""Weights files: what fits is loaded, what does not is refused with its reason, and nothing in them is ever run."""

import json
import os
import urllib.error
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models
from torchvision.models import detection

from app.pipeline.config import ConfigError, parse_config
from app.pipeline.data.categories import CategoryMap
from app.pipeline.models.build import build_model
from app.pipeline.models.catalogue import WEIGHTS, cached_weights, weights_folder
from app.pipeline.models.weights import WeightsError, WeightsUnavailable, fetch_weights, read_weights, start_model

NAMES = CategoryMap((5, 9), ("red", "blue"))
OTHERS = CategoryMap((1, 2, 3), ("a", "b", "c"))
SAME_NUMBER = CategoryMap((1, 2), ("cat", "dog"))
CLS = "roi_heads.box_predictor.cls_score.weight"


def file_config(path: Path):
    return parse_config({"pretrained": "file", "weights_file": str(path), "max_detections": 100})


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return build_model(parse_config({"max_detections": 100}), len(NAMES)).state_dict()


@pytest.fixture
def save(tmp_path):
    def write(document, name="weights.pth") -> Path:
        torch.save(document, tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {"state_dict": s, "epoch": 3}])
def test_state_dict_is_loaded_plain_or_wrapped(state, save, wrap):
    model, notes = start_model(file_config(save(wrap(state))), NAMES)
    assert torch.equal(model.state_dict()[CLS], state[CLS])
    assert notes == ["Started from weights.pth."]


def test_safetensors_is_loaded(state, tmp_path):
    save_file(state, tmp_path / "weights.safetensors")
    model, _ = start_model(file_config(tmp_path / "weights.safetensors"), NAMES)
    assert torch.equal(model.state_dict()[CLS], state[CLS])


def test_head_of_another_number_of_classes_is_remade_and_told(state, save):
    model, notes = start_model(file_config(save(state)), OTHERS)
    assert model.roi_heads.box_predictor.cls_score.out_features == 4
    assert torch.equal(model.state_dict()["rpn.head.cls_logits.weight"], state["rpn.head.cls_logits.weight"])
    assert any("start at random" in note for note in notes)


@pytest.mark.parametrize(("categories", "is_kept"), [(NAMES, True), (SAME_NUMBER, False)])
def test_head_is_kept_only_for_the_same_class_names_where_they_are_told(state, save, categories, is_kept):
    names = json.dumps([{"id": 5, "name": "red"}, {"id": 9, "name": "blue"}])
    model, _ = start_model(file_config(save({"model": state, "categories_json": names})), categories)
    assert torch.equal(model.state_dict()[CLS], state[CLS]) is is_kept


def test_classification_network_fills_the_backbone(save):
    network = models.resnet18(weights=None).state_dict()
    model, notes = start_model(file_config(save(network)), NAMES)
    assert torch.equal(model.state_dict()["backbone.body.layer4.0.conv1.weight"], network["layer4.0.conv1.weight"])
    assert notes == ["Started from weights.pth (backbone only)."]


def test_names_of_older_torchvision_are_understood(state, save):
    old = {name.replace("conv.0.0.", "conv.").replace("_blocks.0.0.", "_blocks.0."): v for name, v in state.items()}
    assert set(old) != set(state)
    model, _ = start_model(file_config(save(old)), NAMES)
    assert torch.equal(model.state_dict()["rpn.head.conv.0.0.weight"], state["rpn.head.conv.0.0.weight"])


class _RunsCode:
    def __reduce__(self):
        return (os.system, ("touch was_run",))


def test_pickle_that_runs_code_is_refused_and_not_run(save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save({"model": _RunsCode()})
    with pytest.raises(WeightsError, match="could run code"):
        read_weights(path)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>not found</html>", "is a web page"),
        (b"\n  <html><body>", "is a web page"),
        (b"PK\x03\x04 cut in half", "damaged"),
        (b"broken", "no file of PyTorch weights"),
        (b"just some words", "no file of PyTorch weights"),
    ],
    ids=["empty", "html", "html after white space", "truncated zip", "bytes that are half a pickle", "text"],
)
def test_files_that_are_no_weights_are_refused_with_the_reason(tmp_path, contents, reason):
    path = tmp_path / "weights.pth"
    path.write_bytes(contents)
    with pytest.raises(WeightsError, match=reason):
        read_weights(path)


def test_broken_safetensors_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(WeightsError, match="safetensors"):
        read_weights(path)


def test_half_a_file_is_refused(state, save):
    path = save(state)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match="damaged"):
        read_weights(path)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="there is no weights file"):
        read_weights(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("document", [{"weights": 3}, [torch.zeros(1)], {}], ids=["numbers", "a list", "nothing"])
def test_document_without_a_state_dict_is_refused(save, document):
    with pytest.raises(WeightsError, match="no state dict"):
        read_weights(save(document))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_by_name(state, save, value):
    broken = {name: tensor.clone() for name, tensor in state.items()}
    broken["rpn.head.cls_logits.bias"][0] = value
    with pytest.raises(WeightsError, match=r"rpn\.head\.cls_logits\.bias .*not finite"):
        read_weights(save(broken))


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.zeros(1).expand(10**13), "more than the file holds"),
        (torch.zeros(3, 3).to_sparse(), "ordinary tensor"),
        (torch.zeros(3, device="meta"), "ordinary tensor"),
        (torch.full((3,), complex("nan")), "ordinary tensor"),
    ],
    ids=["a kilobyte that claims terabytes", "sparse", "without data", "complex"],
)
def test_tensors_that_no_weight_is_are_refused_by_name(save, tensor, reason):
    with pytest.raises(WeightsError, match=rf"weights.pth: backbone.x .*{reason}"):
        read_weights(save({"backbone.x": tensor}))


def test_class_list_nested_without_end_is_refused(save):
    with pytest.raises(WeightsError, match="list of classes"):
        read_weights(save({"model": {"a": torch.zeros(1)}, "categories_json": "[" * 5000}))


def test_wrong_shape_is_refused_by_name(state, save):
    broken = dict(state) | {"rpn.head.cls_logits.bias": torch.zeros(5)}
    with pytest.raises(WeightsError, match=r"rpn\.head\.cls_logits\.bias must have shape \(3,\), found \(5,\)"):
        start_model(file_config(save(broken)), NAMES)


def test_missing_and_unknown_tensors_are_refused_by_name(state, save):
    without = {name: value for name, value in state.items() if name != "rpn.head.cls_logits.bias"}
    with pytest.raises(WeightsError, match=r"it has no rpn\.head\.cls_logits\.bias"):
        start_model(file_config(save(without)), NAMES)
    with pytest.raises(WeightsError, match="it has mask_head"):
        start_model(file_config(save(dict(state) | {"mask_head": torch.zeros(1)})), NAMES)


def test_another_network_is_refused(save):
    with pytest.raises(WeightsError, match="does not fit"):
        start_model(file_config(save(models.resnet50(weights=None).state_dict())), NAMES)


def test_published_names_are_torchvisions_own():
    enums = {
        ("fasterrcnn_resnet18_fpn", "backbone"): models.ResNet18_Weights.IMAGENET1K_V1,
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "backbone"): models.MobileNet_V3_Large_Weights.IMAGENET1K_V1,
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "network"): (
            detection.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1
        ),
        ("fasterrcnn_resnet50_fpn", "backbone"): models.ResNet50_Weights.IMAGENET1K_V1,
        ("fasterrcnn_resnet50_fpn", "network"): detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
        ("fasterrcnn_resnet50_fpn_v2", "backbone"): models.ResNet50_Weights.IMAGENET1K_V1,
        ("fasterrcnn_resnet50_fpn_v2", "network"): detection.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
    }
    assert {key: published.url for key, published in WEIGHTS.items()} == {key: w.url for key, w in enums.items()}


@pytest.mark.parametrize("variable", ["TORCH_HOME", "XDG_CACHE_HOME"])
def test_the_folder_is_that_of_torch_hub(tmp_path, monkeypatch, variable):
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert weights_folder() == Path(torch.hub.get_dir()) / "checkpoints"


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no route to host"), TimeoutError("timed out"), RuntimeError("invalid hash value")]
)
def test_without_network_the_error_names_file_address_and_folder(tmp_path, monkeypatch, error):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    config = parse_config({"pretrained": "backbone", "max_detections": 100})
    with pytest.raises(WeightsUnavailable) as caught:
        start_model(config, NAMES)
    message = str(caught.value)
    assert str(tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth") in message
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in message


def test_cached_weights_are_used_without_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert cached_weights() == set()
    path = weights_folder() / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    network = models.resnet18(weights=None).state_dict()
    torch.save(network, path)
    assert cached_weights() == {("fasterrcnn_resnet18_fpn", "backbone")}
    model, _ = start_model(parse_config({"pretrained": "backbone", "max_detections": 100}), NAMES)
    assert torch.equal(model.state_dict()["backbone.body.conv1.weight"], network["conv1.weight"])


def test_whole_network_that_is_not_published_is_refused():
    with pytest.raises(ConfigError, match="not published"):
        parse_config({"pretrained": "network"})
    with pytest.raises(WeightsUnavailable, match="no pretrained network"):
        fetch_weights("fasterrcnn_resnet18_fpn", "network")
