"""The command line: exit codes, the JSON object, errors on one line."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from app import cli, cli_text
from app.errors import UserError
from app.records import Run
from app.services import ensemble_lab, jobs, projects, run_checks, suggestions
from app.services.context import Services
from app.store import jobs as job_store
from app.store import predictions
from app.store.files import Workspace
from tests.services.export_maker import Export
from tests.services.review_project import make_review_project


@pytest.fixture
def dataset(tmp_path):
    export = Export().add("train", "a.jpg", [(1, [1, 2, 30.5, 20.25])]).add("valid", "b.jpg", [(2, [0, 0, 9, 9])])
    return export.folder(tmp_path / "dataset")


@pytest.fixture
def run(tmp_path, capsys):
    """Run a command; gives the exit code, the JSON object (None without --json) and standard error."""

    def run_command(*words):
        code = cli.main(["--projects", str(tmp_path / "projects"), *map(str, words)])
        captured = capsys.readouterr()
        is_json = "--json" in words
        result = json.loads(captured.out.strip().splitlines()[-1]) if is_json else None
        return code, result, captured.err

    return run_command


def test_import_then_export_labels(run, dataset, tmp_path):
    assert run("import", dataset, "--project", "My Pets", "--json") == (
        0,
        {
            "project": "my-pets",
            "images": 2,
            "annotations": 2,
            "categories": 2,
            "splits": {"train": 1, "valid": 1},
            "fixed": 1,
            "quarantined": 0,
        },
        "",
    )
    code, result, _ = run("export-labels", "--project", "My Pets", "--out", tmp_path / "out" / "x.zip", "--json")
    assert code == 0 and result["images"] == 2 and result["file"].endswith("x.zip")
    with zipfile.ZipFile(tmp_path / "out" / "x.zip") as archive:
        assert "train/_annotations.coco.json" in archive.namelist()
    code, result, _ = run("import", tmp_path / "out" / "x.zip", "--project", "Again", "--json")
    assert (code, result["images"], result["fixed"]) == (0, 2, 0)


def test_import_by_name_or_short_name_adds_to_the_project(run, dataset, tmp_path):
    run("import", dataset, "--project", "My Pets")
    more = Export().add("train", "c.jpg", content=(dataset / "valid" / "b.jpg").read_bytes()[:-2] + b"\x00\xff\xd9")
    path = more.folder(tmp_path / "more")
    assert run("import", path, "--project", "my-pets", "--json")[1]["project"] == "my-pets"
    code, result, _ = run("import", path, "--project", "My Pets", "--json")
    assert (code, "already" in result["error"]) == (1, True)


def test_json_may_stand_before_the_command(tmp_path, dataset, capsys):
    words = ["--json", "--projects", str(tmp_path / "projects"), "import", str(dataset), "--project", "x"]
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["import", "nowhere", "--project", "x"], 1, "nothing at nowhere"),
        (["import"], 2, "required"),
        (["import", "", "--project", "x"], 2, "a path is needed"),
        (["import", " ", "--project", "x"], 2, "a path is needed"),
        (["fly"], 2, "invalid choice: 'fly'"),
        ([], 2, "required"),
        (["runs", "--project", "nobody"], 2, "no project 'nobody'"),
        (["evaluate", "--project", "x", "--run", "one"], 2, "no run 'one'"),
        (["evaluate", "--project", "x", "--run", "9" * 30], 2, "no run '999"),
        (["evaluate", "--project", "x", "--run", "1", "--results", "."], 2, "'.' is a folder"),
        (["export-labels", "--project", "x", "--out", __file__ + "/labels.zip"], 2, "is no folder"),
        (["export", "--project", "x", "--run", "1", "--out", __file__], 2, "is no folder"),
        (["evaluate", "--project", "x", "--run", "1", "--split", "dev"], 2, "invalid choice: 'dev'"),
        (["export", "--project", "x", "--run", "1", "--format", "onnx", "--out", "d"], 2, "invalid choice: 'onnx'"),
    ],
)
def test_errors_are_one_line_or_json(run, words, code, error):
    got, _, text = run(*words)
    assert got == code and text.startswith("error: ") and text.count("\n") == 1 and error in text
    got, result, text = run(*words, "--json")
    assert got == code and set(result) == {"error", "hint"} and error in result["error"] and text == ""


def test_projects_folder_that_cannot_be_one_is_bad_use(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["--projects", str(tmp_path / "file"), "runs", "--project", "x"]) == 2
    assert "cannot be the projects folder" in capsys.readouterr().err


def test_failing_disk_is_told_with_its_place(run, dataset, monkeypatch):
    run("import", dataset, "--project", "x")

    def write(*arguments, **options):
        raise OSError(28, "No space left on device", "/disk/labels.zip")

    monkeypatch.setattr(cli.label_export, "export_labels", write)
    code, _, text = run("export-labels", "--project", "x", "--out", "labels.zip")
    assert (code, text) == (1, "error: No space left on device (/disk/labels.zip). Check the path and the disk.\n")


def test_weights_file_is_meant_from_where_the_command_is_given(run, dataset, tmp_path, monkeypatch):
    run("import", dataset, "--project", "x")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.pth").write_bytes(b"")
    given = []
    monkeypatch.setattr(cli.training, "start_run", lambda s, slug, options, preset: given.append(options) or 1 / 0)
    run("train", "--project", "x", "--set", "pretrained=file", "--set", "weights_file=mine.pth")
    run("train", "--project", "x", "--set", "pretrained=file", "--set", "weights_file=run:1")
    assert [options["weights_file"] for options in given] == [str(tmp_path / "mine.pth"), "run:1"]


@pytest.fixture
def fused(tmp_path, monkeypatch):
    """A project with predictions, whose ensemble labs are done as soon as somebody waits for them."""

    def do_it(services, slug, job_id, on_change=None):
        database = services.database(slug)
        job = job_store.claim(database, job_id)
        found = ensemble_lab.carry_out(services, slug, job.payload, predict=lambda *asked: 1 / 0)
        job_store.finish(database, job_id, job.attempt, "done", found)
        return job_store.get_job(database, job_id)

    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    monkeypatch.setattr(jobs, "wait_for", do_it)
    return make_review_project(tmp_path / "projects", num_valid=16)


def test_ensemble_is_tuned_and_taken_apart(run, fused, capsys):
    first, second, *_ = fused.checkpoint_ids
    words = ["ensemble", "--project", fused.slug, "--checkpoints", f"{first},{second}", "--tune"]
    code, result, _ = run(*words, "--json")
    assert code == 0
    assert [row["checkpoint_id"] for row in result["members"]] == [first, second]
    assert {row["method"] for row in result["methods"]} == {"wbf", "nms", "soft_nms", "nmw"}
    noise = result["noise"]
    assert noise["low"] <= noise["difference"] <= noise["high"]
    assert result["is_gain"] == (noise["low"] > 0) and result["verdict"].startswith(noise["words"])
    assert cli.main(["--projects", str(fused.services.workspace.root), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == result["verdict"]
    wbf = next(place for place, line in enumerate(lines) if line.startswith("WBF "))
    assert f"{result['methods'][0]['judged']['map']:.3f}" in lines[wbf] and "weights" in lines[wbf + 1]
    assert result["costs"] == {"how": None, "devices": []}
    assert "Fewest members within 0.2 mAP points" in lines[-1]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--checkpoints", "1,x", "--tune"], "numbers with commas"),
        (["--checkpoints", "1,2", "--run", "1"], "not allowed with"),
        (["--sets", "1,2"], "by the lab only"),
        (["--checkpoints", "1,2", "--tta", "flip"], "by the lab only"),
        (["--checkpoints", "1,99", "--tune"], "no checkpoint 99"),
        ([], "is required"),
    ],
)
def test_members_that_cannot_be_fused_are_bad_use(run, fused, words, error):
    code, result, _ = run("ensemble", "--project", fused.slug, *words, "--json")
    assert code == 2 and error in result["error"]


@pytest.mark.parametrize("command", ["evaluate", "ensemble", "export", "predict"])
def test_unknown_run_is_bad_use(run, dataset, tmp_path, command):
    run("import", dataset, "--project", "x")
    out = ["--out", tmp_path / "out"] if command in ("export", "predict") else []
    path = [dataset / "train" / "a.jpg"] if command == "predict" else []
    code, result, _ = run(command, *path, "--project", "x", "--run", 7, *out, "--json")
    assert (code, "7" in result["error"]) == (2, True)


def test_failed_import_leaves_no_project(run, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK")
    assert run("import", tmp_path / "x.zip", "--project", "x", "--json")[0] == 1
    assert Services(Workspace(tmp_path / "projects")).workspace.slugs() == []


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--set", "epoch=1"], "epoch: unknown option"),
        (["--set", "epochs=0"], "epochs"),
        (["--set", "epochs"], "key=value"),
        (["--preset", "nothing"], "preset"),
        (["--config", "missing.json"], "missing.json"),
    ],
)
def test_options_that_cannot_be_trained_with_are_bad_use(run, dataset, words, error):
    run("import", dataset, "--project", "x")
    code, result, _ = run("train", "--project", "x", *words, "--json")
    assert code == 2 and error in result["error"]


def test_refusal_and_advice_are_two_sentences(run, dataset):
    run("import", dataset, "--project", "x")
    text = run("train", "--project", "x", "--set", "optimizer=adams")[2]
    assert text.endswith("got 'adams'. The user guide lists every option.\n")


def test_configuration_that_is_not_utf8_is_bad_use(run, dataset, tmp_path):
    run("import", dataset, "--project", "x")
    (tmp_path / "c.json").write_bytes(b'{"name": "K\xe4se"}')
    code, result, _ = run("train", "--project", "x", "--config", tmp_path / "c.json", "--json")
    assert code == 2 and "UTF-8 is expected, found the byte 0xe4 at position 11" in result["error"]


def test_options_come_from_the_file_and_then_from_the_command_line(run, dataset, tmp_path, monkeypatch):
    run("import", dataset, "--project", "x")
    (tmp_path / "c.json").write_text('{"epochs": 3, "seed": 7}')
    seen = {}

    def start(services, slug, values, preset):
        seen.update(values)
        raise UserError("enough")

    monkeypatch.setattr(cli.training, "start_run", start)
    assert run("train", "--project", "x", "--config", tmp_path / "c.json", "--set", "epochs=5", "--json")[0] == 1
    assert seen == {"epochs": 5, "seed": 7}


@pytest.mark.parametrize(("state", "code"), [("done", 0), ("failed", 1), ("cancelled", 1), ("interrupted", 1)])
def test_waiting_for_a_run_tells_how_it_ended(run, dataset, monkeypatch, state, code):
    run("import", dataset, "--project", "x")
    ended = Run(3, 1, "Run 3", state, {}, 0.0, 2, "out of memory" if state == "failed" else "", {})
    monkeypatch.setattr(cli.training, "start_run", lambda *_: ended)
    monkeypatch.setattr(cli.training, "wait_for", lambda *_: ended)
    monkeypatch.setattr(cli.training, "get_run", lambda *_: ended)
    monkeypatch.setattr(
        cli.training, "describe_result", lambda *_: {"run": 3, "state": state, "epochs": 2, "best": None, "error": ""}
    )
    got, result, _ = run("train", "--project", "x", "--wait", "--json")
    assert got == code
    if code:
        assert ("stopped" if state == "cancelled" else state) in result["error"]
    else:
        assert {name: result[name] for name in ("run", "state", "epochs", "best")} == {
            "run": 3, "state": "done", "epochs": 2, "best": None,
        }  # fmt: skip


def test_runs_are_controlled_and_listed_with_what_they_keep(run, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    run("import", dataset, "--project", "x")
    run("train", "--project", "x", "--json")
    where = ("--project", "x", "--run", "1", "--json")
    for action, state in [("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled"), ("retry", "queued")]:
        code, result, _ = run(action, *where)
        assert (code, result["run"], result["state"]) == (0, 1, state)
    code, result, _ = run("retry", *where)
    assert code == 2 and "queued" in result["error"]
    run("cancel", *where)
    code, result, _ = run("resume", *where)
    assert (code, result["error"], result["hint"]) == (2, "Run 1 is stopped.", "It goes on with retry.")
    assert cli_text.runs_as_text(run("runs", *where[:2], "--json")[1]).startswith("Run 1: stopped, ")
    run("retry", *where)
    assert run("pause", "--project", "x", "--run", "9", "--json")[0] == 2
    code, result, _ = run("runs", "--project", "x", "--json")
    (listed,) = result["runs"]
    assert {"run", "state", "attempt", "pid", "epoch", "checkpoints"} <= set(listed)
    assert (listed["attempt"], listed["pid"], listed["epoch"], listed["checkpoints"]) == (0, None, 0, [])


def test_runs_are_listed_with_their_checkpoints_in_a_table(run, reviewed, capsys):
    assert cli.main(["--projects", str(reviewed.services.workspace.root), "runs", "--project", reviewed.slug]) == 0
    heading, folder, heads, *rows = capsys.readouterr().out.splitlines()
    assert heading == "Run 1 (First run): done, 0 epochs"
    assert folder.endswith(str(reviewed.services.files(reviewed.slug).run(1)))
    assert heads.split() == ["checkpoint", "epoch", "mAP50", "F1", "score", "file"]
    assert rows[0].split() == [str(reviewed.checkpoint_ids[0]), "4", "0.800", "0.800", "0.800", "epoch-4.pt"]
    assert rows[-1].split()[2:] == ["-", "-", "-", "last.pt"]


def test_unexpected_fault_is_one_line(run, dataset, monkeypatch):
    monkeypatch.setattr(cli.importing, "import_as_new_project", lambda *_, **__: 1 / 0)
    code, _, text = run("import", dataset, "--project", "x")
    assert code == 1 and "ZeroDivisionError" in text and text.count("\n") == 1


def test_module_runs_without_loading_torch_or_gradio(dataset, tmp_path):
    code = (
        "import sys; from app.cli import main; code = main(sys.argv[1:]);"
        "sys.exit(code or any(name in sys.modules for name in ('torch', 'gradio', 'albumentations')))"
    )
    words = ["--projects", str(tmp_path / "p"), "import", str(dataset), "--project", "x"]
    repository = Path(__file__).resolve().parents[1]
    process = subprocess.run([sys.executable, "-c", code, *words], cwd=repository, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "images: 2" in process.stdout
    process = subprocess.run(
        [sys.executable, "-m", "app", "--projects", str(tmp_path / "p"), "runs", "--project", "x", "--json"],
        cwd=repository, capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(process.stdout) == {"project": "x", "runs": []}
    assert projects.find_project(Services(Workspace(tmp_path / "p")), "x") == "x"


def test_models_are_counted_for_classes_and_channels(run):
    """The published counts, for two classes as torchvision counts them and gray images."""
    code, result, _ = run("models", "--classes", "2", "--channels", "1", "--json")
    millions = {model["name"]: round(model["parameters"] / 1e6, 2) for model in result["models"]}
    assert code == 0
    assert [millions[f"fasterrcnn_resnet{depth}_fpn"] for depth in (18, 34, 50, 101)] == [28.27, 38.37, 41.29, 60.23]
    assert millions["fasterrcnn_resnet50_fpn_v2"] == 43.25
    by_name = {model["name"]: model for model in result["models"]}
    assert by_name["fasterrcnn_resnet50_fpn"]["pretrained"] == ["backbone", "network"]
    assert run("models", "--classes", "1", "--json")[0] == 2


def test_presets_are_listed_without_a_project(run):
    code, result, _ = run("presets", "--json")
    by_name = {preset["name"]: preset for preset in result["presets"]}
    assert code == 0
    assert {"suggested", "quick", "gastroscopy", "backbones", "small_objects", "nuclei"} <= set(by_name)
    assert all({"name", "title", "help", "values"} <= set(preset) for preset in result["presets"])
    assert by_name["gastroscopy"]["values"]["box_loss"] == "ciou"
    assert by_name["suggested"]["values"] == {}


def test_presets_are_readable_and_say_what_differs_from_the_defaults(capsys):
    assert cli.main(["presets"]) == 0
    text = capsys.readouterr().out
    assert "GASTROSCOPY, STEP BY STEP" in text
    assert "box_loss                ciou   (default smooth_l1)" in text
    assert "MixUp 0.1, Mosaic 0.25" in text


@pytest.mark.parametrize("name", [preset["name"] for preset in suggestions.list_presets()])
def test_every_preset_starts_a_run_from_scratch(run, dataset, monkeypatch, name):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    assert run("import", dataset, "--project", "Pets", "--json")[0] == 0
    code, result, error = run("train", "--project", "Pets", "--preset", name, "--set", "pretrained=none", "--json")
    assert (code, result.get("state")) == (0, "queued"), result


def test_options_that_do_not_fit_this_machine_are_bad_use(run, dataset, monkeypatch):
    monkeypatch.setattr(run_checks, "may_have_cuda", lambda: False)
    assert run("import", dataset, "--project", "Pets", "--json")[0] == 0
    code, result, _ = run("train", "--project", "Pets", "--set", "device=cuda", "--json")
    assert code == 2 and "no CUDA GPU" in result["error"]


def test_preflight_prints_levels_and_what_would_mend_them(run, dataset, monkeypatch, capsys):
    run("import", dataset, "--project", "x")
    given = []
    memory = {"check": "memory", "title": "Memory", "level": "red", "text": "Too much.", "fix": {"batch_size": 1}}

    def check(services, slug, values, preset, on_change):
        given.append((slug, values, preset))
        return {"level": "red", "verdicts": [memory]}

    monkeypatch.setattr(cli.preflight, "check_and_wait", check)
    words = ("preflight", "--project", "x", "--preset", "quick", "--set", "epochs=3")
    code, result, _ = run(*words, "--json")
    assert (code, result) == (0, {"project": "x", "level": "red", "verdicts": [memory]})
    assert given == [("x", {"epochs": 3}, "quick")]
    monkeypatch.setattr(cli, "_write", given.append)
    run(*words)
    assert [line.split() for line in given[-1].splitlines()[1:]] == [
        ["red", "Memory", "Too", "much."],
        ["--set", "batch_size=1"],
    ]


def test_benchmark_needs_no_project(run, monkeypatch):
    one = {"model": "m", "image_size": 320, "device": "cpu, float32", "train_images_per_s": 2.0}
    one |= {"reference_images_per_s": 1.0, "speedup": 2.0, "predict_s": 0.25}
    result = {"models": [one], "left_out": {"n at 320": "no time was left"}, "cores": 2, "seconds": 9.0}
    monkeypatch.setattr(cli.benchmark, "run_benchmark", lambda services, on_progress, slug: {**result, "for": slug})
    assert run("benchmark", "--json") == (0, {**result, "for": ""}, "")
    written = []
    monkeypatch.setattr(cli, "_write", written.append)
    run("benchmark")
    assert written[0].splitlines()[1].split() == ["m", "320", "2.00", "1.00", "2.00", "0.250"]
    assert "left out: n at 320 (no time was left)" in written[0]


def test_benchmark_of_a_project_names_it(run, dataset, monkeypatch):
    monkeypatch.setattr(cli.benchmark, "run_benchmark", lambda services, on_progress, slug: {"for": slug})
    assert run("benchmark", "--project", "nowhere", "--json")[0] == 2
    run("import", dataset, "--project", "x")
    assert run("benchmark", "--project", "x", "--json")[:2] == (0, {"project": "x", "for": "x"})


def test_high_rate_for_a_transformer_is_warned_of(run, dataset, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    assert run("import", dataset, "--project", "Pets", "--json")[0] == 0
    swin = ("train", "--project", "Pets", "--set", "model=fasterrcnn_swin_t_fpn")
    code, result, error = run(*swin, "--set", "learning_rate=1e-3", "--json")
    assert code == 0 and list(result["warnings"]) == ["learning_rate"]
    assert error.startswith("warning: learning_rate: 0.001 is high for a transformer")
    code, result, error = run(*swin, "--json")
    assert code == 0 and "warnings" not in result and not error


@pytest.fixture
def reviewed(tmp_path):
    """A project with a run, its stored predictions, and those of its best checkpoint in other views."""
    project = make_review_project(tmp_path / "projects")
    database = project.services.database(project.slug)
    found = predictions.read_detections(database, project.set_ids[1])
    for views in ("flip", "flip_scales"):
        with database.write() as db:
            predictions.store_predictions(
                db,
                run_id=project.run_id,
                split="valid",
                detections=found,
                snapshot_sha256="a" * 64,
                checkpoint_id=project.checkpoint_ids[0],
                options={"test_time_augmentation": views},
            )
    return project


def test_views_are_judged_one_by_one_or_in_one_table(run, reviewed, capsys):
    judge = ("evaluate", "--project", "Blood cells", "--run", reviewed.run_id)
    code, result, _ = run(*judge, "--json")
    assert (code, result["test_time_augmentation"]) == (0, "off")
    code, flipped, _ = run(*judge, "--tta", "flip", "--json")
    assert (code, flipped["test_time_augmentation"]) == (0, "flip")
    assert flipped["map"] < result["map"]
    code, table, _ = run(*judge, "--tta", "all", "--json")
    assert [row["map"] for row in table["rows"]] == [result["map"], flipped["map"], flipped["map"]]
    assert (code, table["is_gain"], table["best"]) == (0, False, "off")
    assert cli.main(["--projects", str(reviewed.services.workspace.root), *map(str, judge), "--tta", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[3:6]] == ["one view", "flip", "flip + scales"]
    assert lines[-1].startswith("Worse: ") and lines[4].endswith(": worse")


def test_comparison_of_views_writes_no_results(run, reviewed, tmp_path):
    words = ("evaluate", "--project", "Blood cells", "--run", 1, "--tta", "all", "--results", tmp_path / "x.json")
    code, result, _ = run(*words, "--json")
    assert (code, "one of them" in result["hint"].lower()) == (2, True)


@pytest.mark.parametrize("method", ["nms", "soft_nms", "nmw", "wbf"])
def test_fuser_is_a_choice(run, reviewed, monkeypatch, method):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    monkeypatch.setattr(jobs, "wait_for", lambda services, slug, job_id, on_change: jobs.get(services, slug, job_id))
    words = () if method == "wbf" else ("--method", method)
    run("ensemble", "--project", "Blood cells", "--run", reviewed.run_id, *words, "--json")
    (job,) = (job for job in jobs.list_jobs(reviewed.services, reviewed.slug) if job.kind == "ensemble")
    assert job.payload["options"]["method"] == method
