"""The queue's rows and their fence."""

from pathlib import Path

import pytest

from app.errors import BadRequest, NotFound
from app.store import jobs
from app.store.database import ProjectDatabase
from app.store.jobs import JobLost


@pytest.fixture
def database(tmp_path: Path) -> ProjectDatabase:
    return ProjectDatabase.create(tmp_path / "project.db")


def test_job_keeps_its_payload_and_starts_queued(database: ProjectDatabase) -> None:
    job = jobs.enqueue(database, "train", {"run_id": 3})
    assert jobs.get_job(database, job.id) == job
    assert (job.state, job.payload, job.attempt, job.is_finished) == ("queued", {"run_id": 3}, 0, False)


def test_job_of_a_rolled_back_transaction_is_not_queued(database: ProjectDatabase) -> None:
    with pytest.raises(RuntimeError), database.write() as db:
        jobs.enqueue(db, "train", {})
        raise RuntimeError
    assert jobs.list_jobs(database) == []


def test_only_one_claims_a_job(database: ProjectDatabase) -> None:
    job = jobs.enqueue(database, "train", {})
    claimed = jobs.claim(database, job.id)
    assert (claimed.state, claimed.attempt) == ("running", 1)
    assert jobs.claim(database, job.id) is None


@pytest.mark.parametrize(
    "write",
    [
        lambda database, job_id, attempt: jobs.set_progress(database, job_id, attempt, {"done": 1}),
        lambda database, job_id, attempt: jobs.heartbeat(database, job_id, attempt, 1),
        lambda database, job_id, attempt: jobs.finish(database, job_id, attempt, "done"),
        lambda database, job_id, attempt: jobs.fail(database, job_id, attempt, "x"),
    ],
    ids=["progress", "heartbeat", "finish", "fail"],
)
def test_stale_attempt_can_write_nothing(database: ProjectDatabase, write) -> None:
    job = jobs.claim(database, jobs.enqueue(database, "train", {}).id)
    with database.write() as db:
        db.execute("UPDATE job SET attempt = 2")
    before = jobs.get_job(database, job.id)
    with pytest.raises(JobLost):
        write(database, job.id, 1)
    assert jobs.get_job(database, job.id) == before
    write(database, job.id, 2)
    assert jobs.get_job(database, job.id) != before


@pytest.mark.parametrize("state", jobs.FINAL_STATES)
def test_ended_job_can_not_be_written(database: ProjectDatabase, state: str) -> None:
    job = jobs.claim(database, jobs.enqueue(database, "train", {}).id)
    jobs.finish(database, job.id, 1, state)
    with pytest.raises(JobLost):
        jobs.finish(database, job.id, 1, "done")
    assert jobs.get_job(database, job.id).state == state


def test_what_a_fenced_transaction_did_is_undone_with_it(database: ProjectDatabase) -> None:
    job = jobs.claim(database, jobs.enqueue(database, "train", {}).id)
    with pytest.raises(RuntimeError), jobs.fenced_write(database, job.id, 1) as db:
        jobs.enqueue(db, "train", {})
        raise RuntimeError
    assert len(jobs.list_jobs(database)) == 1


def test_stopping_a_queued_job_cancels_it_at_once(database: ProjectDatabase) -> None:
    job = jobs.request_stop(database, jobs.enqueue(database, "train", {}).id)
    assert job.state == "cancelled"
    assert jobs.claim(database, job.id) is None


def test_stopping_a_running_job_tells_it(database: ProjectDatabase) -> None:
    job = jobs.claim(database, jobs.enqueue(database, "train", {}).id)
    assert jobs.request_stop(database, job.id).is_stop_requested
    jobs.set_progress(database, job.id, 1, {"done": 1})  # it may still write
    assert jobs.request_stop(database, job.id).state == "stopping"  # asking twice is fine


def test_stopping_what_has_ended_or_never_was_is_refused(database: ProjectDatabase) -> None:
    job = jobs.claim(database, jobs.enqueue(database, "train", {}).id)
    jobs.finish(database, job.id, 1, "done")
    with pytest.raises(BadRequest, match="ended already"):
        jobs.request_stop(database, job.id)
    with pytest.raises(NotFound):
        jobs.request_stop(database, 99)


