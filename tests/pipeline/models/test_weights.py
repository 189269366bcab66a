"""Weights files: what fits is loaded, what does not is refused with its reason, and nothing in them is ever run."""

import hashlib
import json
import os
import re
import urllib.error
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models
from torchvision.models import detection

from app.pipeline.config import ConfigError, parse_config
from app.pipeline.data.categories import CategoryMap
from app.pipeline.models.build import build_model
from app.pipeline.models.catalogue import WEIGHTS, PublishedWeights, cached_weights, find_detector, weights_folder
from app.pipeline.models.weights import fetch_weights, published_weights, read_weights, start_model
from app.pipeline.models.weights_fit import WeightsError, WeightsUnavailable

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
    assert len(notes) == 1
    assert re.fullmatch(r"Started from weights\.pth: (\d+) of the model's \1 tensors match\.", notes[0])


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
    assert notes[0].startswith("Started from weights.pth (backbone only): 100 of the model's 130 tensors match.")
    assert notes[1].startswith("30 tensors start at random: backbone.fpn.")


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


def test_what_is_missing_or_too_much_outside_the_backbone_is_told_by_name(state, save):
    without = {name: value for name, value in state.items() if not name.startswith("roi_heads")}
    model, notes = start_model(file_config(save(without | {"mask_head.weight": torch.zeros(1)})), NAMES)
    assert torch.equal(model.state_dict()["rpn.head.cls_logits.bias"], state["rpn.head.cls_logits.bias"])
    assert "8 tensors start at random: roi_heads.box_head.fc6.weight" in notes[1]
    assert notes[2] == "1 tensors of the file are not used: mask_head.weight."


def test_half_a_backbone_is_refused_by_name(state, save):
    without = {name: value for name, value in state.items() if name != "backbone.body.layer3.0.conv1.weight"}
    with pytest.raises(WeightsError, match=r"it has no backbone\.body\.layer3\.0\.conv1\.weight"):
        start_model(file_config(save(without)), NAMES)


def test_file_of_which_nothing_matches_is_refused(save):
    with pytest.raises(WeightsError, match="does not fit"):
        start_model(file_config(save({"encoder.weight": torch.zeros(1)})), NAMES)


@pytest.mark.parametrize(
    ("values", "layers", "reason"),
    [
        ({"anchors": "custom", "anchor_ratios": [0.5, 2.0]}, ["rpn.head.cls_logits", "rpn.head.bbox_pred"], "anchors"),
        ({"pooler_size": 14}, ["roi_heads.box_head.fc6"], "7 x 7 bins, this model's 14 x 14"),
        (
            {"channels": 1, "gray_stem": "random"},
            ["backbone.body.conv1"],
            "images of 3 channels, this model sees 1 channel",
        ),
    ],
    ids=["anchors", "pooler", "channels"],
)
def test_exactly_the_layers_that_an_option_changes_are_remade(state, save, values, layers, reason):
    config = parse_config({**file_config(save(state)).model_dump(), **values})
    model, notes = start_model(config, NAMES)
    own = model.state_dict()
    names = {name.rpartition(".")[0] for name in own if own[name].shape != state[name].shape}
    changed = {name for name in own if own[name].shape != state[name].shape or not torch.equal(own[name], state[name])}
    assert names == set(layers) or names < set(layers)
    assert {name.rpartition(".")[0] for name in changed} == set(layers)
    assert any(reason in note for note in notes)


@pytest.mark.parametrize(("way", "factor"), [("mean", 1 / 3), ("repeat", 1.0)])
def test_stem_for_gray_is_made_of_the_color_weights(state, save, way, factor):
    config = parse_config({**file_config(save(state)).model_dump(), "channels": 1, "gray_stem": way})
    model, _ = start_model(config, NAMES)
    expected = state["backbone.body.conv1.weight"].sum(1, keepdim=True) * factor
    torch.testing.assert_close(model.state_dict()["backbone.body.conv1.weight"], expected)


