"""The worker and its jobs as real processes, and what happens when one of them dies."""

import os
import signal
import time

import psutil
import pytest

from app.jobs import queue
from app.jobs.locks import is_held
from app.jobs.logs import read_log
from app.jobs.worker import POLL_S
from app.store import jobs, runs
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
    assert [item.job.id for item in queue.settle_orphans_if_no_worker(lab.workspace)] == [job.id]
    assert lab.job(job).state == "interrupted"


def test_running_job_is_no_orphan(lab: Lab) -> None:
    job = lab.enqueue("patient")
    worker = lab.start_worker()
    lab.pid_of_started()
    assert queue.settle_orphans_if_no_worker(lab.workspace) == []  # the worker holds the workspace
    assert queue.settle_orphans(lab.workspace) == []  # the job holds its lock
    assert lab.job(job).state == "running"
    assert worker.poll() is None


def test_trainings_wait_for_each_other_and_short_work_does_not(lab: Lab) -> None:
    first, second = (lab.enqueue("train", steps=10**6, pause_s=0.02) for _ in range(2))
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


def test_training_that_was_killed_goes_on_by_itself(lab: Lab) -> None:
    job = lab.enqueue("train", steps=9, dies_after=[4, 7])
    lab.start_worker()
    ended = lab.wait_for_end(job)
    assert (ended.state, ended.result, ended.attempt, ended.num_deaths) == ("done", {"count": 9}, 3, 2)
    told = [line for line in lab.files.job_log(job.id).read_text().splitlines() if "The process died" in line]
    assert [line.partition("WARNING ")[2].partition(". ")[0] for line in told] == [
        "The process died after step 4; beginning again, attempt 2",
        "The process died after step 7; beginning again, attempt 3",
    ]


def test_deaths_count_from_the_newest_saved_state(lab: Lab) -> None:
    """Five power cuts in the life of a run do not end it, as long as it gets on between them."""
    job = lab.enqueue_run(steps=9, dies_after=[2, 3, 5, 6, 8])
    lab.start_worker()
    ended = lab.wait_for_end(job)
    assert (ended.state, ended.result, ended.attempt, ended.num_deaths) == ("done", {"count": 9}, 6, 0)
    assert "The process died after step 3; going on from step 2, attempt 3. Its process was" in read_log(
        lab.files, job.id
    )


def test_three_deaths_without_a_newer_state_end_a_run_with_saved_ones_too(lab: Lab) -> None:
    job = lab.enqueue_run(steps=9, dies_after=[1])
    with lab.database.write() as db:
        db.execute("UPDATE job SET num_deaths = 2")
        runs.put_checkpoint(
            db, 1, epoch=0, step=5, file_name="last.pt", sha256="", map50=None, f1=None, score=None, is_last=True
        )
    lab.start_worker()
    assert "3 attempts in a row died" in lab.wait_for_end(job).error


def test_run_that_died_with_its_worker_is_failed_with_the_tail_of_its_log_too(lab: Lab) -> None:
    job = lab.enqueue("train", steps=10**6, pause_s=0.02)
    worker = lab.start_worker()
    pid = lab.pid_of_started()
    with lab.database.write() as db:
        db.execute("UPDATE job SET num_deaths = 2")
    worker.kill()
    os.kill(pid, signal.SIGKILL)
    worker.wait(5)
    wait_until(lambda: not is_held(lab.files.job_lock(job.id)), "the lock to be freed")
    queue.settle_orphans_if_no_worker(lab.workspace)
    ended = lab.job(job)
    assert ended.state == "failed"
    assert "The process that ran it died" in ended.error
    assert f"job {job.id} (train), attempt 1" in ended.error


def test_step_of_an_earlier_attempt_is_not_taken_for_that_of_one_that_had_none(lab: Lab) -> None:
    """Killed while it still loads torch, after a death at step 5: that is not twice at the same step."""
    job = lab.enqueue("train", steps=9, dies_after=[5], dies_at_start=True)
    lab.start_worker()
    assert lab.wait_for_end(job).state == "done"
    assert "The process died before its first step" in read_log(lab.files, job.id)


def test_after_three_dead_attempts_a_training_is_failed_with_the_tail_of_its_log(lab: Lab) -> None:
    job = lab.enqueue("train", steps=9, dies_after=[2, 4, 6, 8])
    lab.start_worker()
    ended = lab.wait_for_end(job)
    assert (ended.state, ended.attempt) == ("failed", 3)
    assert "3 attempts in a row died without saving anything new. Its process was killed (SIGKILL)" in ended.error
    assert f"job {job.id} (train), attempt 3" in ended.error
    jobs.start_again(lab.database, job.id, ["failed"])
    assert lab.wait_for_end(job).result == {"count": 9}


def test_death_of_a_signal_twice_at_the_same_step_is_a_failure_that_says_so(lab: Lab) -> None:
    job = lab.enqueue("train", steps=9, dies_after=[5, 5])
    lab.start_worker()
    ended = lab.wait_for_end(job)
    assert (ended.state, ended.attempt) == ("failed", 2)
    assert "died twice at the same step, after step 5" in ended.error


def test_paused_training_leaves_at_a_safe_point_and_goes_on_when_it_is_resumed(lab: Lab) -> None:
    job = lab.enqueue("train", steps=60, pause_s=0.02)
    lab.start_worker()
    lab.pid_of_started()
    jobs.request_stop(lab.database, job.id, "paused")
    wait_until(lambda: lab.job(job).state == "paused", "the pause")
    assert 0 <= lab.job(job).result["count"] < 60
    jobs.start_again(lab.database, job.id, ["paused"])
    ended = lab.wait_for_end(job)
    assert (ended.state, ended.attempt, ended.num_deaths) == ("done", 2, 0)


