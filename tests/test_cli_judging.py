"""The commands that judge: their JSON, what people read, and bad use."""

import json

import pytest

from app import cli, cli_judging
from app.pipeline.evaluate.difference import Difference
from app.services import jobs
from app.store import predictions
from tests.services.review_project import make_review_project
from tests.services.test_comparing import add_run


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    return make_review_project(tmp_path / "projects")


@pytest.fixture
def run(project, tmp_path, capsys):
    """Run a command on the project; gives the exit code and the JSON object or the text."""

    def run_command(*words):
        arguments = [str(word) for word in (*words, "--project", "Blood cells")]
        code = cli.main(["--projects", str(tmp_path / "projects"), *arguments])
        captured = capsys.readouterr()
        return code, json.loads(captured.out.splitlines()[-1]) if "--json" in arguments else captured.out + captured.err

    return run_command


def test_evaluate_has_what_it_had_and_the_diagnosis(run, project):
    code, result = run("evaluate", "--run", project.run_id, "--json")
    assert code == 0
    before = {
        "project",
        "name",
        "set",
        "checkpoint",
        "run",
        "split",
        "map",
        "map50",
        "map75",
        "f1",
        "f1_threshold",
        "per_class",
        "coco",
    }
    added = {"test_time_augmentation", "mean_best_iou", "count_difference", "error_budget", "confusion"}
    assert set(result) == before | added
    assert result["error_budget"]["ap50"] == pytest.approx(result["map50"], abs=1e-9)
    code, text = run("evaluate", "--run", project.run_id)
    lines = text.splitlines()
    assert lines[0] == f"First run, Epoch 4 on 6 images of valid, set {project.set_ids[0]}"
    assert lines[2].split()[:4] == ["class", "objects", "AP", "AP50"]
    assert [line.split("  ")[0] for line in lines[3:6]] == ["all classes", "Red cell", "White cell"]
    assert f"{result['per_class'][0]['ap']:.3f}" in lines[4]
    assert "What keeps AP50" in text
    head, *rows = text.split("IoU 0.50:\n")[1].splitlines()
    counts = result["confusion"]["counts"]  # the background last in both directions, as on the screen
    assert head.split() == ["Red", "cell", "White", "cell", "background"]
    assert [row.split("  ")[1] for row in rows] == ["Red cell", "White cell", "background"]
    assert [row.split()[-1] for row in rows] == [str(counts[1][0]), str(counts[2][0]), str(counts[0][0])]
    assert max(map(len, lines[:6])) <= 100


def test_checkpoint_and_stored_predictions_are_judged_as_a_run_is(run, project, tmp_path):
    best, second, _ = project.set_ids
    whole = run("evaluate", "--run", project.run_id, "--json")[1]
    assert run("evaluate", "--checkpoint", project.checkpoint_ids[0], "--json")[1] == whole
    assert run("evaluate", "--set", best, "--json")[1] == whole  # of the split that is its own
    other = run("evaluate", "--checkpoint", project.checkpoint_ids[1], "--json")[1]
    assert (other["set"], other["map"] < whole["map"]) == (second, True)
    code, fused = run("evaluate", "--set", add_ensemble(project), "--results", tmp_path / "found.json", "--json")
    assert (code, fused["checkpoint"], fused["name"]) == (0, None, "First run, WBF of 2, IoU 0.55")
    assert json.loads((tmp_path / "found.json").read_bytes())


def add_ensemble(project):
    """A stored ensemble with the predictions of the best checkpoint."""
    database = project.services.database(project.slug)
    found = predictions.read_detections(database, project.set_ids[0])
    with database.write() as db:
        return predictions.store_predictions(
            db,
            run_id=project.run_id,
            split="valid",
            detections=found,
            snapshot_sha256="a" * 64,
            name="WBF of 2",
            members=project.set_ids[:2],
            options={"method": "wbf", "iou_threshold": 0.55},
        )


def test_compare_tells_the_difference_and_writes_the_report(run, project, tmp_path, capsys):
    second = add_run(project, {"epochs": 3}, project.set_ids[2], [0.1, 0.6])
    report = tmp_path / "out" / "report.html"
    code, result = run("compare", "--run", project.run_id, "--run", second, "--report", report, "--json")
    assert (code, result["report"]) == (0, str(report))
    assert report.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert result["differences"]["map50"]["difference"] < 0
    assert [row["difference"]["outcome"] for row in result["per_class"]] == ["worse", "worse"]
    code, text = run("compare", "--run", project.run_id, "--run", second)
    assert code == 0 and result["verdict"] in text and "epochs" in text
    with pytest.raises(SystemExit):
        run("compare", "--help")
    assert "Give --run (or --checkpoint, --set) twice" in " ".join(capsys.readouterr().out.split())
    red = next(line for line in text.splitlines() if line.startswith("Red cell"))
    assert red.endswith("  A is better") and " to -0." in red