def test_refusals_call_a_training_by_its_run_and_any_other_job_by_its_own_number(database: ProjectDatabase) -> None:
    training = jobs.enqueue(database, "train", {"run_id": 31})
    sweep = jobs.enqueue(database, "sweep", {"run_id": 31})
    for job, name in ((training, "Run 31"), (sweep, f"Job {sweep.id}")):
        with pytest.raises(BadRequest, match=f"^{name} is queued; only"):
            jobs.start_again(database, job.id, ["failed"])
        jobs.finish(database, jobs.claim(database, job.id).id, 1, "done")
        with pytest.raises(BadRequest, match=f"^{name} has ended already"):
            jobs.request_stop(database, job.id)
        with pytest.raises(BadRequest, match=f"^{name} is done: only what waits"):
            jobs.set_rank(database, job.id, 1.0)


def test_jobs_are_listed_by_state_newest_first(database: ProjectDatabase) -> None:
    first, second = jobs.enqueue(database, "train", {}), jobs.enqueue(database, "import", {})
    jobs.claim(database, first.id)
    assert [job.id for job in jobs.list_jobs(database)] == [second.id, first.id]
    assert [job.id for job in jobs.list_jobs(database, ["running"])] == [first.id]


def test_interrupted_job_ended_with_its_last_heartbeat(database: ProjectDatabase) -> None:
    job = jobs.claim(database, jobs.enqueue(database, "train", {}).id)
    with database.write() as db:
        db.execute("UPDATE job SET heartbeat_at = 1000.0 WHERE id = ?", [job.id])
    jobs.finish(database, job.id, job.attempt, "interrupted")
    assert jobs.get_job(database, job.id).ended_at == 1000.0


def test_pause_and_cancel_of_what_waits_act_at_once(database: ProjectDatabase) -> None:
    job = jobs.enqueue(database, "train", {})
    assert jobs.request_stop(database, job.id, "paused").state == "paused"
    assert jobs.claim(database, job.id) is None
    assert jobs.request_stop(database, job.id).state == "cancelled"
    assert jobs.start_again(database, job.id, ["cancelled"]).state == "queued"
    assert jobs.claim(database, job.id).stop_as == ""


def test_cancel_wins_over_pause(database: ProjectDatabase) -> None:
    job = jobs.claim(database, jobs.enqueue(database, "train", {}).id)
    jobs.request_stop(database, job.id, "paused")
    assert jobs.request_stop(database, job.id).stop_as == "cancelled"
    with pytest.raises(BadRequest, match="being stopped"):
        jobs.request_stop(database, job.id, "paused")


def test_stop_that_was_asked_for_is_obeyed_by_a_job_that_leaves(database: ProjectDatabase) -> None:
    job = jobs.claim(database, jobs.enqueue(database, "train", {}).id)
    jobs.request_stop(database, job.id)
    jobs.requeue(database, job.id, 1)
    assert jobs.get_job(database, job.id).state == "cancelled"


def test_only_what_ended_so_is_started_again(database: ProjectDatabase) -> None:
    job = jobs.claim(database, jobs.enqueue(database, "train", {}).id)
    jobs.requeue_dead(database, job.id, 1, 7, "killed")
    again = jobs.claim(database, job.id)
    assert (again.num_deaths, again.death_step, again.rank, again.error) == (1, 7, job.rank, "")
    with pytest.raises(BadRequest, match="is running; only what is failed or stopped"):
        jobs.start_again(database, job.id, ["failed", "cancelled"])
    jobs.fail(database, job.id, 2, "x")
    last = jobs.start_again(database, job.id, ["failed"])
    assert (last.num_deaths, last.death_step, last.error, last.ended_at) == (0, None, "", None)
    assert last.rank > job.rank


def test_what_runs_is_not_moved(database: ProjectDatabase) -> None:
    job = jobs.claim(database, jobs.enqueue(database, "train", {}).id)
    with pytest.raises(BadRequest, match="only what waits"):
        jobs.set_rank(database, job.id, 0.0)
