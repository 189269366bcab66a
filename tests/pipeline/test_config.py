"""Options: nothing is silently ignored, and the command line reads what the form writes."""

import pytest

from app.pipeline.config import GROUPS, ConfigError, RunConfig, load_config, parse_assignments, parse_config


def test_a_misspelt_option_is_refused_by_name():
    with pytest.raises(ConfigError, match="epoch: unknown option.*epochs"):
        parse_config({"epoch": 3})


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"model": "yolo"}, "model"),
        ({"pretrained": "file"}, "weights_file"),  # needs a second option
        ({"final_learning_rate": 0.5, "learning_rate": 0.1}, "final_learning_rate"),  # cannot work together
    ],
)
def test_values_that_cannot_be_run_are_refused_with_the_option(values, names):
    with pytest.raises(ConfigError, match=names):
        parse_config(values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"image_size": 100}, "image_size: must be a whole number from 64 to 2048, a multiple of 32, got 100"),
        ({"epochs": 1.5}, "epochs: must be a whole number from 1 to 10000, got 1.5"),
        ({"learning_rate": 0}, "learning_rate: must be a number above 0, at most 10, got 0"),
        ({"momentum": 1}, "momentum: must be a number from 0 to below 1, got 1"),
        ({"clip_gradient_norm": -1}, "clip_gradient_norm: must be a number of at least 0, got -1"),
        ({"weight_decay": "much"}, "weight_decay: must be a number from 0 to 1, got 'much'"),
        ({"optimizer": "lion"}, "optimizer: must be 'sgd' or 'adamw', got 'lion'"),
        ({"keep_empty_images": 7}, "keep_empty_images: must be true or false, got 7"),
        ({"milestones": [0.5] * 17}, "milestones: must have at most 16 values, got 17"),
        (
            {"phases": [{"train": "all", "epochs": 0, "learning_rate": 1}]},
            "phases: number 1: epochs: must be a whole number from 1 to 10000, got 0",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refusals_say_what_must_hold_and_what_was_found(values, words):
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    assert str(caught.value) == words


def test_every_option_has_a_help_text_and_one_group():
    in_groups = [name for group in GROUPS for name in group.model_fields]
    assert sorted(in_groups) == sorted(RunConfig.model_fields)
    assert all(field.description for field in RunConfig.model_fields.values())
    assert all(group.__doc__ for group in GROUPS)


def test_assignments_are_json_where_they_parse():
    values = parse_assignments(["epochs=5", "model=fasterrcnn_resnet50_fpn", "learning_rate=1e-4", "weights_file=a=b"])
    assert values == {
        "epochs": 5,
        "model": "fasterrcnn_resnet50_fpn",
        "learning_rate": 1e-4,
        "weights_file": "a=b",
    }


def test_an_assignment_without_equals_is_refused():
    with pytest.raises(ConfigError, match="key=value"):
        parse_assignments(["epochs"])


def test_a_written_config_reads_back_the_same(tmp_path):
    config = parse_config({"epochs": 3, "augmentation": [{"name": "HorizontalFlip"}]})
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json())
    assert load_config(path) == config


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000], ids=["digits", "brackets"])
def test_endless_values_are_refused_in_a_short_line(text):
    with pytest.raises(ConfigError) as caught:
        parse_config(parse_assignments([f"epochs={text}"]))
    assert "epochs" in str(caught.value) and len(str(caught.value)) < 300
