"""The app's own worker and a job of it, as real processes."""

import time
from importlib.util import find_spec

import pytest

from app.jobs import queue
from app.jobs.locks import is_held
from app.services import importing, job_process, jobs
from app.store import images
from tests.services.export_maker import Export, picture


@pytest.fixture
def slug(services, export, tmp_path):
    return importing.import_as_new_project(services, "Cells", export.folder(tmp_path / "first"))[0]


@pytest.fixture(autouse=True)
def end_workers():
    yield
    for process in jobs._started:
        process.kill()
        process.wait(10)


def test_import_runs_in_a_process_of_its_own(services, slug, tmp_path):
    more = Export().add("train", "new.jpg", [(1, [1, 2, 30, 20])], content=picture(1)).folder(tmp_path / "more")
    job = jobs.enqueue(services, slug, "import", {"path": str(more), "options": {}})
    ended = jobs.wait_for(services, slug, job.id, timeout_s=60)
    assert (ended.state, ended.error) == ("done", "")
    with services.database(slug).read() as db:
        assert images.count(db) == 5
    assert ended.result


def test_refused_import_says_why(services, slug, tmp_path):
    path = tmp_path / "no.zip"
    path.write_bytes(b"this is no zip")
    job = jobs.enqueue(services, slug, "import", {"path": str(path)})
    ended = jobs.wait_for(services, slug, job.id, timeout_s=60)
    assert ended.state == "failed"
    assert "zip" in ended.error
    assert "Traceback" not in ended.error


def test_asking_twice_starts_one_worker(services, slug):
    jobs.ensure_worker(services)
    deadline = time.monotonic() + 30
    while not is_held(queue.worker_lock_path(services.workspace)):
        assert time.monotonic() < deadline, "the worker did not start"
        time.sleep(0.05)
    first = jobs._started[-1]
    jobs.ensure_worker(services)
    assert jobs._started[-1] is first
    assert first.poll() is None


def test_every_kind_of_job_names_a_function_that_exists():
    for target in job_process.HANDLERS.values():
        module, _, name = target.partition(":")
        source = find_spec(module).loader.get_source(module)  # read, not run: some load torch
        assert f"\ndef {name}(job: JobContext)" in source, target
