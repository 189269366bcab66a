"""What would shorten the steps of a run: run by node."""

import functools

import pytest

SCRIPT = """
import { hintsFor } from "WIDGETS/train_time.js";
answer(given.map(({ shares, config, models }) => hintsFor(shares, config, models)));
"""
SHARES = {"data": 0.01, "forward": 0.4, "backward": 0.5, "optimizer": 0.05, "evaluation": 0, "other": 0.04}
OPTIONS = {
    "model": "large",
    "precision": "auto",
    "device": "auto",
    "image_size": 640,
    "resize": "longest",
    "roi_batch_size": 512,
    "pretrained": "none",
    "trainable_layers": 5,
    "batch_size": 4,
    "accumulate_batches": 1,
}
MODELS = [
    {"name": "small", "title": "Small", "family": "resnet", "head": "v1", "parameters": 1},
    {"name": "large", "title": "Large", "family": "resnet", "head": "v1", "parameters": 3},
    {"name": "middle", "title": "Middle", "family": "resnet", "head": "v1", "parameters": 2},
    {"name": "other", "title": "Other", "family": "swin", "head": "v1", "parameters": 2},
]
LEAST = {"image_size": 64, "roi_batch_size": 64, "model": "small"}


@pytest.fixture
def hints(node):
    run = functools.partial(node, SCRIPT)
    return lambda shares=(), **values: run(
        [{"shares": {**SHARES, **dict(shares)}, "config": {**OPTIONS, **values}, "models": MODELS}]
    )[0]


def test_longer_pass_is_named_with_what_the_options_leave_open(hints):
    assert hints() == [
        "The backward pass takes 50 % of the time. What would help: image size 512 (36 % fewer pixels than at 640), "
        "fewer regions an image (RoI batch size 256 in place of 512) or a smaller model (Middle)."
    ]
    (forward,) = hints({"forward": 0.6, "backward": 0.3}, pretrained="network")
    assert forward.startswith("The forward pass takes 60 %") and "trainable" not in forward


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"precision": "float32"}, "What would help: precision auto, which takes 16 bits"),
        ({"pretrained": "backbone"}, "What would help: 3 trainable layers in place of 5."),
        ({"resize": "as_is"}, "What would help: resizing the images (resize longest)."),
        ({"roi_batch_size": 100}, "What would help: fewer regions an image (RoI batch size 64 in place of 100)."),
        ({"image_size": 96}, "What would help: image size 64 (56 % fewer pixels than at 96)."),
        ({"model": "middle"}, "What would help: a smaller model (Small)."),
        ({}, "only a faster machine would"),
    ],
)
def test_only_what_is_open_is_named(hints, values, words):
    assert words in hints(**{**LEAST, **values})[0]


def test_optimizer_that_takes_much_is_named_too(hints):
    _, optimizer = hints({"optimizer": 0.15})
    assert optimizer == (
        "The optimizer takes 15 %. What would help: fewer, larger steps (accumulate batches 2 in place of 1) or a "
        "smaller model (Middle)."
    )
