"""The worker and its jobs as real processes, and what happens when one of them dies."""

import os
import signal
import time

import psutil
import pytest

from app.jobs import queue
from app.jobs.locks import is_held
from app.jobs.logs import read_log
from app.store import jobs
from tests.jobs.job_lab import Lab, wait_until

pytestmark = pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")


def test_job_runs_to_its_end_and_keeps_its_result(lab: Lab) -> None:
    job = lab.enqueue("quick", value=7)
    lab.start_worker()
    ended = lab.wait_for_end(job)
    assert (ended.state, ended.result, ended.error, ended.attempt) == ("done", {"made": 7}, "", 1)
    assert ended.progress["message"] == "made"
    assert "done" in read_log(lab.files, job.id)


def test_idle_worker_leaves_and_frees_the_workspace(lab: Lab) -> None:
    job = lab.enqueue("quick", value=1)
    worker = lab.start_worker(idle_s=0.6)
    assert worker.wait(25) == 0
    assert lab.job(job).state == "done"
    assert not is_held(queue.worker_lock_path(lab.workspace))


def test_second_worker_leaves_at_once(lab: Lab) -> None:
    lab.enqueue("patient")
    lab.start_worker()
    lab.pid_of_started()
    assert lab.start_worker().wait(15) == 9


@pytest.mark.parametrize(
    ("kind", "reason", "why"),
    [
        ("crashing", "RuntimeError: the shape is wrong", "an exception is named"),
        ("refusing", "The file is empty. Choose another.", "words for the user stay as they are"),
        ("dying", "crashed (SIGSEGV)", "a native crash is told by the worker"),
        ("unheard", "no work of the kind 'unheard'", "a kind nobody knows"),
    ],
)
def test_failure_says_its_reason(lab: Lab, kind: str, reason: str, why: str) -> None:
    job = lab.enqueue(kind)
    lab.start_worker()
    ended = lab.wait_for_end(job)
    assert ended.state == "failed", why
    assert reason in ended.error, why


def test_refusal_of_the_pipeline_is_logged_without_a_trace(lab: Lab) -> None:
    job = lab.enqueue("disagreeing")
    lab.start_worker()
    assert lab.wait_for_end(job).error == "Epochs must be at least 1"
    log = lab.files.job_log(job.id).read_text()
    assert "Epochs must be at least 1" in log
    assert "Traceback" not in log


def test_native_crash_keeps_the_tail_of_what_was_printed(lab: Lab) -> None:
    job = lab.enqueue("dying")
    lab.start_worker()
    assert "last words" in lab.wait_for_end(job).error


def test_cancelled_job_leaves_by_itself_with_a_checkpoint(lab: Lab) -> None:
    job = lab.enqueue("patient")
    lab.start_worker()
    lab.pid_of_started()
    began = time.monotonic()
    jobs.request_stop(lab.database, job.id)
    ended = lab.wait_for_end(job)
    assert (ended.state, ended.result) == ("cancelled", {"kept": "checkpoint"})
    assert time.monotonic() - began < 5
    assert (lab.workspace.root / "checkpoint").read_text() == "cancelled"


def test_job_that_does_not_listen_is_killed_within_ten_seconds(lab: Lab) -> None:
    job = lab.enqueue("stubborn")
    lab.start_worker()
    pid = lab.pid_of_started()
    began = time.monotonic()
    jobs.request_stop(lab.database, job.id)
    ended = lab.wait_for_end(job)
    assert ended.state == "cancelled"
    assert time.monotonic() - began < 10
    assert not psutil.pid_exists(pid)


def test_killed_job_is_failed_by_the_worker(lab: Lab) -> None:
    job = lab.enqueue("patient")
    lab.start_worker()
    os.kill(lab.pid_of_started(), signal.SIGKILL)
    ended = lab.wait_for_end(job)
    assert ended.state == "failed"
    assert "killed (SIGKILL)" in ended.error


