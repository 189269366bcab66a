"""The scripts that measure the training step run on every device: here on the CPU, with a detector that is tiny."""

import itertools
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from app.pipeline.config import parse_config
from app.pipeline.machine import Machine
from app.pipeline.models import build, forward, proposals
from app.pipeline.train import reference
from app.pipeline.train.reference import ReferenceLoop, as_float_images
from benchmarks import clock, first_run, step_curves, step_loops, step_memory, training_step
from benchmarks.clock import peak_bytes, read_clocks, seconds
from benchmarks.step_calls import as_on_a_gpu
from benchmarks.step_loops import OurLoop, half_precisions, loops_on, random_batch, step_of
from benchmarks.step_memory import measured_bytes
from benchmarks.step_speed import Taken, print_pair
from tests.pipeline.train.tiny_dataset import TINY, construct_tiny_with_batch_norm, write_tiny_dataset

CPU, GPU = torch.device("cpu"), torch.device("cuda")
CONFIG = parse_config({**TINY, "optimizer": "sgd", "learning_rate": 0.01, "max_detections": 20})
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
COMMANDS = re.findall(r"`python -m benchmarks\.training_step (.+?)`", DOCUMENT.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    for module in (build, reference):
        monkeypatch.setattr(module, "construct", construct_tiny_with_batch_norm)


@pytest.fixture
def export(tmp_path) -> Path:
    """The tiny dataset as a COCO export, a folder for each split."""
    made = tmp_path / "made"
    made.mkdir()
    coco = json.loads(write_tiny_dataset(made).read_text())
    for split in ("train", "valid"):
        folder = tmp_path / "export" / split
        folder.mkdir(parents=True)
        images = [image for image in coco["images"] if image["split"] == split]
        for image in images:
            (made / image["path"]).rename(folder / image["file_name"])
        ids = {image["id"] for image in images}
        own = [{**one, "area": 1} for one in coco["annotations"] if one["image_id"] in ids]
        document = {"images": images, "annotations": own, "categories": coco["categories"]}
        (folder / "_annotations.coco.json").write_text(json.dumps(document))
    return tmp_path / "export"


def printed_by(capsys, *words: str) -> list[str]:
    training_step.main([str(word) for word in words])
    return capsys.readouterr().out.splitlines()


class TestSubcommands:
    def test_speed_has_a_row_for_each_pair_with_images_a_second(self, capsys):
        head, titles, *rows = printed_by(
            capsys, "speed", "--sizes", 64, "--norms", "batch", "frozen", "--rounds", 2, "--batch", 4
        )
        assert head.startswith(f"cpu, {torch.get_num_threads()} threads, torch") and "2 rounds" in head
        assert "images/s" in titles and "peak" not in titles
        pairs = ["bf16     fp32", "bf16     bf16", "bf16  bf16 cl", "fp32     fp32"]
        assert [row[40:].lstrip()[:13] for row in rows] == pairs * 2
        for row in rows:
            ours_s, theirs_s, ours_rate, theirs_rate = (float(cell) for cell in row[55:].split()[:4])
            assert ours_rate == pytest.approx(4 / ours_s, rel=0.2)
            assert theirs_rate == pytest.approx(4 / theirs_s, rel=0.2)

    def test_speed_tells_the_peaks_of_a_gpu(self, capsys):
        rounds = [(0.1, 0.1)]
        taken = {("ours", "bf16"): Taken(rounds, 10**8), ("theirs", "fp32"): Taken(rounds, 4 * 10**8)}
        print_pair("a case", "bf16", "fp32", taken, 2)
        assert capsys.readouterr().out.endswith("100, 400, 0.25\n")

    def test_batches_puts_the_small_beside_the_large(self, capsys):
        words = ("--size", 64, "--norms", "batch", "--rounds", 1, "--batches", 1, 4, "--precision", "float32")
        head, titles, row = printed_by(capsys, "batches", *words)
        assert "float32, 1 rounds of 4 images" in head and "batch 1   batch 4" in titles
        norm, small, large, share, *_ = row.split()
        assert norm == "batch" and float(share) == pytest.approx(float(small) / float(large), abs=0.02)

    def test_calls(self, capsys):
        cells = [row.split() for row in printed_by(capsys, "calls")[2:]]
        assert [row[:2] for row in cells] == [[whose, num] for num in "28" for whose in ("ours", "torchvision")]
        two, their_two, eight, their_eight = (int(row[2]) for row in cells)
        assert two == eight and their_two < their_eight

    def test_memory_is_counted_where_the_device_does_not_measure(self, capsys):
        _, titles, row = printed_by(capsys, "memory", "--sizes", 64, "--norms", "frozen")
        assert titles.split() == ["size,", "norm", "counted"]
        ours, theirs, ratio = (float(cell) for cell in row.partition("bf16")[2].split(","))
        assert ours > 0 and theirs > 0 and ratio > 0

    def test_memory_is_measured_too_on_a_gpu(self, capsys, monkeypatch):
        monkeypatch.setattr(step_memory, "tells_memory", lambda device: True)
        allocated = itertools.cycle([10**6, 3 * 10**6])  # before the forward pass, and after it
        monkeypatch.setattr(step_memory, "allocated_bytes", lambda device: next(allocated))
        monkeypatch.setattr(step_memory, "peak_bytes", lambda work, device: work() or 5 * 10**6)
        _, titles, row = printed_by(capsys, "memory", "--sizes", 64, "--norms", "frozen")
        assert titles.endswith("peak of forward and backward")
        assert [row[44:72].strip(), row[72:]] == ["2, 2, 1.00", "4, 4, 1.00"]

    def test_curves_train_in_any_precision(self, capsys, export):
        words = ("--steps", 10, "--size", 64, "--precision", "bfloat16")
        rows = printed_by(capsys, "curves", export, *words)
        assert "64 px, batch 4, bfloat16, export" in rows[0]
        assert [row.split()[2] for row in rows[3:]] == [str(step) for step in range(1, 11)]

    def test_curves_put_ours_in_mixed_precision_beside_the_reference_in_float32(self, capsys, export, monkeypatch):
        seen = []
        step = step_curves.step_of
        monkeypatch.setattr(step_curves, "step_of", lambda loop, *of: seen.append(loop) or step(loop, *of))
        words = ("--steps", 10, "--size", 64, "--precision", "bfloat16", "--plain-precision", "float32")
        rows = printed_by(capsys, "curves", export, *words)
        assert "bfloat16 against float32, export" in rows[0]
        assert {(type(one).__name__, one.machine.dtype) for one in seen} == {
            ("OurLoop", torch.bfloat16),
            ("ReferenceLoop", torch.float32),
        }

    def test_first_run_beside_the_plain_loop(self, capsys, export, monkeypatch):
        values = ["epochs=2", "image_size=64", "batch_size=2", "pretrained=none", "device=auto", "augmentation=[]"]
        asked = []
        choose = first_run.choose_machine
        monkeypatch.setattr(first_run, "choose_machine", lambda *of: asked.append(of[0]) or choose(*of))
        monkeypatch.setattr("sys.argv", ["first_run", str(export), "--plain", "--plain-precision", "bfloat16", *values])
        first_run.main()
        out = capsys.readouterr().out
        assert "plain in bfloat16" in out and "seconds of a turn" in out
        assert set(asked) == {"auto"}  # the plain loop computes where the run does


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_documentation_are_ones(command):
    training_step.build_parser().parse_args(shlex.split(command))


def test_documentation_has_commands_for_a_gpu():
    assert sum("--device cuda" in command for command in COMMANDS) >= 4


class TestDevice:
    def test_clocks_are_read_when_the_device_has_done_its_work(self, monkeypatch):
        told = []
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: told.append("wait"))
        monkeypatch.setattr(clock.time, "perf_counter", lambda: told.append("read") or 0.0)
        seconds(lambda: told.append("work"), GPU)
        assert told == ["wait", "read", "work", "wait", "read"]

    def test_a_cpu_is_not_waited_for(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: pytest.fail("no GPU is there"))
        assert len(read_clocks(CPU)) == 2

    def test_a_gpu_is_told_by_name(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
        assert clock.describe_device(GPU).startswith("NVIDIA H200, ")

    def test_peak_begins_anew_with_each_work(self, monkeypatch):
        told = []
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: told.append("reset"))
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: told.append("peak") or 7)
        assert peak_bytes(lambda: told.append("work"), GPU) == 7
        assert told == ["reset", "work", "peak"]
        assert peak_bytes(lambda: None, CPU) == 0

    def test_measured_memory_is_above_what_lay_there(self, monkeypatch):
        allocated, peak = iter([100, 130]), 160
        for name, answer in (
            ("memory_allocated", lambda device: next(allocated)),
            ("max_memory_allocated", lambda device: peak),
            ("reset_peak_memory_stats", lambda device: None),
        ):
            monkeypatch.setattr(torch.cuda, name, answer)
        layer = torch.nn.Linear(1, 1)
        assert measured_bytes(layer, lambda: layer(torch.ones(1, 1)).sum(), GPU) == (30, 60)
        assert layer.weight.grad is None

    @pytest.mark.parametrize(
        ("has_bfloat16", "expected"),
        [
            (True, ["bf16", "bf16", "bf16 cl", "fp16", "fp16", "fp16 cl", "fp32", "fp32"]),
            (False, ["fp16", "fp16", "fp16 cl", "fp32", "fp32"]),
        ],
        ids=["ampere and later", "older: bfloat16 would be emulated"],
    )
    def test_a_gpu_is_measured_in_both_halves_that_it_has(self, monkeypatch, has_bfloat16, expected):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
        assert [arithmetic for (_, arithmetic), _ in loops_on(GPU, CONFIG, "batch")] == expected
        assert half_precisions(CPU) == ["bfloat16"]


