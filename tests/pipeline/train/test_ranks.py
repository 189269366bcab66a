"""Two processes train one model: the same weights to the bit as one process that adds up the same batches."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from app.pipeline.config import ConfigError, parse_config
from app.pipeline.data.pixels import ResizedImages
from app.pipeline.machine import MachineError, choose_machine
from app.pipeline.models import build
from app.pipeline.train.checkpoint import load_checkpoint
from app.pipeline.train.loader import TrainLoader
from app.pipeline.train.loop import train
from app.pipeline.train.ranks import Ranks
from app.pipeline.train.resume import describe_arithmetic
from app.pipeline.types import Log, Metrics, RunContext
from tests.pipeline.train.run_lab import digest_of
from tests.pipeline.train.test_staged import STAGED
from tests.pipeline.train.tiny_dataset import (
    TINY,
    construct_tiny,
    construct_tiny_with_batch_norm,
    tiny_snapshot,
    write_tiny_dataset,
)

ROOT = Path(__file__).resolve().parents[3]
CONFIG = {
    **TINY,
    "epochs": 2,
    "batch_size": 1,
    "accumulate_batches": 2,
    "augmentation": [{"name": "HorizontalFlip"}, {"name": "MixUp", "probability": 0.5}],
    "ema_decay": 0.9,
}
# Ends early: scores stay at nothing.
HARD = {
    **CONFIG,
    "epochs": 6,
    "phases": [{**STAGED[0], "epochs": 1}, {**STAGED[1], "epochs": 1}, {**STAGED[2], "epochs": 4}],
    "progressive_sizes": [96, 64],
    "patience": 1,
    "optimizer": "sgd",
}
NUM_TRAIN = 5  # the last step of an epoch has one batch: rank 1 has none
NUM_VALID = 5


def train_alone(folder: Path, construct, config=CONFIG) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Weights and events of one process."""
    snapshot = tiny_snapshot(folder, num_train=NUM_TRAIN, num_valid=NUM_VALID)
    events, threads = [], torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "construct", construct)
        torch.set_num_threads(1)
        try:
            train(parse_config(config), snapshot, folder / "run", RunContext(events.append))
        finally:
            torch.set_num_threads(threads)
    shown = [str(event) for event in events if isinstance(event, Metrics) and event.split != "system"]
    return load_checkpoint(folder / "run" / "last.pt").tensors, shown


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    _, events = train_alone(folder, construct_tiny, HARD)
    return folder, events


def start(folder: Path, fault: str = "", deaths: tuple = (), model: str = "plain", **changes: object) -> dict[str, str]:
    """Train in two processes, begun again after each of the ``deaths``; returns how each ended."""
    write_tiny_dataset(folder, num_train=NUM_TRAIN, num_valid=NUM_VALID)
    (folder / "config.json").write_text(parse_config({**CONFIG, "processes": 2, **changes}).model_dump_json())
    run_in_two_processes("rank_process.py", str(folder), model, fault, *deaths, restarts=len(deaths))
    return {path.name: path.read_text() for path in folder.glob("ended *")}


def run_in_two_processes(script: str, *arguments: str, restarts: int = 0) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", str(restarts), str(Path(__file__).with_name(script)), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def shown_by(folder: Path) -> list[str]:
    return [line for line in (folder / "events").read_text().splitlines() if line.startswith("Metrics")]


def state_of(folder: Path) -> dict[str, str]:
    """Digests of all that a run has come to, apart from seconds, the last dice, and how many processes it had."""
    state = torch.load(folder / "run" / "last.pt", weights_only=True)
    progress = json.loads(state.pop("progress_json"))
    for name in ("config_json", "random_states"):
        del state[name]
    for name in ("judge", "elapsed_s", "arithmetic", "dataset_sha256"):
        del progress[name]
    del state["kept_sha256"]  # of files with the number of processes in them
    best = {path.name: load_checkpoint(path).tensors for path in (folder / "run").glob("epoch_*.pt")}
    return {name: digest_of(value) for name, value in {**state, **progress, **best}.items()}


