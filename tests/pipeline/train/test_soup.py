"""Averages of weights: exact numbers on made tensors, and a soup that detects like its members."""

from dataclasses import replace

import pytest
import torch

from app.pipeline.config import parse_config
from app.pipeline.data.categories import CategoryMap
from app.pipeline.export import export_weights
from app.pipeline.models import build
from app.pipeline.predict import load_detector
from app.pipeline.soup import mix_all, mix_greedily
from app.pipeline.train.checkpoint import CheckpointError, categories_to_json, load_checkpoint, save_checkpoint
from tests.pipeline.train.tiny_dataset import TINY, construct_tiny, tiny_snapshot

CONFIG = parse_config({**TINY, "max_detections": 20})
CATEGORIES = CategoryMap((3, 7), ("cell", "dot"))


def save(path, tensors, epoch=1, categories=CATEGORIES):
    contents = {
        "model": tensors,
        "config_json": CONFIG.model_dump_json(),
        "categories_json": categories_to_json(categories),
        "metrics_json": '{"map50": 0.5}',
        "epoch": epoch,
        "step": epoch * 10,
    }
    save_checkpoint(path, contents)
    return path


def weights(value, count):
    return {
        "layer.weight": torch.full((2, 2), value),
        "norm.running_mean": torch.full((2,), value * 10),
        "norm.num_batches_tracked": torch.tensor(count),
    }


@pytest.fixture
def paths(tmp_path):
    return [save(tmp_path / f"{n}.pt", weights(value, n), n) for n, value in ((3, 1.0), (2, 2.0), (1, 6.0))]


def test_all_floats_are_averaged_and_counters_are_the_first_ones(paths, tmp_path):
    soup = mix_all(paths, tmp_path / "soup.pt")
    mixed = load_checkpoint(soup.path)
    assert mixed.tensors["layer.weight"].tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert mixed.tensors["norm.running_mean"].tolist() == [30.0, 30.0]
    assert mixed.tensors["norm.num_batches_tracked"] == 3
    assert (mixed.epoch, mixed.step, mixed.metrics) == (3, 30, {})
    assert soup.members == ("3.pt", "2.pt", "1.pt")
    assert mixed.tensors["layer.weight"].dtype == torch.float32


def test_greedy_keeps_what_does_not_lower_the_score(paths, tmp_path):
    """The score falls with the distance from 4: 1 -> 1.5 is nearer, (1 + 2 + 6) / 3 = 3 nearer still."""

    judged = []

    def score(path, members):
        judged.append((path.name, members))
        return -abs(load_checkpoint(path).tensors["layer.weight"][0, 0].item() - 4)

    soup = mix_greedily(paths, tmp_path / "soup.pt", score)
    assert soup.members == ("3.pt", "2.pt", "1.pt")
    assert load_checkpoint(soup.path).tensors["layer.weight"][0, 0] == 3
    assert [members for _, members in judged] == [("3.pt",), ("3.pt", "2.pt"), ("3.pt", "2.pt", "1.pt")]
    assert judged[0][0] == "3.pt"  # a soup of one is that checkpoint


def test_greedy_leaves_out_what_hurts(paths, tmp_path):
    def score(path, members):
        return -abs(load_checkpoint(path).tensors["layer.weight"][0, 0].item() - 1.5)

    soup = mix_greedily(paths, tmp_path / "soup.pt", score)
    assert soup.members == ("3.pt", "2.pt")
    assert load_checkpoint(soup.path).tensors["layer.weight"][0, 0] == 1.5
    assert [path.name for path in tmp_path.iterdir() if "trial" in path.name] == []


def test_other_layers_or_classes_are_refused(paths, tmp_path):
    other = save(tmp_path / "other.pt", weights(1.0, 1) | {"layer.weight": torch.ones(3, 3)})
    with pytest.raises(CheckpointError, match="other layers"):
        mix_all([*paths, other], tmp_path / "soup.pt")
    renamed = save(tmp_path / "renamed.pt", weights(1.0, 1), categories=replace(CATEGORIES, names=("a", "b")))
    with pytest.raises(CheckpointError, match="other classes"):
        mix_all([*paths, renamed], tmp_path / "soup.pt")
    assert not (tmp_path / "soup.pt").exists()


def test_a_soup_of_one_detector_detects_as_it_does_and_is_exported(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "construct", construct_tiny)
    snapshot = tiny_snapshot(tmp_path)
    torch.manual_seed(1)
    model = build.build_model(CONFIG, len(snapshot.categories))
    tensors = dict(model.state_dict())
    paths = [save(tmp_path / f"{n}.pt", tensors, n, snapshot.categories) for n in (1, 2)]
    soup = mix_all(paths, tmp_path / "soup.pt")
    samples = snapshot.split("valid")[:1]
    one, mixed = (dict(load_detector(path, "cpu").predict_samples(samples)) for path in (paths[0], soup.path))
    image_id = samples[0].image_id
    assert mixed[image_id].boxes.tolist() == one[image_id].boxes.tolist()
    assert [path.name for path in export_weights(soup.path, "pth", tmp_path / "out")] == ["model.pth", "classes.json"]
