"""Checks before a run: what is queued, the report that grows, and nothing left behind."""

import shutil

import pytest

from app.errors import BadRequest, UserError
from app.jobs.context import JobContext, Stopped
from app.pipeline.config import ConfigError
from app.pipeline.preflight.rehearsal import Measured, judge_time
from app.pipeline.preflight.verdict import Verdict
from app.services import jobs, preflight, preflight_handler, projects, run_form
from app.services.context import Services
from app.store import jobs as job_store
from app.store import timings
from app.store.files import Workspace
from tests.services.imported_project import import_small_project


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    return import_small_project(tmp_path_factory.mktemp("imported"))


@pytest.fixture
def services(imported, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    return Services(Workspace(shutil.copytree(imported, tmp_path / "projects")))


@pytest.fixture
def slug(services):
    return services.workspace.slugs()[0]


def begin(services, slug, **values):
    """The context of a job of checks, as its process has it."""
    job = preflight.start(services, slug, values)
    job_store.claim(services.database(slug), job.id)
    return JobContext(services.workspace, slug, jobs.get(services, slug, job.id))


def use(monkeypatch, check):
    monkeypatch.setattr(preflight_handler, "preflight", check)


def test_report_grows_verdict_by_verdict_and_nothing_is_left(services, slug, monkeypatch):
    job = begin(services, slug, epochs=3)
    seen = []

    def checks(config, snapshot, folder, context, is_shared):
        assert (config.epochs, is_shared()) == (3, False)
        assert all(sample.path.is_file() for sample in snapshot.samples)
        yield Verdict("sizes", "green", "All are large.")
        seen.append(len(preflight.latest(services, slug)["verdicts"]))
        yield Verdict("memory", "red", "Too much.", {"batch_size": 1})
        seen.append(len(preflight.latest(services, slug)["verdicts"]))

    use(monkeypatch, checks)
    result = preflight_handler.check(job)
    assert seen == [1, 2]
    assert result["level"] == "red"
    report = preflight.latest(services, slug)
    assert (report["job"], report["config"]["epochs"]) == (job.job.id, 3)
    assert report["verdicts"][1] == {
        "check": "memory",
        "title": "Memory",
        "level": "red",
        "text": "Too much.",
        "fix": {"batch_size": 1},
        "facts": {},
        "action": "",
    }
    assert not list(services.files(slug).runs.glob(".*"))


def test_what_a_killed_job_left_is_removed_and_a_stopped_one_keeps_what_it_found(services, slug, monkeypatch):
    left = services.files(slug).runs / ".preflight-7"
    left.mkdir(parents=True)
    job = begin(services, slug)

    def checks(*arguments):
        yield Verdict("sizes", "green", "All are large.")
        job.request_stop("cancelled")

    use(monkeypatch, checks)
    with pytest.raises(Stopped):
        preflight_handler.check(job)
    assert not left.exists()
    assert len(preflight.latest(services, slug)["verdicts"]) == 1


def test_time_that_was_measured_helps_the_forms_estimate(services, slug, monkeypatch):
    values = {"model": "fasterrcnn_resnet18_fpn", "image_size": 128, "batch_size": 2, "epochs": 10, "device": "cpu"}
    before = run_form.check_values(services, slug, values)
    facts = {"seconds": 20.0, "batch_s": 2.0, "predict_s": 0.0}
    use(monkeypatch, lambda *arguments: iter([Verdict("time", "green", "20 s.", facts=facts)]))
    preflight_handler.check(begin(services, slug, **values))
    after = run_form.check_values(services, slug, values)
    assert before["pace"] is None
    assert after["pace"]["seconds"] == pytest.approx(10 * after["num_images"] * 1.0)  # half a batch an image
    assert after["pace"]["speedup"] is None


def test_training_of_any_project_is_told_to_the_checks_as_long_as_it_lasts(services, slug, monkeypatch):
    other = projects.create_project(services, "Other")
    heard = []

    def checks(config, snapshot, folder, context, is_shared):
        heard.append(is_shared())
        run = jobs.enqueue(services, other, "train", {})
        heard.append(is_shared())  # it waits
        job_store.claim(services.database(other), run.id)
        heard.append(is_shared())
        yield judge_time(Measured(2.0, 0.5, 1.0, 1, 1), config, 3, 2, is_shared=is_shared())

    use(monkeypatch, checks)
    preflight_handler.check(begin(services, slug))
    assert heard == [False, False, True]
    (verdict,) = preflight.latest(services, slug)["verdicts"]
    assert "Another training was under way" in verdict["text"]
    assert timings.all_of(services.workspace) == []


def test_processes_that_are_left_open_are_as_many_as_a_run_would_have(services, slug, monkeypatch):
    monkeypatch.setattr(preflight_handler, "list_gpus", lambda: ["0", "1", "2"])
    heard = []

    def checks(config, *others):
        heard.append(config.processes)
        return iter([])

    use(monkeypatch, checks)
    preflight_handler.check(begin(services, slug, processes=0, accumulate_batches=4))
    assert heard == [2]


def test_what_a_run_is_refused_for_is_refused_here_too(services, slug):
    with pytest.raises(ConfigError, match="epochs"):
        preflight.start(services, slug, {"epochs": 0})
    with pytest.raises(BadRequest, match="none labeled"):
        preflight.start(services, projects.create_project(services, "Bare"))
    assert jobs.list_jobs(services, slug) == []
    assert preflight.latest(services, slug) is None


def test_job_that_fails_is_told_by_whoever_waits(services, slug, monkeypatch):
    def fail_soon(services, slug, job_id, on_change):
        job_store.claim(services.database(slug), job_id)
        job_store.fail(services.database(slug), job_id, 1, "Out of memory.")
        return jobs.get(services, slug, job_id)

    monkeypatch.setattr(jobs, "wait_for", fail_soon)
    with pytest.raises(UserError, match="Out of memory"):
        preflight.check_and_wait(services, slug, {})
