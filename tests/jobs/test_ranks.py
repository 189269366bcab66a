"""Trainings in several processes: how many there are, and what their end means."""

import subprocess
import sys

import pytest

from app.jobs import ranks
from app.jobs.main import LEFT, PEER_DIED
from app.pipeline.config import parse_config
from app.services import job_process
from app.store import jobs
from tests.jobs.job_lab import Lab


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


@pytest.mark.parametrize(
    ("options", "num_gpus", "count"),
    [
        ({}, 4, 1),
        ({"processes": 2, "accumulate_batches": 4}, 0, 2),
        ({"processes": 0, "accumulate_batches": 4}, 4, 4),
        ({"processes": 0, "accumulate_batches": 4}, 3, 2),
        ({"processes": 0, "accumulate_batches": 1}, 8, 1),
        ({"processes": 0, "accumulate_batches": 8}, 0, 1),
        ({"processes": 0, "accumulate_batches": 8, "device": "cpu"}, 8, 1),
    ],
    ids=["default", "as asked", "all", "that share evenly", "one batch", "no GPU", "on the CPU"],
)
def test_zero_takes_as_many_gpus_as_share_the_batches_evenly(options, num_gpus, count):
    assert ranks.resolve_processes(parse_config(options), num_gpus) == count


def write_config(lab: Lab, **options):
    folder = lab.files.run(1)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(parse_config(options).model_dump_json())


def test_only_trainings_have_several_processes(lab):
    write_config(lab, processes=2, accumulate_batches=2, device="cpu")
    training, other = lab.enqueue("train", run_id=1), lab.enqueue("predict", run_id=1)
    assert ranks.count_processes(lab.workspace, "demo", training.id) == 2
    assert ranks.count_processes(lab.workspace, "demo", other.id) == 1
    (lab.files.run(1) / "config.json").write_text("{")
    assert ranks.count_processes(lab.workspace, "demo", training.id) == 1  # it will say what is wrong


@pytest.mark.parametrize(
    ("code", "state", "expected"),
    [(0, "done", 0), (0, "queued", LEFT), (1, "running", 1), (1, "queued", 1)],
    ids=["done", "left at a safe point", "one died", "one died and is queued again"],
)
def test_the_waiting_process_tells_how_the_others_ended(lab, monkeypatch, code, state, expected):
    job = lab.enqueue("train", run_id=1)
    if state != "queued":
        claimed = jobs.claim(lab.database, job.id)
        if state == "done":
            jobs.finish(lab.database, job.id, claimed.attempt, "done", {})
    commands = []

    def run(command, env, check):
        commands.append((command, env["OMP_NUM_THREADS"], env["ANCHORAGE_PROCESSES"]))
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(ranks.subprocess, "run", run)
    monkeypatch.setattr(ranks.signal, "signal", lambda *_: None)
    monkeypatch.setattr(ranks.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert ranks.run_ranks(lab.workspace, "demo", job.id, 2, "a.module", ["job", "--x"]) == expected
    command, threads, told = commands[0]
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert command[-6:] == ["--nproc-per-node", "2", "-m", "a.module", "job", "--x"]
    assert (threads, told) == ("4", "2")  # what each of them asserts, also where the config leaves it open


@pytest.mark.parametrize(
    ("rank", "code", "expected"), [(0, LEFT, 0), (0, 1, 0), (0, PEER_DIED, PEER_DIED), (1, 0, 0), (1, PEER_DIED, 5)]
)
def test_only_a_death_among_the_processes_is_one_for_those_who_started_them(
    tmp_path, monkeypatch, rank, code, expected
):
    """An end that is written down (failed, cancelled, queued to go on) must not be begun again."""
    called = []
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setattr(job_process, "run_job", lambda *_: called.append("run") or code)
    monkeypatch.setattr(job_process, "follow_training", lambda *_: called.append("follow") or code)
    monkeypatch.setattr(job_process, "ensure_worker", lambda _: called.append("worker"))
    words = ["job", "--projects", str(tmp_path), "--project", "demo", "--job", "1", "--attempt", "1"]
    assert job_process.main(words) == expected
    assert called == ["run" if rank == 0 else "follow"]