class TestLoops:
    def test_step_whose_nms_was_not_settled_is_done_again(self, monkeypatch):
        asked = []
        compute = forward.compute_losses
        monkeypatch.setattr(
            step_loops, "compute_losses", lambda *of, waits: asked.append(waits) or compute(*of, waits=waits)
        )
        monkeypatch.setattr(proposals, "ROUNDS_AT_ONCE", 1)
        loop = OurLoop(CONFIG, 3, Machine(CPU, torch.float32))
        with as_on_a_gpu():
            loss = loop.step(random_batch(64, 2, CPU))
        assert asked == [False, True] and loop.num_repeated == 1 and np.isfinite(loss)

    def test_plain_loop_takes_images_and_targets_to_its_device(self):
        loop = ReferenceLoop(CONFIG, 3, Machine(torch.device("meta"), torch.float32))
        given = []
        loop.model = lambda *of: given.extend(of) or {"loss": torch.zeros(())}
        batch = random_batch(64, 2, CPU)
        loop.loss(as_float_images(batch), batch.targets)
        images, targets = given
        assert {image.device.type for image in images} == {"meta"}
        assert {value.device.type for target in targets for value in target.values()} == {"meta"}

    def test_channels_last_is_a_layout_and_changes_no_weight(self):
        machine, weights = Machine(CPU, torch.float32), []
        batch = random_batch(64, 2, CPU)
        config = CONFIG.model_copy(update={"rpn_batch_size": 4096, "roi_batch_size": 4096})  # chance has no part
        for is_channels_last in (False, True):
            torch.manual_seed(0)
            loop = ReferenceLoop(config, 3, machine, is_channels_last=is_channels_last)
            kernel = loop.model.backbone.fpn.layer_blocks[0][0].weight
            assert kernel.is_contiguous(memory_format=torch.channels_last) == is_channels_last
            step_of(loop, batch, as_float_images(batch))()
            weights.append([value.detach() for value in loop.model.parameters()])
        for plain, other in zip(*weights, strict=True):
            torch.testing.assert_close(plain, other, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("max_norm", [0.0, 0.1], ids=["not clipped", "clipped, at the norm without the scale"])
    def test_plain_loop_scales_its_loss_in_float16_and_takes_the_scale_out_again(self, max_norm):
        batch, weights = random_batch(64, 2, CPU), []
        config = CONFIG.model_copy(update={"rpn_batch_size": 4096, "roi_batch_size": 4096})
        for dtype in (torch.float32, torch.float16):
            torch.manual_seed(0)
            loop = ReferenceLoop(config, 3, Machine(CPU, dtype), max_norm=max_norm)
            assert loop.scaler.is_enabled() == (dtype == torch.float16)
            if loop.scaler.is_enabled():
                loop.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)  # a step at once: nothing is infinite
            begin = [value.detach().clone() for value in loop.model.parameters()]
            step_of(loop, batch, as_float_images(batch))()
            moves = [new.detach() - old for old, new in zip(begin, loop.model.parameters(), strict=True)]
            weights.append(torch.cat([move.flatten() for move in moves]))
        full, half = weights
        assert float(half.norm() / full.norm()) == pytest.approx(1, abs=0.05)
