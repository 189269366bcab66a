"""The scripts behind the figures of a training step run on any device that torch has; here on the CPU, and tiny."""

import pytest
import torch

from app.pipeline.config import parse_config
from app.pipeline.machine import Machine
from app.pipeline.models import build
from app.pipeline.train import reference
from app.pipeline.train.reference import ReferenceLoop, as_float_images
from benchmarks.training_step import interleave, main, random_batch, seconds
from tests.pipeline.train.tiny_dataset import TINY, construct_tiny_with_batch_norm

HALF = Machine(torch.device("cpu"), torch.float16)


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch):
    for module in (build, reference):
        monkeypatch.setattr(module, "construct", construct_tiny_with_batch_norm)


@pytest.mark.parametrize(
    ("what", "rows"),
    [
        ("speed", ["bf16     fp32", "bf16     bf16", "bf16  bf16 cl", "fp32     fp32"]),
        ("batches", ["batch 2", "batch 16", "images/s"]),
        ("memory", ["kept for the backward pass"]),
    ],
)
def test_each_measurement_prints_its_rows(capsys, what, rows):
    main([what, "--sizes", "64", "--norms", "batch", "--rounds", "1"])
    printed = capsys.readouterr().out
    assert all(row in printed for row in rows), printed


def test_clock_is_read_only_when_the_device_has_done_its_work(monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(Machine, "finish", lambda self: told.append("finish"))
    seconds(lambda: told.append("work"), HALF)
    assert told == ["finish", "work", "finish"]


def test_plain_loop_scales_its_loss_in_half_precision_and_keeps_the_layout_it_is_given():
    config = parse_config({**TINY, "optimizer": "sgd", "learning_rate": 0.01, "max_detections": 20})
    loop = ReferenceLoop(config, 2, HALF, is_channels_last=True)
    before = [value.clone() for value in loop.model.parameters()]
    assert any(value.is_contiguous(memory_format=torch.channels_last) for value in before if value.dim() == 4)
    batch = random_batch(64, 2, HALF)
    targets = [{**one, "labels": one["labels"].clamp(max=2)} for one in batch.targets]
    loop.scaler.load_state_dict({**loop.scaler.state_dict(), "scale": 256.0})
    loop.step(as_float_images(batch), targets)
    moved = [not torch.equal(old, new) for old, new in zip(before, loop.model.parameters(), strict=True)]
    assert any(moved)
    # The scaled gradients were divided again: a step of the learning rate, not 256 times as far.
    assert max(float((old - new).abs().max()) for old, new in zip(before, loop.model.parameters(), strict=True)) < 0.5


def test_first_steps_are_left_out_of_the_rounds():
    config = parse_config({**TINY, "optimizer": "sgd", "learning_rate": 0.001, "max_detections": 20})
    machine = Machine(torch.device("cpu"), torch.float32)
    times = interleave({("theirs", "fp32"): ReferenceLoop(config, 3, machine)}, 64, 2, rounds=1)
    assert [len(rounds) for rounds in times.values()] == [1]
