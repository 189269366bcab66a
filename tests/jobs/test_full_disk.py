"""A training whose disk is full, from the pipeline's end or the database's, and what its row says afterwards."""

import errno
import threading
import time
from threading import Event
from types import SimpleNamespace

import pytest
import torch

from app.jobs import context as context_module
from app.jobs import main
from app.jobs.context import JobContext
from app.pipeline import faults
from app.pipeline.config import parse_config
from app.pipeline.models import build
from app.pipeline.train import checkpoint
from app.pipeline.train.checkpoint import CheckpointError, check_free_space
from app.pipeline.types import Metrics, RunPaused
from app.store import jobs, runs
from app.store.database import sqlite3
from tests.pipeline.train.tiny_dataset import TINY, construct_tiny, write_tiny_dataset

torch_loop = pytest.importorskip("app.pipeline.train.loop")
FULL = sqlite3.OperationalError("database or disk is full")
HANDLERS = {"train": "app.jobs.handlers:train"}


@pytest.fixture
def queued(lab, monkeypatch):
    """Queue the job of a run; returns it with its folder, which has no dataset yet."""
    monkeypatch.setattr(main, "_log_to", lambda path: None)
    monkeypatch.setattr(main.signal, "signal", lambda *rest: None)
    monkeypatch.setattr(JobContext, "_watch_worker", lambda self: None)

    def queue(**options):
        with lab.database.write() as db:
            job = jobs.enqueue(db, "train", {})
            jobs.set_payload(db, job.id, {"run_id": runs.create_run(db, job.id, "", {})})
        folder = lab.files.run(1)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(parse_config(options).model_dump_json())
        return job, folder

    return queue


@pytest.fixture
def carry_out(lab):
    """Do a queued job in this process; returns its exit status and the job's row."""

    def run(job):
        claimed = jobs.claim(lab.database, job.id)
        code = main.run_job(lab.workspace, "demo", job.id, claimed.attempt, HANDLERS)
        return code, jobs.get_job(lab.database, job.id)

    return run


@pytest.fixture
def run_with(queued, carry_out, monkeypatch):
    """Do the job of a run whose training is ``work(context)``."""

    def run(work, **options):
        job, folder = queued(**options)
        (folder / "dataset.json").write_text('{"images": [], "annotations": [], "categories": []}')
        monkeypatch.setattr(torch_loop, "train", lambda config, snapshot, run_dir, context, *rest: work(context))
        return carry_out(job)

    return run


def test_checkpoint_that_does_not_fit_pauses_the_run(run_with):
    def work(context):
        raise RunPaused("the disk is full: last.pt could not be written")

    code, job = run_with(work)
    assert (code, job.state, job.error) == (0, "paused", "The disk is full: last.pt could not be written")


def test_numbers_that_do_not_fit_pause_the_run_at_the_cost_of_the_reserve(run_with, lab, monkeypatch):
    """No write succeeds while the reserve is there, as on a real disk."""
    write = jobs.fenced_write

    def full(database, *rest):
        if lab.files.reserve.exists():
            raise FULL
        return write(database, *rest)

    def work(context):
        assert lab.files.reserve.stat().st_size > 1_000_000
        context.emit(Metrics(1, 1, "train", {"loss": 1.0}))
        monkeypatch.setattr(jobs, "fenced_write", full)
        return  # what was told is written down now, and finds no room

    code, job = run_with(work)
    assert (code, job.state) == (0, "paused")
    assert job.error.startswith("The disk is full (database or disk is full). Make room")
    assert not lab.files.reserve.exists()


