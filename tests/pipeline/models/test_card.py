"""The card says what the live model is, not what the catalogue or the config says it should be."""

import json

import pytest
import torch

from app.pipeline.config import parse_config
from app.pipeline.models import measure
from app.pipeline.models.build import build_model, freeze_for_finetuning
from app.pipeline.models.card import describe_config, describe_model, write_card
from app.pipeline.models.catalogue import find_detector
from app.pipeline.models.measure import measure_model


def config_of(**values):
    return parse_config({"max_detections": 100, **values})


def card_of(num_categories=1, layers=5, **values):
    config = config_of(**values)
    with torch.device("meta"):
        model = build_model(config, num_categories)
        if layers < 5:
            freeze_for_finetuning(model, layers)
        return describe_model(model, config)


def test_card_of_the_exercise_shows_its_levels_anchors_and_pooler():
    """Recipe M: a pyramid of 256 channels, anchors of five scales and three ratios, RoIAlign 7 x 7."""
    card = card_of(model="fasterrcnn_resnet50_fpn")
    assert [level["stride"] for level in card["levels"]] == [4, 8, 16, 32, 64]
    assert {level["channels"] for level in card["levels"]} == {256}
    assert [round(level["anchors"][0]["size"], -1) for level in card["levels"]] == [30, 60, 130, 260, 510]
    assert [anchor["ratio"] for anchor in card["levels"][4]["anchors"]] == pytest.approx([0.5, 1.0, 2.0], abs=0.01)
    assert card["pooler"] == {"size": 7, "samples": 2, "levels": ["0", "1", "2", "3"]}
    assert (card["heads"]["rpn_convolutions"], card["heads"]["box_convolutions"]) == (1, 0)
    assert card["norm"] == "batch norm (53)"


def test_parts_add_up_to_all_parameters_and_frozen_ones_are_not_trained():
    card = card_of(model="fasterrcnn_resnet18_fpn", num_categories=1, layers=3)
    assert card["parameters"] == find_detector("fasterrcnn_resnet18_fpn").count_parameters(2)
    by_part = {part["part"]: part for part in card["parts"]}
    assert list(by_part) == ["backbone", "feature pyramid", "RPN", "box head", "predictor"]
    assert by_part["predictor"]["parameters"] == 2 * 5 * 1025
    assert by_part["backbone"]["trainable"] < by_part["backbone"]["parameters"]
    assert by_part["box head"]["trainable"] == by_part["box head"]["parameters"]
    assert card["trainable"] == sum(part["trainable"] for part in card["parts"])


def test_four_levels_and_other_parts_are_read_from_the_model():
    card = card_of(
        model="fasterrcnn_swin_t_fpn",
        pooler_size=14,
        channels=1,
        anchors="custom",
        anchor_sizes=[16.0],
        num_categories=3,
    )
    assert [level["stride"] for level in card["levels"]] == [4, 8, 16, 32]
    assert {level["num_anchors"] for level in card["levels"]} == {3}
    assert card["pooler"]["size"] == 14
    assert (card["channels"], card["num_classes"]) == (1, 4)
    assert card["norm"].startswith("layer norm")


def test_card_leaves_the_model_as_it_was_and_is_written_whole(tmp_path):
    config = config_of()
    model = build_model(config, 2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    write_card(tmp_path, model, config)
    assert model.training
    assert model.backbone.body.bn1.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]
    assert json.loads((tmp_path / "model.json").read_text())["num_classes"] == 3


def test_card_of_a_form_stands_in_for_anchors_that_only_the_run_finds():
    values = {"anchors": "kmeans", "pretrained": "backbone", "trainable_layers": 2}
    card = describe_config(values, 2)
    assert card["are_anchors_known"] is False
    assert card["trainable"] < card["parameters"]
    assert card["norm"].startswith("frozen batch norm")
    with pytest.raises(ValueError, match="did you mean"):
        describe_config({"model": "fasterrcnn_resnet5_fpn"}, 2)


def test_measured_seconds_are_those_of_training_and_predicting():
    config = config_of(model="fasterrcnn_mobilenet_v3_large_320_fpn", image_size=64, device="cpu", precision="float32")
    timing = measure_model(config)
    assert 0 < timing.predict_s < timing.train_s < 60
    assert (timing.image_size, timing.device) == (64, "cpu, float32")
    assert timing.reference_s is None


def test_plain_torchvision_step_is_timed_beside_ours(monkeypatch):
    """Neither learns from the noise it is timed on: weights that drift make slow numbers, and an untrue ratio."""
    plain = []

    class Kept(measure.ReferenceLoop):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            plain.append((self.model, [value.detach().clone() for value in self.model.parameters()]))

    monkeypatch.setattr(measure, "ReferenceLoop", Kept)
    config = parse_config({"image_size": 64, "device": "cpu", "precision": "float32"})
    timing = measure_model(config, with_reference=True, rounds=1, budget_s=0)
    assert timing.reference_s > 0
    ((model, before),) = plain
    assert all(torch.equal(value, old) for value, old in zip(model.parameters(), before, strict=True))