def test_two_processes_equal_the_accumulation_of_their_batches_to_the_bit(alone, tmp_path):
    """With phases, sizes, averaged weights, and an early end."""
    folder, events = alone
    assert start(tmp_path, **HARD) == {"ended 0": "done", "ended 1": "done"}
    assert state_of(tmp_path) == state_of(folder)
    assert load_checkpoint(tmp_path / "run" / "last.pt").epoch < HARD["epochs"]
    assert shown_by(tmp_path) == events  # losses, and what all validation images together score; each only once


def test_batch_norm_differs_in_its_running_statistics_only(tmp_path):
    """They follow from the batches one after the other, which ranks do not see; no weight follows from them."""
    (tmp_path / "alone").mkdir()
    (tmp_path / "ranks").mkdir()
    weights, events = train_alone(tmp_path / "alone", construct_tiny_with_batch_norm)
    assert start(tmp_path / "ranks", model="batch norm", processes=0) == {"ended 0": "done", "ended 1": "done"}
    tensors = load_checkpoint(tmp_path / "ranks" / "run" / "last.pt").tensors
    assert tensors.keys() == weights.keys()
    differing = {name for name, value in weights.items() if not torch.equal(tensors[name], value)}
    of_norms = ("running_mean", "running_var", "num_batches_tracked")
    assert differing == {name for name in weights if name.endswith(of_norms)}
    assert [line for line in shown_by(tmp_path / "ranks") if "'train'" in line] == [
        line for line in events if "'train'" in line
    ]


def test_killed_process_takes_the_others_along_and_all_go_on_to_the_same_state(alone, tmp_path):
    """First one, then the other, between two batches of a step, one of which the other has seen."""
    assert start(tmp_path, deaths=("1:4", "0:7"), **HARD) == {"ended 0": "done", "ended 1": "done"}
    steps = [int(step) for step in re.findall(r"Going on after step (\d+)", (tmp_path / "events").read_text())]
    assert steps[0] in (3, 4) and steps[1] in (9, 10)  # the newest may not have been in place
    assert len(steps) == 2
    assert state_of(tmp_path) == state_of(alone[0])


def test_error_of_one_process_ends_all_with_its_words(tmp_path):
    words = "RuntimeError: no such layer"
    assert start(tmp_path, "broken") == {"ended 0": words, "ended 1": words}


def test_trouble_of_one_process_is_mended_in_all(tmp_path):
    assert start(tmp_path, "not finite") == {"ended 0": "done", "ended 1": "done"}
    told = [line for line in (tmp_path / "events").read_text().splitlines() if "going back to" in line]
    assert len(told) == 1
    assert "0.5 of the learning rate" in told[0]


def test_memory_that_one_process_lacks_outside_its_batches_is_relieved_in_all(tmp_path):
    """In setting up the exchange of gradients, and in the optimizer's step: the others wait for it, or are ahead."""
    assert start(tmp_path, "memory", batch_size=4) == {"ended 0": "done", "ended 1": "done"}
    told = re.findall(r"Out of memory.*?from here on \w+ images", (tmp_path / "events").read_text())
    assert len(told) == 2


def test_different_trouble_of_two_processes_has_one_remedy(tmp_path):
    assert start(tmp_path, "two at once") == {"ended 0": "done", "ended 1": "done"}
    assert len(warnings_in(tmp_path)) == 1
    assert "0.5 of the learning rate" in warnings_in(tmp_path)[0]


def test_what_comes_of_a_gradient_names_all_images_once_and_rank_0_failing_alone_ends_all(tmp_path):
    """Spoiled in a step of which rank 1 has no batch; later the events find the disk full, outside of any meeting."""
    full = "OSError: [Errno 28] No space left on device"
    assert start(tmp_path, "gradient") == {"ended 0": full, "ended 1": full}
    assert len(warnings_in(tmp_path)) == 1
    assert re.search(r"gradient became nan on a batch of \S+\.\w+: going back", warnings_in(tmp_path)[0])


def warnings_in(folder: Path) -> list[str]:
    return [line for line in (folder / "events").read_text().splitlines() if "'warning'" in line]


def test_stop_is_agreed_upon_and_saved(tmp_path):
    assert start(tmp_path, "stopped") == {"ended 0": "stopped", "ended 1": "stopped"}
    assert load_checkpoint(tmp_path / "run" / "last.pt").step == 3