def test_audit_lists_suspects(run, project):
    code, result = run("audit", "--run", project.run_id, "--min-score", 0.1, "--limit", 3, "--json")
    assert (code, len(result["suspects"]), result["in_sample"]) == (0, 3, 0)
    code, text = run("audit", "--run", project.run_id, "--min-score", 0.1)
    assert code == 0 and "missing box" in text and "valid_0.png" in text
    assert text.startswith(f"First run, Epoch 4 on valid, set {project.set_ids[0]}\n")


def test_audit_judges_with_checkpoints_and_with_several_sets_and_filters(run, project):
    best, second, _ = project.set_ids
    by_run = run("audit", "--run", project.run_id, "--json")[1]
    assert run("audit", "--set", best, "--json")[1] == by_run
    assert run("audit", "--checkpoint", project.checkpoint_ids[0], "--set", best, "--json")[1]["by"] == by_run["by"] * 2
    several = run("audit", "--set", second, "--set", best, "--min-score", 0.1, "--json")[1]
    assert [(one["set"], one["split"], one["run"]) for one in several["by"]] == [
        (second, "valid", project.run_id), (best, "valid", project.run_id),
    ]  # fmt: skip
    assert {item["set"] for item in several["suspects"]} == {second}  # none was trained on them: the first counts
    words = ("--min-score", 0.1, "--kind", "missing_box", "--class", "Red cell", "--json")
    found = run("audit", "--set", add_ensemble(project), *words)[1]["suspects"]
    assert found and {(item["kind"], item["predicted"]) for item in found} == {("missing_box", "Red cell")}


def test_sweep_shows_a_row_for_each_checkpoint(run, monkeypatch):
    row = {
        "name": "Epoch 4", "map": 0.1, "map50": 0.2, "map75": 0.1, "f1": 0.3, "score": 0.25, "members": [],
        "noise": None,
        "per_class": [{"name": "Red cell", "ap": 0.1, "ap50": 0.2}],
    }  # fmt: skip
    noise = Difference(0.25, 0.2, 0.3, 0.24, 0.2, 0.3, -0.01, -0.03, 0.02, 0.3, 0.03).to_json()
    soup = {**row, "name": "Soup (uniform)", "members": ["a.pt", "b.pt"], "noise": noise}
    swept = {"run": 1, "split": "valid", "rows": [row, soup], "verdict": "Epoch 4 is best on valid."}
    monkeypatch.setattr(cli_judging.sweeping, "sweep_run", lambda *_: swept)
    assert run("sweep", "--run", 1, "--json") == (0, {"project": "blood-cells", **swept})
    code, text = run("sweep", "--run", 1)
    assert "Red cell    0.200" in text and "of a.pt, b.pt" in text
    assert "-0.010, -0.030 to +0.020: within the noise" in text and text.rstrip().endswith(swept["verdict"])
    row["per_class"][0]["name"] = "A class with a long name"
    swept["rows"] = [row] * 4 + [soup]
    assert "  1 more checkpoint is in --json only." in run("sweep", "--run", 1)[1]


def test_notes_are_written_and_shown(run, project):
    run("notes", "--run", project.run_id, "--hypothesis", "Larger images help.")
    code, result = run("notes", "--run", project.run_id, "--json")
    assert (code, result["hypothesis"], result["conclusion"]) == (0, "Larger images help.", "")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["compare", "--run", 1], "needs two sides, got 1"),
        (["compare", "--run", 1, "--run", 1], "with itself"),
        (["compare", "--run", 1, "--run", 9], "no run 9"),
        (["compare", "--run", 1, "--set", 99], "no prediction set 99"),
        (["compare", "--run", 1, "--set", 2, "--split", "test"], "of valid images, not of test"),
        (["compare", "--set", "x", "--run", 1], "no set 'x'"),
        (["compare", "--run", 1, "--run", 2, "--report", "x.pdf"], "x.pdf"),
        (["audit", "--run", 1, "--min-score", 3], "0..1"),
        (["audit", "--run", 1, "--limit", 0], "1 to 500"),
        (["audit"], "needs a model"),
        (["audit", "--run", 1, "--class", "Blue cell"], "no class 'Blue cell'"),
        (["audit", "--set", 2, "--split", "test"], "of valid images, not of test"),
        (["evaluate"], "required"),
        (["evaluate", "--run", 1, "--set", 2], "not allowed with"),
        (["evaluate", "--set", 99], "no prediction set 99"),
        (["evaluate", "--checkpoint", 99], "no checkpoint 99"),
        (["evaluate", "--set", 2, "--split", "test"], "of valid images, not of test"),
        (["evaluate", "--set", 2, "--tta", "flip"], "views they were made in"),
        (["sweep", "--run", 7], "no run 7"),
        (["notes", "--run", 7, "--setup", "x"], "no run 7"),
    ],
)
def test_bad_use_is_told(run, words, error):
    code, result = run(*words, "--json")
    assert (code, set(result)) == (2, {"error", "hint"})
    assert error in result["error"]
