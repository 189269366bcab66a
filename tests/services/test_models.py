"""The picker's table, timm's names, starting from an earlier run, and what a measurement keeps."""

import shutil

import pytest

from app.errors import BadRequest, NotFound
from app.jobs.context import JobContext
from app.pipeline.config import ConfigError, load_config, parse_config
from app.pipeline.models import measure
from app.services import job_handlers, jobs, models, training
from app.services.context import Services
from app.services.run_checks import problems_here
from app.store import jobs as job_store
from app.store import runs
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


class Helper:
    """Stands in for the warm helper: answers with what it is given, and counts."""

    def __init__(self, answer):
        self.answer = answer
        self.calls = []

    def call(self, target, **arguments):
        self.calls.append((target, arguments))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def helper(monkeypatch):
    def use(answer):
        made = Helper(answer)
        monkeypatch.setattr(models, "shared_helper", lambda: made)
        models._inspect.cache_clear()
        return made

    yield use
    models._inspect.cache_clear()


def test_table_counts_for_the_classes_of_the_project(services, slug):
    table = models.list_models(services, slug)
    smallest = table["models"][0]
    assert [model["parameters"] for model in table["models"]] == sorted(m["parameters"] for m in table["models"])
    extra = (table["num_classes"] - 2) * 5125
    assert smallest["parameters"] == 18_930_229 + extra
    assert smallest["timing"] is None
    gray = models.list_models(services, slug, channels=1)["models"]
    by_name = {model["name"]: model["parameters"] for model in gray}
    assert by_name["fasterrcnn_resnet18_fpn"] == 28_267_609 + extra


@pytest.mark.parametrize(("classes", "channels"), [(1, 3), (2, 2)], ids=["no class", "two channels"])
def test_counts_that_no_model_has_are_refused(classes, channels):
    with pytest.raises(BadRequest, match="2 or more"):
        models.list_catalogue(classes, channels)


def test_unknown_name_of_timm_is_refused_before_a_job_is_queued(services, slug, helper):
    asked = helper(ValueError("timm has no backbone 'resnet5o': did you mean timm/resnet50?"))
    config = parse_config({"model": "timm/resnet5o"})
    for _ in range(3):
        assert "did you mean timm/resnet50" in problems_here(services, slug, config)["model"]
    assert len(asked.calls) == 1  # the form asks at each key
    with pytest.raises(ConfigError, match="did you mean"):
        training.start_run(services, slug, {"model": "timm/resnet5o"})
    assert jobs.list_jobs(services, slug) == []


def test_timm_backbone_is_refused_with_weights_or_norm_that_it_has_not(helper):
    helper({"tagged": "", "has_batch_norm": False})
    assert (
        "no weights" in models.timm_problems(parse_config({"model": "timm/x", "pretrained": "backbone"}))["pretrained"]
    )
    assert "has none" in models.timm_problems(parse_config({"model": "timm/x", "norm": "group"}))["norm"]
    assert models.timm_problems(parse_config({"model": "timm/x"})) == {}


def test_models_of_the_catalogue_need_no_helper(helper):
    asked = helper(RuntimeError("not to be called"))
    assert models.timm_problems(parse_config({})) == {}
    assert asked.calls == []


def add_checkpoint(services, slug, run, name, score):
    path = services.files(slug).run(run.id) / name
    path.write_bytes(b"weights")
    with services.database(slug).write() as db:
        runs.put_checkpoint(
            db, run.id, epoch=1, step=1, file_name=name, sha256="x", map50=score, f1=score, score=score, is_last=False
        )
    return path


def test_run_starts_from_the_best_checkpoint_of_an_earlier_run(services, slug):
    first = training.start_run(services, slug, {"epochs": 1})
    values = {"pretrained": "file", "weights_file": f"run:{first.id}"}
    with pytest.raises(ConfigError, match="no checkpoint"):
        training.start_run(services, slug, values)
    add_checkpoint(services, slug, first, "a.pt", 0.4)
    best = add_checkpoint(services, slug, first, "b.pt", 0.6)
    run = training.start_run(services, slug, values)
    assert load_config(services.files(slug).run(run.id) / "config.json").weights_file == str(best.resolve())


def test_earlier_run_whose_files_are_gone_is_refused(services, slug):
    first = training.start_run(services, slug, {"epochs": 1})
    add_checkpoint(services, slug, first, "a.pt", 0.4).unlink()
    with pytest.raises(BadRequest, match="no checkpoint to start from"):
        training.start_run(services, slug, {"pretrained": "file", "weights_file": f"run:{first.id}"})


def test_measurement_keeps_each_result_and_names_what_failed(services, slug, monkeypatch):
    names = ["fasterrcnn_resnet18_fpn", "timm/nonsense"]
    job = models.start_measuring(services, slug, names, {"image_size": 96, "augmentation": "x", "epochs": 0})
    assert job.payload == {"models": names, "options": {"image_size": 96}}
    job_store.claim(services.database(slug), job.id)
    claimed = jobs.get(services, slug, job.id)

    def time_it(config, should_stop):
        if config.model.startswith("timm/"):
            raise ValueError("timm has no backbone")
        return measure.Timing(0.5, 0.2, config.image_size, "cpu")

    monkeypatch.setattr(measure, "measure_model", time_it)
    context = JobContext(services.workspace, slug, claimed)
    assert job_handlers.measure(context) == {"failed": {"timm/nonsense": "timm has no backbone"}}
    by_name = {model["name"]: model for model in models.list_models(services, slug)["models"]}
    timing = by_name["fasterrcnn_resnet18_fpn"]["timing"]
    assert (timing["train_s"], timing["predict_s"], timing["image_size"]) == (0.5, 0.2, 96)
    assert by_name["fasterrcnn_resnet34_fpn"]["timing"] is None


def test_measuring_an_unknown_model_is_refused(services, slug):
    with pytest.raises(BadRequest, match="no model 'x'"):
        models.start_measuring(services, slug, ["x"], {})


def test_card_of_a_run_is_there_once_it_started(services, slug):
    run = training.start_run(services, slug, {"epochs": 1})
    with pytest.raises(NotFound, match="no card"):
        models.card_of_run(services, slug, run.id)
    (services.files(slug).run(run.id) / "model.json").write_text('{"parameters": 3}')
    assert models.card_of_run(services, slug, run.id) == {"parameters": 3}


def test_reason_why_there_is_no_card_is_told(services, slug, helper):
    helper(ValueError("model: there is no model 'x'"))
    with pytest.raises(BadRequest, match="there is no model 'x'"):
        models.describe_card(services, slug, {"model": "x"})