def test_job_of_a_killed_worker_leaves_with_a_checkpoint(lab: Lab) -> None:
    job = lab.enqueue("patient")
    worker = lab.start_worker()
    lab.pid_of_started()
    worker.kill()
    worker.wait(5)
    ended = lab.wait_for_end(job)
    assert ended.state == "interrupted"
    assert (lab.workspace.root / "checkpoint").read_text() == "interrupted"


def test_job_whose_worker_and_process_died_is_found_at_the_next_launch(lab: Lab) -> None:
    job = lab.enqueue("stubborn")
    worker = lab.start_worker()
    pid = lab.pid_of_started()
    worker.kill()
    os.kill(pid, signal.SIGKILL)
    worker.wait(5)
    wait_until(lambda: not is_held(lab.files.job_lock(job.id)), "the lock to be freed")
    assert lab.job(job).state == "running"
    assert [item.job.id for item in queue.interrupt_orphans_if_no_worker(lab.workspace)] == [job.id]
    assert lab.job(job).state == "interrupted"


def test_running_job_is_no_orphan(lab: Lab) -> None:
    job = lab.enqueue("patient")
    worker = lab.start_worker()
    lab.pid_of_started()
    assert queue.interrupt_orphans_if_no_worker(lab.workspace) == []  # the worker holds the workspace
    assert queue.interrupt_orphans(lab.workspace) == []  # the job holds its lock
    assert lab.job(job).state == "running"
    assert worker.poll() is None


def test_trainings_wait_for_each_other_and_short_work_does_not(lab: Lab) -> None:
    first, second = lab.enqueue("train"), lab.enqueue("train")
    lab.start_worker()
    lab.pid_of_started()
    short = lab.enqueue("quick", value=2)
    assert lab.wait_for_end(short).state == "done"
    assert (lab.job(first).state, lab.job(second).state) == ("running", "queued")


def test_heartbeat_names_the_process_and_moves_on(lab: Lab) -> None:
    job = lab.enqueue("patient")
    lab.start_worker()
    pid = lab.pid_of_started()
    wait_until(lambda: lab.job(job).pid == pid, "the heartbeat")
    first = lab.job(job).heartbeat_at
    wait_until(lambda: lab.job(job).heartbeat_at > first, "the next heartbeat")


def test_hung_job_shows_no_heartbeat(lab: Lab) -> None:
    job = lab.enqueue("stubborn")
    lab.start_worker()
    pid = lab.pid_of_started()
    wait_until(lambda: lab.job(job).pid == pid, "the first heartbeat")
    first = lab.job(job).heartbeat_at
    time.sleep(2.5)  # more than two heartbeats: what is waited for here is that nothing comes
    assert lab.job(job).heartbeat_at == first


def test_job_whose_attempt_is_over_writes_nothing(lab: Lab) -> None:
    job = lab.enqueue("patient")
    lab.start_worker()
    pid = lab.pid_of_started()
    with lab.database.write() as db:
        db.execute("UPDATE job SET attempt = attempt + 1 WHERE id = ?", [job.id])
    wait_until(lambda: not is_held(lab.files.job_lock(job.id)), "the stale job to leave")
    wait_until(lambda: not psutil.pid_exists(pid), "its process to end")
    now = lab.job(job)
    assert (now.result, now.error, now.attempt) == ({}, "", 2)


def test_job_outlives_the_app_that_asked_for_it(lab: Lab) -> None:
    """The app may die or be killed at any time: worker and job are in sessions of their own."""
    lab.enqueue("patient")
    worker = lab.start_worker()
    pid = lab.pid_of_started()
    assert len({os.getsid(0), os.getsid(worker.pid), os.getsid(pid)}) == 3


def test_job_inherits_no_open_files_of_the_worker(lab: Lab) -> None:
    lab.enqueue("patient")
    lab.start_worker()
    paths = {file.path for file in psutil.Process(lab.pid_of_started()).open_files()}
    assert str(queue.worker_lock_path(lab.workspace)) not in paths