def test_other_number_of_processes_than_asked_for_is_refused(tmp_path, monkeypatch):
    snapshot = tiny_snapshot(tmp_path)
    config = parse_config({**CONFIG, "processes": 2})
    with pytest.raises(MachineError, match=r"processes is 2, but 1 was started.*torchrun --nproc-per-node 2"):
        train(config, snapshot, tmp_path / "run")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MachineError, match="processes is 1, but 2 were started"):
        train(parse_config(CONFIG), snapshot, tmp_path / "run")
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv("ANCHORAGE_PROCESSES", "2")  # what a job has made of 0
    with pytest.raises(MachineError, match=r"processes is 2 \(chosen for 0\), but 1 was started"):
        train(parse_config({**CONFIG, "processes": 0}), snapshot, tmp_path / "run")


def test_batches_of_a_step_must_be_shared_evenly():
    with pytest.raises(ConfigError, match=r"accumulate_batches: must be a multiple of processes.* got 3 for 2"):
        parse_config({"processes": 2, "accumulate_batches": 3})


def test_gradients_are_those_of_one_process_whatever_parts_of_the_model_each_uses():
    run_in_two_processes("gradient_process.py")


def test_statistics_of_batch_norm_become_their_mean_and_frozen_ones_stay(monkeypatch):
    model = nn.Sequential(nn.BatchNorm2d(2), nn.GroupNorm(1, 2))
    model[0].running_mean.copy_(torch.tensor([1.0, 2]))
    other = torch.tensor([3.0, 2, 1, 7])
    monkeypatch.setattr("app.pipeline.train.ranks.dist.all_reduce", lambda flat: flat.add_(other))
    Ranks(0, 2).average_statistics(model)
    np.testing.assert_array_equal(model[0].running_mean, [2, 2])
    np.testing.assert_array_equal(model[0].running_var, [1, 4])


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_share_the_batches_of_every_step(tmp_path, count):
    config = parse_config({**CONFIG, "accumulate_batches": count, "batch_size": 1})
    samples = tiny_snapshot(tmp_path, num_train=7).split("train")

    def steps(rank, of):
        images = ResizedImages(64)
        with TrainLoader(samples, 2, config, images, RunContext(), ranks=Ranks(rank, of)) as loader:
            return [[batch.names for batch in step] for number in (1, 2) for step in loader.steps(number)]

    whole = steps(0, 1)
    shares = [steps(rank, count) for rank in range(count)]
    assert [[*sum(parts, [])] for parts in zip(*shares, strict=True)] == whole


def test_lines_about_images_that_another_process_skips_reach_the_log():
    told = []
    first, second = Ranks(0, 2), Ranks(1, 2)
    both, alone = Log("Out of memory", "warning"), Log("Skipped: image 3", "warning")
    first.context_for(RunContext(told.append)).emit(both)
    for log in (both, alone):
        second.context_for(RunContext()).emit(log)
    first.gather = lambda what, own: [own, (None, False, second._logs)]
    with first.together():
        pass
    assert told == [both, alone]


def test_what_another_process_told_is_not_told_again():
    told, log = [], Log("Skipped: image 3", "warning")
    first = Ranks(0, 2)
    context = first.context_for(RunContext(told.append))
    first.gather = lambda what, own: [own, (None, False, [log])]
    with first.together():
        pass
    context.emit(log)
    assert told == [log]


def test_failing_to_tell_is_heard_of_at_the_next_meeting_or_where_another_thread_is_waited_for():
    def fail(event):
        raise OSError("full")

    ranks = Ranks(0, 2)
    ranks.gather = lambda what, own: [own, (None, False, [])]
    context = ranks.context_for(RunContext(fail))
    context.emit(Log("one"))
    with pytest.raises(OSError, match="full"), ranks.together():
        pass
    with ranks.together():
        pass
    with ThreadPoolExecutor(1) as thread, pytest.raises(OSError, match="full"):
        thread.submit(context.emit, Log("two")).result()
    with ranks.together():
        pass


def test_other_number_of_processes_is_said():
    machine = choose_machine("cpu", "float32")
    one, two = (describe_arithmetic(machine, count) for count in (1, 2))
    assert two == one.replace("float32, ", "float32, 2 processes, ")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_more_processes_than_gpus_is_refused_in_every_process(monkeypatch, rank):
    """If only the one without a GPU left, the first would wait for it, and nobody would say why."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MachineError, match="2 processes were started, but GPUs here: 1"), Ranks.joined(2):
        pass