def test_training_of_a_killed_worker_waits_for_the_next_one(lab: Lab) -> None:
    job = lab.enqueue("train", steps=100, pause_s=0.02)
    worker = lab.start_worker()
    lab.pid_of_started()
    worker.kill()
    worker.wait(5)
    wait_until(lambda: lab.job(job).state == "queued", "the job to leave")
    lab.start_worker()
    ended = lab.wait_for_end(job)
    assert (ended.state, ended.attempt, ended.num_deaths) == ("done", 2, 0)


def test_training_that_died_with_its_worker_goes_on_under_the_next_one(lab: Lab) -> None:
    job = lab.enqueue("train", steps=100, pause_s=0.02)
    worker = lab.start_worker()
    pid = lab.pid_of_started()
    worker.kill()
    os.kill(pid, signal.SIGKILL)
    worker.wait(5)
    lab.start_worker()
    ended = lab.wait_for_end(job)
    assert (ended.state, ended.attempt, ended.num_deaths) == ("done", 2, 1)


def test_machine_that_shuts_down_lets_a_training_save(lab: Lab) -> None:
    """SIGTERM, as systems send it before they kill."""
    job = lab.enqueue("train", steps=100, pause_s=0.02)
    lab.start_worker()
    os.kill(lab.pid_of_started(), signal.SIGTERM)
    ended = lab.wait_for_end(job)
    assert (ended.state, ended.attempt, ended.num_deaths) == ("done", 2, 0)


def test_two_gpus_take_two_trainings_each_with_its_own(lab: Lab) -> None:
    three = [lab.enqueue("train", steps=10**6, pause_s=0.02) for _ in range(3)]
    lab.start_worker(gpus=("3", "GPU-b"))
    paths = [lab.workspace.root / f"gpu-{job.id}" for job in three]
    wait_until(lambda: all(path.exists() and path.read_text() for path in paths[:2]), "two to start")
    assert {path.read_text() for path in paths[:2]} == {"3", "GPU-b"}
    assert lab.job(three[2]).state == "queued"
    freed = paths[0].read_text()
    jobs.request_stop(lab.database, three[0].id)
    wait_until(lambda: paths[2].exists() and paths[2].read_text(), "the third to start")
    assert paths[2].read_text() == freed
    for job in three[1:]:
        jobs.request_stop(lab.database, job.id)
    for job in three:
        lab.wait_for_end(job)


def test_training_of_several_processes_waits_for_all_gpus_and_is_not_overtaken(lab: Lab) -> None:
    first = lab.enqueue("train", steps=10**6, pause_s=0.02)
    lab.start_worker(gpus=("0", "1"))
    paths = {first.id: lab.workspace.root / f"gpu-{first.id}"}
    wait_until(lambda: paths[first.id].exists() and paths[first.id].read_text(), "the first to start")
    several = lab.enqueue("train", steps=1, pause_s=0.5, processes=2)
    behind = lab.enqueue("train", steps=1)
    time.sleep(1)
    assert [lab.job(job).state for job in (several, behind)] == ["queued", "queued"]
    jobs.request_stop(lab.database, first.id)
    for job in (several, behind):
        lab.wait_for_end(job)
    seen = (lab.workspace.root / f"gpu-{several.id}").read_text()
    assert seen == os.environ.get("CUDA_VISIBLE_DEVICES", "none")  # all that there are
    assert lab.job(behind).started_at > lab.job(several).started_at + 0.5  # its pause


def test_with_one_gpu_a_job_sees_what_there_is(lab: Lab) -> None:
    job = lab.enqueue("train", steps=1)
    lab.start_worker(gpus=("0",))
    lab.wait_for_end(job)
    assert (lab.workspace.root / f"gpu-{job.id}").read_text() == os.environ.get("CUDA_VISIBLE_DEVICES", "none")


def test_queue_follows_the_rank(lab: Lab) -> None:
    first, second = (lab.enqueue("train", steps=1) for _ in range(2))
    jobs.set_rank(lab.database, second.id, first.rank - 1)
    lab.start_worker()
    lab.wait_for_end(first)
    assert lab.job(second).started_at < lab.job(first).started_at


def test_hung_job_is_flagged_and_can_be_ended(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process lives and does nothing; the worker says so after a silence that the test makes short."""
    monkeypatch.setenv("TEST_HUNG_AFTER_S", "0.5")
    job = lab.enqueue("stubborn")
    lab.start_worker()
    lab.pid_of_started()
    wait_until(lambda: lab.job(job).hung, "the job to be flagged")
    assert lab.job(job).state == "running"
    assert "No sign of life" in lab.job(job).hung
    wait_until(lambda: "No sign of life" in read_log(lab.files, job.id), "its log to tell")
    time.sleep(8 * POLL_S)  # the worker looks on and on
    assert read_log(lab.files, job.id).count("WARNING No sign of life") <= 2  # a slow start is a silence of its own
    jobs.request_stop(lab.database, job.id)
    ended = lab.wait_for_end(job)
    assert (ended.state, ended.hung) == ("cancelled", "")


def test_hung_job_is_left_alone_where_the_flag_is_switched_off(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_HUNG_AFTER_S", "0.3")
    job, other = lab.enqueue("stubborn", flag_when_hung=False), lab.enqueue_run(steps=1, pause_s=1.5)
    lab.start_worker()
    lab.pid_of_started()
    lab.wait_for_end(other)
    assert lab.job(job).hung == ""
    assert "No sign of life" not in read_log(lab.files, job.id)
    assert "No sign of life" in read_log(lab.files, other.id)  # in the same time
