"""Estimates of time from what was measured, and the benchmark that measures."""

import pytest

from app.jobs.helper import HelperFailed
from app.pipeline.config import parse_config
from app.services import benchmark
from app.services.run_time import estimated_seconds
from app.store import timings

MODEL = "fasterrcnn_resnet18_fpn"


def keep(services, image_size, train_s, device="cpu, float32", model=MODEL):
    timing = {"model": model, "image_size": image_size, "device": device, "train_s": train_s, "predict_s": 0.5}
    timings.keep(services.workspace, timing)


def estimate(services, sizes=((640, 640),), num_valid=0, **values):
    config = parse_config({"image_size": 320, "epochs": 10, **values})
    return estimated_seconds(services, config, 100, sizes, num_valid)


def test_nothing_is_told_about_a_model_that_was_not_measured(services):
    keep(services, 320, 1.0, model="fasterrcnn_resnet34_fpn")
    assert estimate(services) is None


def test_nearest_size_counts_and_time_follows_the_pixels(services):
    keep(services, 320, 0.2)
    keep(services, 640, 1.0)
    assert estimate(services) == pytest.approx(10 * 100 * 0.2)
    assert estimate(services, image_size=160) == pytest.approx(10 * 100 * 0.2 / 4)
    assert estimate(services, sizes=((640, 320),)) == pytest.approx(10 * 100 * 0.2 / 2)
    assert estimate(services, num_valid=10) == pytest.approx(10 * (100 * 0.2 + 10 * 0.5))
    assert estimate(services, num_valid=10, evaluate_every=5) == pytest.approx(10 * 100 * 0.2 + 2 * 10 * 0.5)


def test_newest_measurement_of_a_device_counts(services):
    keep(services, 320, 0.2)
    keep(services, 320, 0.3)
    keep(services, 320, 0.01, device="NVIDIA, bfloat16")
    assert len(timings.all_of(services.workspace)) == 2
    assert estimate(services, device="cpu") == pytest.approx(300)
    assert estimate(services, device="cuda") == pytest.approx(10)


def test_damaged_file_of_timings_is_measured_anew(services):
    services.workspace.hidden("timings.json").write_text('[{"model": 1}]')
    assert timings.all_of(services.workspace) == []
    services.workspace.hidden("timings.json").write_text("{")
    keep(services, 320, 0.2)
    assert len(timings.all_of(services.workspace)) == 1


class Helper:
    """Stands in for the warm helper; ResNet-50 does not fit its memory."""

    def call(self, target, values, **limits):
        if "resnet50" in values["model"]:
            raise RuntimeError("OutOfMemoryError: too large")
        return {**values, "device": "cpu, float32", "train_s": 0.5, "predict_s": 0.25, "reference_s": 1.0}

    def close(self):
        pass


def test_benchmark_keeps_what_it_measures_and_names_what_it_leaves_out(services, monkeypatch):
    monkeypatch.setattr(benchmark, "WarmHelper", Helper)
    monkeypatch.setattr(benchmark, "gpu_name", lambda: "")
    result = benchmark.run_benchmark(services)
    first = result["models"][0]
    assert (first["model"], first["train_images_per_s"], first["reference_images_per_s"]) == (MODEL, 2, 1)
    assert (first["speedup"], first["predict_s"]) == (2, 0.25)
    assert result["left_out"] == {"fasterrcnn_resnet50_fpn at 320": "OutOfMemoryError: too large"}
    assert len(timings.all_of(services.workspace)) == len(benchmark.CPU_PLAN) - 1
    assert estimate(services) == pytest.approx(500)


def test_benchmark_begins_nothing_it_has_no_time_for(services, monkeypatch):
    monkeypatch.setattr(benchmark, "WarmHelper", Helper)
    monkeypatch.setattr(benchmark, "BUDGET_S", -1.0)
    result = benchmark.run_benchmark(services)
    assert len(result["models"]) == 1
    assert set(result["left_out"].values()) == {"no time was left"}


def test_benchmark_that_measures_nothing_says_why(services, monkeypatch):
    def fail(self, *arguments, **values):
        raise RuntimeError("no torch")

    monkeypatch.setattr(Helper, "call", fail)
    monkeypatch.setattr(benchmark, "WarmHelper", Helper)
    with pytest.raises(HelperFailed, match="no torch"):
        benchmark.run_benchmark(services)