def test_log_of_a_run_on_a_full_disk_has_one_plain_sentence(run_with, lab, monkeypatch, caplog):
    """SQLite cannot even read then, and says so by another error; the pulse finds that out again and again."""
    monkeypatch.setattr(context_module, "CHECK_EVERY_S", 0.01)
    pulses, is_full = [], Event()
    read = jobs.get_job

    def get_job(*rest):
        if is_full.is_set():
            pulses.append(1)
            raise sqlite3.OperationalError("disk I/O error")
        return read(*rest)

    def work(context):
        monkeypatch.setattr(faults.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
        is_full.set()
        deadline = time.monotonic() + 20
        while len(pulses) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        get_job()

    monkeypatch.setattr(jobs, "get_job", get_job)
    finish = JobContext.finish
    monkeypatch.setattr(JobContext, "finish", lambda *args, **rest: (is_full.clear(), finish(*args, **rest)))
    _, job = run_with(work)
    assert job.state == "paused"
    assert len(pulses) >= 3
    (told,) = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert told.getMessage() == "The disk is full (disk I/O error). Make room, then let the run go on"
    assert not any(record.exc_info for record in caplog.records)


def test_locked_file_is_told_once_in_words_and_does_not_silence_the_job(run_with, monkeypatch, caplog):
    monkeypatch.setattr(context_module, "CHECK_EVERY_S", 0.01)
    pulses, read = [], jobs.get_job

    def get_job(*rest):
        if threading.current_thread().name != "pulse" or len(pulses) >= 4:
            return read(*rest)
        pulses.append(1)
        raise sqlite3.OperationalError("database is locked")

    def work(context):
        deadline = time.monotonic() + 20
        while len(pulses) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        raise RunPaused("enough")

    monkeypatch.setattr(jobs, "get_job", get_job)
    run_with(work)
    told = [record for record in caplog.records if "Progress cannot be written" in record.getMessage()]
    assert [(record.getMessage(), bool(record.exc_info)) for record in told] == [
        ("Progress cannot be written down for now (database is locked).", False)
    ]


def test_advice_is_given_once(run_with, monkeypatch):
    monkeypatch.setattr(faults.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))

    def work(context):
        raise CheckpointError("a run of this model needs 9 MB of disk, and 0 MB are free: make room first")

    assert run_with(work)[1].error == (
        "The disk is full: a run of this model needs 9 MB of disk, and 0 MB are free: make room first"
    )


def test_run_with_too_little_room_to_begin_is_paused_though_some_is_free(run_with, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**22))

    def work(context):
        check_free_space(tmp_path, torch.nn.Linear(1000, 1000))

    code, job = run_with(work)
    assert (code, job.state) == (0, "paused")
    assert job.error.startswith("The disk is full: a run of this model needs ")


def test_run_paused_before_its_first_checkpoint_is_paused_again_until_there_is_room(
    lab, queued, carry_out, monkeypatch
):
    monkeypatch.setattr(build, "construct", construct_tiny)
    job, folder = queued(**TINY)
    write_tiny_dataset(folder)
    sentences = []
    for is_started in (True, False):  # the disk fills up under the first attempt; the next one finds too little room
        with monkeypatch.context() as patch:
            if is_started:
                patch.setattr(checkpoint.os, "fsync", lambda descriptor: fail_with(errno.ENOSPC))
            else:
                patch.setattr(checkpoint.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
            code, found = carry_out(job)
        assert (code, found.state) == (0, "paused")
        assert not list(folder.glob("*.pt"))
        sentences.append(found.error)
        jobs.start_again(lab.database, job.id, ["paused"])
    assert "could not be written to" in sentences[0]
    assert sentences[1].startswith("The disk is full: a run of this model needs ")
    assert [carry_out(job)[1].state, (folder / "last.pt").is_file()] == ["done", True]


def fail_with(number):
    raise OSError(number, "No space left on device")


def test_switched_off_it_fails(run_with):
    def work(context):
        raise OSError(errno.ENOSPC, "No space left on device")

    code, job = run_with(work, pause_when_disk_is_full=False)
    assert (code, job.state) == (1, "failed")
    assert "No space left" in job.error


def test_other_troubles_do_not_pause(run_with):
    def work(context):
        raise OSError(errno.EACCES, "Permission denied")

    assert run_with(work)[1].state == "failed"
