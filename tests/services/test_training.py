"""Starting, following and deleting runs, without anything being trained."""

import json
import shutil

import orjson
import pytest

from app.errors import BadRequest, Conflict, NotFound
from app.pipeline.config import ConfigError, load_config
from app.pipeline.data.snapshot import load_snapshot
from app.services import augmenting, jobs, run_checks, run_form, training
from app.services import dataset as dataset_service
from app.services.context import Services
from app.store import images, runs
from app.store import jobs as job_store
from app.store.files import Workspace
from tests.services.imported_project import import_small_project


@pytest.fixture(autouse=True)
def no_worker(monkeypatch):
    """Nothing is carried out here; the number of calls tells that a worker was asked for."""
    calls = []
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: calls.append(services))
    return calls


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A workspace with one imported project, made once: importing starts processes."""
    return import_small_project(tmp_path_factory.mktemp("imported"))


@pytest.fixture
def services(imported, tmp_path):
    return Services(Workspace(shutil.copytree(imported, tmp_path / "projects")))


@pytest.fixture
def slug(services):
    return services.workspace.slugs()[0]


def end(services, slug, run, state="done", error=""):
    database = services.database(slug)
    job_store.claim(database, run.job_id)
    job_store.finish(database, run.job_id, 1, state, error=error)


def add_checkpoint(services, slug, run, file_name, score, epoch):
    with services.database(slug).write() as db:
        runs.put_checkpoint(
            db, run.id, epoch=epoch, step=epoch, file_name=file_name, sha256="x", map50=score, f1=score, score=score,
            is_last=False,
        )  # fmt: skip


def test_run_folder_alone_holds_config_and_dataset(services, slug, no_worker):
    run = training.start_run(services, slug, {"epochs": 3}, name=" small ")
    folder = services.files(slug).run(run.id)
    snapshot = load_snapshot(folder / "dataset.json")
    assert [len(snapshot.split(split)) for split in ("train", "valid", "test")] == [2, 1, 1]
    assert all(sample.path.is_file() for sample in snapshot.samples)
    assert load_config(folder / "config.json").model_dump(mode="json") == run.config
    assert (run.name, run.state, run.config["epochs"]) == ("small", "queued", 3)
    payload = jobs.get(services, slug, run.job_id).payload
    with services.database(slug).read() as db:
        assert payload == {"run_id": run.id, "labels_version": list(images.labels_version(db))}
    assert no_worker == [services]


def test_queue_is_told_what_it_has_to_know_of_the_options(services, slug):
    run = training.start_run(services, slug, {"flag_when_hung": False, "processes": 2, "accumulate_batches": 2})
    payload = jobs.get(services, slug, run.job_id).payload
    assert (payload["processes"], payload["flag_when_hung"]) == (2, False)


def test_dataset_stays_frozen_when_labels_change(services, slug):
    run = training.start_run(services, slug)
    path = services.files(slug).run(run.id) / "dataset.json"
    before = path.read_bytes()
    with services.database(slug).write() as db:
        db.execute("DELETE FROM annotation")
    assert path.read_bytes() == before
    assert len(orjson.loads(before)["annotations"]) == 5


def test_unknown_and_impossible_options_are_named(services, slug):
    with pytest.raises(ConfigError) as caught:
        training.start_run(services, slug, {"epochs": 0, "learning_rat": 1})
    assert set(caught.value.problems) == {"epochs", "learning_rat"}
    assert training.list_runs(services, slug) == []


def test_nothing_is_left_of_a_run_whose_dataset_could_not_be_frozen(services, slug, monkeypatch):
    def fail(services, slug, path):
        path.parent.mkdir(parents=True)
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(training, "write_snapshot", fail)
    with pytest.raises(OSError, match="disk full"):
        training.start_run(services, slug)
    assert list(services.files(slug).runs.iterdir()) == []
    assert jobs.list_jobs(services, slug) == []


def test_folder_is_removed_when_the_run_can_not_be_queued(services, slug, monkeypatch):
    def fail(db, job_id, payload):
        raise OSError("disk full")

    monkeypatch.setattr(job_store, "set_payload", fail)
    with pytest.raises(OSError, match="disk full"):
        training.start_run(services, slug)
    assert list(services.files(slug).runs.iterdir()) == []
    assert training.list_runs(services, slug) == []


def test_project_without_labels_can_not_be_trained_on(services, slug):
    with services.database(slug).write() as db:
        db.execute("UPDATE image SET split = 'valid'")
    with pytest.raises(BadRequest, match="labeled images"):
        training.start_run(services, slug)


def test_values_beat_the_preset_and_the_preset_beats_the_suggestion(services, slug):
    suggested = training.build_config(services, slug, {})
    quick = training.build_config(services, slug, {}, preset="quick")
    assert quick.epochs == 8 != suggested.epochs
    assert training.build_config(services, slug, {"epochs": 2}, preset="quick").epochs == 2
    with pytest.raises(BadRequest, match="quick"):
        training.build_config(services, slug, {}, preset="unheard")


def test_saved_chain_of_the_project_is_what_runs_start_with(services, slug):
    assert training.build_config(services, slug, {}).augmentation  # flips are suggested
    augmenting.save(services, slug, [])
    assert training.build_config(services, slug, {}).augmentation == ()
    augmenting.save(services, slug, [{"name": "VerticalFlip", "probability": 0.25}])
    assert [step.name for step in training.build_config(services, slug, {}).augmentation] == ["VerticalFlip"]


def test_result_names_the_best_checkpoint(services, slug):
    run = training.start_run(services, slug)
    assert training.describe_result(services, slug, run.id)["best"] is None
    add_checkpoint(services, slug, run, "a.pt", 0.4, 1)
    add_checkpoint(services, slug, run, "b.pt", 0.6, 2)
    end(services, slug, run)
    result = training.describe_result(services, slug, run.id)
    assert (result["run"], result["state"]) == (run.id, "done")
    assert result["best"]["checkpoint"] == str(services.files(slug).run(run.id) / "b.pt")
    assert (result["best"]["map50"], result["best"]["epoch"]) == (0.6, 2)
    json.dumps(result)


def test_waiting_hears_each_change_and_returns_at_the_end(services, slug):
    run = training.start_run(services, slug)
    heard = []

    def hear(job):
        heard.append(job.state)
        if job.state == "queued":
            job_store.claim(services.database(slug), job.id)
        elif job.state == "running":
            job_store.finish(services.database(slug), job.id, 1, "failed", error="no")

    ended = training.wait_for(services, slug, run.id, hear, timeout_s=20)
    assert heard == ["queued", "running", "failed"]
    assert (ended.state, ended.error) == ("failed", "no")


def test_live_run_is_not_deleted_and_a_deleted_one_leaves_nothing(services, slug):
    run = training.start_run(services, slug)
    files = services.files(slug)
    with pytest.raises(Conflict, match="queued"):
        training.delete_run(services, slug, run.id)
    assert training.stop_run(services, slug, run.id).state == "cancelled"
    files.logs.mkdir(exist_ok=True)
    files.job_log(run.job_id).write_text("line")
    training.delete_run(services, slug, run.id)
    assert not files.run(run.id).exists()
    assert not files.job_log(run.job_id).exists()
    with pytest.raises(NotFound):
        training.get_run(services, slug, run.id)


@pytest.mark.parametrize("name", ["", "  ", "a" * 101, "two\nlines"], ids=["empty", "blank", "long", "unprintable"])
def test_unusable_names_are_refused(services, slug, name):
    run = training.start_run(services, slug)
    with pytest.raises(BadRequest, match="name"):
        training.rename_run(services, slug, run.id, name)
    assert training.rename_run(services, slug, run.id, " <b>x</b> ").name == "<b>x</b>"


def test_form_has_every_option_once_with_words(services, slug):
    form = run_form.describe_form(services, slug)
    fields = [field for group in form["groups"] for field in group["fields"]]
    assert [field["name"] for field in fields] == list(dict.fromkeys(field["name"] for field in fields))
    assert {field["name"] for field in fields} == set(form["suggested"]) - {"anchor_shapes"}  # a run writes these
    assert all(field["description"] for field in fields)
    assert form["num_images"] == {"train": 2, "valid": 1, "test": 1}


def test_schedule_is_that_of_the_training_loop(services, slug):
    values = {"epochs": 10, "batch_size": 1, "warmup_steps": 2, "learning_rate": 0.01, "final_learning_rate": 0.001}
    answer = run_form.check_values(services, slug, values)
    assert (answer["num_images"], answer["num_steps"]) == (2, 20)
    steps, rates = zip(*answer["schedule"], strict=True)
    assert steps == tuple(range(20))
    assert max(rates) == pytest.approx(0.01)
    assert rates[-1] == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("values", "option", "reason"),
    [
        ({"pretrained": "file"}, "weights_file", "must name a file"),
        ({"model": "fasterrcnn_resnet18_fpn", "pretrained": "network"}, "pretrained", "not published"),
        ({"norm": "frozen", "pretrained": "none"}, "norm", "needs pretrained weights"),
        ({"progressive_sizes": [64, 128], "image_size": 320}, "progressive_sizes", "the last is 128, image_size 320"),
        ({"anchors": "custom", "anchor_ratios": [0.5, -1]}, "anchor_ratios", "above 0, got -1"),
    ],
)
def test_problem_of_several_options_stands_at_the_one_to_change(services, slug, values, option, reason):
    problems = run_form.check_values(services, slug, values)["problems"]
    assert list(problems) == [option]
    assert reason in problems[option]


def test_every_conflict_is_told_at_once(services, slug):
    values = {"pretrained": "file", "milestones": [0.9, 0.1], "precision": "float16", "device": "cpu"}
    assert set(run_form.check_values(services, slug, values)["problems"]) == {"weights_file", "milestones", "precision"}


SWIN = "fasterrcnn_swin_t_fpn"


def test_transformer_is_suggested_a_lower_rate_unless_one_is_given(services, slug):
    usual = training.build_config(services, slug, {}).learning_rate
    assert training.build_config(services, slug, {"model": SWIN}).learning_rate < usual / 2
    assert training.build_config(services, slug, {"model": "timm/vit_base"}).learning_rate < usual / 2
    assert training.build_config(services, slug, {"model": "timm/convnext_tiny"}).learning_rate == usual
    given = training.build_config(services, slug, {"model": SWIN, "learning_rate": 0.001})
    assert given.learning_rate == 0.001


def test_high_rate_for_a_transformer_is_a_warning_and_no_problem(services, slug):
    answer = run_form.check_values(services, slug, {"model": SWIN, "learning_rate": 0.001})
    assert answer["problems"] == {}
    assert "0.001 is high for a transformer" in answer["warnings"]["learning_rate"]
    fitting = answer["fitting"]
    assert run_form.check_values(services, slug, {"model": SWIN, **fitting})["warnings"] == {}
    assert run_form.check_values(services, slug, {"learning_rate": 0.001})["warnings"] == {}
    phases = [{"train": "all", "epochs": 2, "learning_rate": 0.01}]
    staged = run_form.check_values(services, slug, {"model": SWIN, **fitting, "phases": phases, "epochs": 2})
    assert list(staged["warnings"]) == ["phases"]


def test_snapshot_is_written_before_the_run_can_be_seen(services, slug, monkeypatch):
    """A worker may take the job the moment it is queued: its files must lie there by then."""
    seen = []

    def write(services, slug, path):
        seen.append(jobs.list_jobs(services, slug))
        dataset_service.write_snapshot(services, slug, path)

    monkeypatch.setattr(training, "write_snapshot", write)
    training.start_run(services, slug)
    assert seen == [[]]


@pytest.mark.parametrize(
    ("values", "option", "reason"),
    [
        ({"device": "cuda"}, "device", "no CUDA GPU"),
        ({"device": "mps"}, "device", "no Apple GPU"),
        ({"precision": "float16"}, "precision", "needs a CUDA GPU"),
        ({"pretrained": "file", "weights_file": "/nowhere/x.pth"}, "weights_file", "no file /nowhere/x.pth"),
        ({"pretrained": "file", "weights_file": "run:77"}, "weights_file", "no run 77"),
        ({"pretrained": "file", "weights_file": "run:last"}, "weights_file", "run:ID"),
    ],
)
def test_what_is_not_here_is_refused_when_the_form_is_filled_in(services, slug, monkeypatch, values, option, reason):
    monkeypatch.setattr(run_checks, "may_have_cuda", lambda: False)
    monkeypatch.setattr(run_checks.platform, "system", lambda: "Linux")
    problems = run_form.check_values(services, slug, values)["problems"]
    assert list(problems) == [option]
    assert reason in problems[option]
    with pytest.raises(ConfigError) as caught:
        training.start_run(services, slug, values)
    assert caught.value.problems == problems
    assert training.list_runs(services, slug) == []


def test_weights_that_are_here_are_accepted(services, slug, tmp_path):
    run = training.start_run(services, slug)
    named = {"pretrained": "file", "weights_file": f"run:{run.id}"}
    assert "no checkpoint" in run_form.check_values(services, slug, named)["problems"]["weights_file"]
    add_checkpoint(services, slug, run, "a.pt", 0.5, 1)
    assert run_form.check_values(services, slug, named)["problems"] == {}
    (tmp_path / "own.pth").write_bytes(b"x")
    named["weights_file"] = str(tmp_path / "own.pth")
    assert run_form.check_values(services, slug, named)["problems"] == {}


def test_steps_are_counted_as_the_loop_counts_them(services, slug):
    """Two images in batches of one, added up in threes: one step an epoch. Phases begin where theirs begin."""
    phases = [
        {"train": "rpn", "epochs": 4, "learning_rate": 0.01},
        {"train": "all", "epochs": 6, "learning_rate": 0.001},
    ]
    values = {"epochs": 10, "batch_size": 1, "phases": phases}
    answer = run_form.check_values(services, slug, values)
    assert (answer["num_steps"], answer["stages"]) == (20, [0, 8])
    assert run_form.check_values(services, slug, {**values, "accumulate_batches": 3})["num_steps"] == 10
    repeated = run_form.check_values(
        services, slug, {"sampling": "repeat_factor", "repeat_threshold": 1.0, "epochs": 1}
    )
    assert repeated["num_images"] >= 2


def test_form_tells_what_control_an_option_takes_and_when_it_matters(services, slug):
    form = run_form.describe_form(services, slug)
    fields = {field["name"]: field for group in form["groups"] for field in group["fields"]}
    kinds = {name: field["kind"] for name, field in fields.items() if field["kind"]}
    assert (
        kinds.items()
        >= {
            "augmentation": "records",
            "phases": "records",
            "milestones": "numbers",
            "anchor_sizes": "numbers",
            "progressive_sizes": "numbers",
        }.items()
    )
    assert fields["milestones"]["used_when"] == {"schedule": ["multistep"]}
    assert fields["milestones"]["use"] == "Used when schedule is multistep."
    assert fields["channels"]["enum"] == [3, 1]
    for field in fields.values():
        assert set(field["used_when"]) <= set(fields)
    assert all("needs" in preset for preset in form["presets"])
