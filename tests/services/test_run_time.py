"""Estimates of time from what was measured, and the benchmark that measures."""

import pytest

from app.errors import Conflict
from app.jobs.helper import HelperFailed
from app.pipeline.config import parse_config
from app.services import benchmark, projects, run_time
from app.services.run_time import estimated_pace
from app.services.suggestions import suggested_values
from app.store import jobs, runs, timings

MODEL = "fasterrcnn_resnet18_fpn"


def keep(services, image_size, train_s, device="cpu, float32", model=MODEL):
    timing = {"model": model, "image_size": image_size, "device": device, "train_s": train_s, "predict_s": 0.5}
    timings.keep(services.workspace, timing)


def estimate(services, sizes=((640, 640),), num_valid=0, **values):
    config = parse_config({"image_size": 320, "epochs": 10, **values})
    found = estimated_pace(services, config, 100, sizes, num_valid)
    return found and found.seconds


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


def test_gpus_of_a_run_share_its_images(services, monkeypatch):
    monkeypatch.setattr(run_time, "list_gpus", lambda: ["0", "1"])
    keep(services, 320, 0.2, device="NVIDIA, bfloat16")
    assert estimate(services) == pytest.approx(200)
    assert estimate(services, processes=0, accumulate_batches=2) == pytest.approx(100)
    assert estimate(services, processes=4, accumulate_batches=4) == pytest.approx(100)  # there are two
    keep(services, 320, 0.2)
    assert estimate(services, processes=2, accumulate_batches=2, device="cpu") == pytest.approx(200)


def test_speedup_outlives_a_measurement_that_does_not_tell_it(services):
    timing = {"model": MODEL, "image_size": 320, "device": "cpu, float32", "predict_s": 0.5}
    timings.keep(services.workspace, {**timing, "train_s": 0.5, "speedup": 3.0})
    timings.keep(services.workspace, {**timing, "train_s": 0.25})
    pace = estimated_pace(services, parse_config({"image_size": 320}), 100, [(640, 640)], 0)
    assert (pace.images_per_s, pace.speedup) == (4, 3)


class Helper:
    """Stands in for the warm helper; ResNet-50 does not fit its memory."""

    def warm_up(self):
        pass

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
    monkeypatch.setattr(benchmark, "END_S", benchmark.SPARE_S + 1)
    real = Helper.call

    def call(self, *arguments, **values):
        clock.append(clock[-1] + 2)
        return real(self, *arguments, **values)

    clock = [0.0]
    monkeypatch.setattr(Helper, "call", call)
    monkeypatch.setattr(benchmark.time, "monotonic", lambda: clock[-1])
    result = benchmark.run_benchmark(services)
    assert len(result["models"]) == 1
    assert set(result["left_out"].values()) == {"no time was left"}


def test_benchmark_that_finds_nothing_ends_in_time_too(services, monkeypatch):
    clock = [0.0]

    def hang(self, target, timeout_s, **values):
        clock.append(clock[-1] + timeout_s)
        raise HelperFailed(f"The helper process did not answer within {timeout_s:g} s.")

    monkeypatch.setattr(Helper, "call", hang)
    monkeypatch.setattr(benchmark, "WarmHelper", Helper)
    monkeypatch.setattr(benchmark.time, "monotonic", lambda: clock[-1])
    with pytest.raises(HelperFailed, match="did not answer"):
        benchmark.run_benchmark(services)
    assert clock[-1] < 120


def test_benchmark_measures_what_a_project_would_train_first(services, monkeypatch):
    monkeypatch.setattr(benchmark, "WarmHelper", Helper)
    monkeypatch.setattr(benchmark, "gpu_name", lambda: "")
    slug = projects.create_project(services, "Own")
    other = parse_config({"model": "timm/mobilenetv3_small_100", "image_size": 96}).model_dump(mode="json")
    with services.database(slug).write() as db:
        runs.create_run(db, jobs.enqueue(db, "train", {}).id, "", other)
    models = [(one["model"], one["image_size"]) for one in benchmark.run_benchmark(services, slug=slug)["models"]]
    suggested = suggested_values(services, slug)
    assert models[:2] == [(suggested["model"], suggested["image_size"]), (other["model"], 96)]
    assert len(set(models)) == len(models)
    assert estimate(services, model=other["model"]) is not None


def test_benchmark_waits_for_the_end_of_a_training(services, monkeypatch):
    monkeypatch.setattr(benchmark, "WarmHelper", Helper)
    slug = projects.create_project(services, "Busy")
    job = jobs.enqueue(services.database(slug), "train", {})
    jobs.claim(services.database(slug), job.id)
    with pytest.raises(Conflict, match="training is under way"):
        benchmark.run_benchmark(services)


def test_benchmark_that_measures_nothing_says_why(services, monkeypatch):
    def fail(self, *arguments, **values):
        raise RuntimeError("no torch")

    monkeypatch.setattr(Helper, "call", fail)
    monkeypatch.setattr(benchmark, "WarmHelper", Helper)
    with pytest.raises(HelperFailed, match="no torch"):
        benchmark.run_benchmark(services)
