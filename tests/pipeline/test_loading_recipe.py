"""Exported weights load elsewhere with the lines that come with them: every detector, every part that can differ."""

import json

import pytest
import torch

from app.pipeline.config import parse_config
from app.pipeline.export import describe
from app.pipeline.loading_recipe import loading_recipe, needed_libraries
from app.pipeline.models.build import build_model
from app.pipeline.models.catalogue import DETECTORS
from app.pipeline.train.checkpoint import Checkpoint
from tests.pipeline.models.test_weights import NAMES

ALL_OPTIONS = {"anchors": "custom", "anchor_sizes": [8.0, 16.0], "pooler_size": 14, "channels": 1, "norm": "group"}
TORCHVISION = [detector.name for detector in DETECTORS if detector.library == "torchvision"]


def run_recipe(config, folder, monkeypatch, device):
    """(names that the lines leave, the model whose weights they load), on ``device``."""
    with torch.device(device):
        model = build_model(config, len(NAMES))
    checkpoint = Checkpoint(folder, {}, config, NAMES, {}, epoch=1, step=1)
    (folder / "classes.json").write_text(json.dumps(describe(checkpoint)))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: model.state_dict())
    names: dict = {}
    with torch.device(device):
        exec(loading_recipe(config), names)
    return names, model


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.parametrize("values", [{}, ALL_OPTIONS], ids=["plain", "all options"])
def test_torchvision_alone_builds_the_model_of_every_detector(name, values, tmp_path, monkeypatch):
    """On no device at all: the names and shapes of all tensors must be the same, or loading them fails."""
    config = parse_config({"model": name, "max_detections": 10, **values})
    names, _ = run_recipe(config, tmp_path, monkeypatch, "meta")
    assert not names["model"].training
    assert needed_libraries(config) == "torchvision alone"
    assert "app." not in loading_recipe(config)
    assert values or len(loading_recipe(config).splitlines()) in (5, 6)


@pytest.mark.parametrize(
    "name", ["fasterrcnn_resnet18_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn", "timm/efficientnet_lite0"]
)
def test_the_model_answers_as_ours_does_with_all_options(name, tmp_path, monkeypatch):
    values = ALL_OPTIONS | {"max_detections": 10, "image_size": 64, "proposals": 20}
    config = parse_config({"model": name, **values})
    torch.manual_seed(1)
    names, model = run_recipe(config, tmp_path, monkeypatch, "cpu")
    image = torch.rand(1, 64, 64)
    with torch.inference_mode():
        (theirs,), (ours,) = names["model"]([image]), model.eval()([image])
    assert len(ours["scores"]) > 0
    torch.testing.assert_close(theirs["scores"], ours["scores"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theirs["boxes"], ours["boxes"], rtol=1e-3, atol=1e-2)


def test_detectors_on_timm_say_what_loads_them():
    config = parse_config({"model": "fasterrcnn_swin_t_fpn"})
    assert "Anchorage installed" in needed_libraries(config)
    assert "from app.pipeline.models.build import build_model" in loading_recipe(config)
