"""The demo: imported like any dataset, with a run to watch, and not made twice."""

from urllib.parse import parse_qs, urlsplit

import pytest

from app.pipeline.data.demo import write_demo_export
from app.services import augmenting, demo, importing, jobs, training


@pytest.fixture
def small_demo(monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    monkeypatch.setattr(demo, "write_demo_export", lambda folder: write_demo_export(folder, num_images=10))


def test_the_demo_opens_on_its_run_and_is_made_once(services, small_demo):
    page = urlsplit(demo.start_demo(services))
    query = parse_qs(page.query)
    (slug,) = query["project"]
    assert page.path == "/train"
    assert importing.newest_report(services, slug)["images"] == 10
    (run,) = training.list_runs(services, slug)
    assert query["run"] == [str(run.id)]
    assert run.config["augmentation"] == [step.model_dump() for step in augmenting.load(services, slug)]
    assert urlsplit(demo.start_demo(services)) == page
    assert len(training.list_runs(services, slug)) == 1