def test_gray_weights_are_shared_out_over_three_colors(save):
    gray = build_model(parse_config({"max_detections": 100, "channels": 1}), len(NAMES))
    model, notes = start_model(file_config(save(gray.state_dict())), NAMES)
    images = torch.rand(1, 1, 32, 32)
    stems = [one.backbone.body.conv1 for one in (gray, model)]
    torch.testing.assert_close(stems[0](images), stems[1](images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    assert "equal shares" in notes[1]


def test_batch_norm_does_not_slip_into_group_norm(state, save):
    """Both have a weight and a bias of one shape, with other meanings."""
    config = parse_config({**file_config(save(state)).model_dump(), "norm": "group"})
    with pytest.raises(WeightsError, match="batch norm"):
        start_model(config, NAMES)


def test_other_anchors_of_the_same_number_are_told(state, save):
    theirs = parse_config({"anchors": "custom", "anchor_sizes": [8, 16, 32, 64, 128]}).model_dump_json()
    _, notes = start_model(file_config(save({"model": state, "config_json": theirs})), NAMES)
    assert any("other shapes, as many" in note for note in notes)


def test_refusal_names_the_model_that_a_checkpoint_is_of(save):
    other = build_model(parse_config({"max_detections": 100, "model": "fasterrcnn_mobilenet_v3_large_fpn"}), 2)
    theirs = {"model": other.state_dict(), "config_json": '{"model": "fasterrcnn_mobilenet_v3_large_fpn"}'}
    with pytest.raises(WeightsError, match="Choose model fasterrcnn_mobilenet_v3_large_fpn, which it is of"):
        start_model(file_config(save(theirs)), NAMES)


@pytest.mark.parametrize("model", ["fasterrcnn_efficientnet_b0_fpn", "timm/resnet10t"])
def test_timms_weights_fill_the_backbone_from_the_folder(model, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = published_weights(model, "backbone")
    torch.manual_seed(11)
    network = timm.create_model(published.file_name.partition(".")[0])
    weights_folder().mkdir(parents=True)
    save_file(network.state_dict(), weights_folder() / published.file_name)
    config = parse_config({"pretrained": "backbone", "model": model, "max_detections": 100})
    built, notes = start_model(config, NAMES)
    name = "conv_stem.weight" if "efficient" in model else "conv1.0.weight"
    assert torch.equal(built.state_dict()[f"backbone.body.{name}"], network.state_dict()[name])
    assert "(backbone only)" in notes[0]
    assert not any("start at random: backbone.body" in note for note in notes)


def test_weights_of_another_network_of_timm_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights_folder().mkdir(parents=True)
    network = timm.create_model("mobilenetv3_small_050").state_dict()
    save_file(network, weights_folder() / "efficientnet_b0.ra_in1k.safetensors")
    config = parse_config({"pretrained": "backbone", "model": "fasterrcnn_efficientnet_b0_fpn", "max_detections": 100})
    with pytest.raises(WeightsError, match=r"efficientnet_b0\.ra_in1k\.safetensors"):
        start_model(config, NAMES)


def test_names_of_timms_weights_are_those_that_timm_knows():
    hub = {published.hub_id for published in WEIGHTS.values() if published.hub_id}
    assert len(hub) == 8
    for name in hub:
        config = timm.models.get_pretrained_cfg(name.removeprefix("timm/"))
        assert config.hf_hub_id == name
        assert tuple(config.mean) == (0.485, 0.456, 0.406)


def test_another_network_is_refused(save):
    with pytest.raises(WeightsError, match="does not fit"):
        start_model(file_config(save(models.resnet50(weights=None).state_dict())), NAMES)


def test_published_names_are_torchvisions_own():
    resnets = ["ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152", "ResNeXt101_32X8D", "MobileNet_V3_Large"]
    by_backbone = {name.lower(): getattr(models, f"{name}_Weights").IMAGENET1K_V1.url for name in resnets}
    networks = ["ResNet50_FPN", "ResNet50_FPN_V2", "MobileNet_V3_Large_FPN", "MobileNet_V3_Large_320_FPN"]
    by_network = {
        f"fasterrcnn_{name.lower()}": getattr(detection, f"FasterRCNN_{name}_Weights").COCO_V1.url for name in networks
    }
    published = {key: weights for key, weights in WEIGHTS.items() if not weights.hub_id}
    found = {key[0]: weights.url for key, weights in published.items() if key[1] == "network"}
    assert found == by_network
    backbones = {find_detector(key[0]).backbone: w.url for key, w in published.items() if key[1] == "backbone"}
    assert backbones == by_backbone


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


@pytest.fixture
def cached_resnet(tmp_path, monkeypatch):
    """A stand-in for torchvision's ResNet-18 in the cache folder, under a name that tells its own hash."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = weights_folder()
    folder.mkdir(parents=True)
    torch.save(models.resnet18(weights=None).state_dict(), folder / "made.pth")
    digest = hashlib.sha256((folder / "made.pth").read_bytes()).hexdigest()
    path = (folder / "made.pth").rename(folder / f"resnet18-{digest[:8]}.pth")
    monkeypatch.setitem(WEIGHTS, ("fasterrcnn_resnet18_fpn", "backbone"), PublishedWeights(path.name))
    return path


def test_cached_weights_are_used_without_network(cached_resnet):
    assert cached_weights() == {("fasterrcnn_resnet18_fpn", "backbone")}
    network = torch.load(cached_resnet)
    model, _ = start_model(parse_config({"pretrained": "backbone", "max_detections": 100}), NAMES)
    assert torch.equal(model.state_dict()["backbone.body.conv1.weight"], network["conv1.weight"])


def test_truncated_file_in_the_cache_is_refused_by_name(cached_resnet):
    cached_resnet.write_bytes(cached_resnet.read_bytes()[:-4096])
    with pytest.raises(WeightsError, match=rf"{cached_resnet.name} is damaged .* Delete {cached_resnet}"):
        start_model(parse_config({"pretrained": "backbone", "max_detections": 100}), NAMES)
    with pytest.raises(WeightsError, match="is damaged"):
        start_model(file_config(cached_resnet), NAMES)


def test_downloaded_weights_of_timm_are_kept_with_their_hash(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    calls = []

    def download(url, path, hash_prefix, progress):
        calls.append(url)
        Path(path).write_bytes(b"weights")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    path = fetch_weights("fasterrcnn_efficientnet_b3_fpn", "backbone")
    assert calls == ["https://huggingface.co/timm/efficientnet_b3.ra2_in1k/resolve/main/model.safetensors"]
    assert path.name == f"efficientnet_b3.ra2_in1k-{hashlib.sha256(b'weights').hexdigest()[:8]}.safetensors"
    assert fetch_weights("fasterrcnn_efficientnet_b3_fpn", "backbone") == path
    path.write_bytes(b"weigh")
    with pytest.raises(WeightsError, match=path.name):
        fetch_weights("fasterrcnn_efficientnet_b3_fpn", "backbone")
    assert len(calls) == 1


def test_whole_network_that_is_not_published_is_refused():
    with pytest.raises(ConfigError, match="not published"):
        parse_config({"pretrained": "network"})
    with pytest.raises(WeightsUnavailable, match="no pretrained network"):
        fetch_weights("fasterrcnn_resnet18_fpn", "network")
