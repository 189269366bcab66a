import re
import threading
import xml.etree.ElementTree as ET
from base64 import b64decode

import orjson
import pytest

from app import cli_text
from app.errors import BadRequest, Conflict, NotFound
from app.pipeline.evaluate import bootstrap
from app.pipeline.evaluate.matching import match
from app.pipeline.types import Detections
from app.services import comparing, comparison_images, comparison_report, dataset, jobs, pair_figures, run_notes
from app.services.comparison_sides import Side, parse_side
from app.store import jobs as job_store
from app.store import predictions, runs
from tests.services.review_project import make_review_project


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    return make_review_project(tmp_path)


def add_run(project, config, set_id, curve, name="Second run"):
    """A run on the same dataset whose best checkpoint predicted what is stored as ``set_id``."""
    database, services = project.services.database(project.slug), project.services
    with database.write() as db:
        run_id = runs.create_run(db, job_store.enqueue(db, "train", {}).id, name, config)
        db.execute("UPDATE job SET state = 'done'")
        checkpoint_id = runs.put_checkpoint(
            db, run_id, epoch=3, step=9, file_name="best.pt", sha256="c" * 64, map50=0.5, f1=0.5, score=0.5,
            is_last=False,
        )  # fmt: skip
        runs.append_metrics(
            db,
            [
                (run_id, epoch * 3, epoch, split, metric, value, 10.0 * epoch)
                for epoch, value in enumerate(curve, start=1)
                for split, metric in (("valid", "map50"), ("valid", "f1"), ("train", "f1"))
            ],
        )
    dataset.write_snapshot(services, project.slug, services.files(project.slug).run(run_id) / "dataset.json")
    found = predictions.read_detections(database, set_id)
    with database.write() as db:
        predictions.store_predictions(
            db, run_id=run_id, split="valid", detections=found, snapshot_sha256="a" * 64, checkpoint_id=checkpoint_id
        )
    return run_id


def compare(project, first, second):
    """Two runs by their best checkpoints."""
    return comparing.compare(project.services, project.slug, Side("run", first), Side("run", second))


def add_ensemble(project, split="valid"):
    """Fused predictions: here those of the first checkpoint, stored as an ensemble's."""
    database = project.services.database(project.slug)
    found = predictions.read_detections(database, project.set_ids[0])
    with database.write() as db:
        return predictions.store_predictions(
            db, run_id=project.run_id, split=split, detections=found if split == "valid" else {},
            snapshot_sha256="a" * 64, name="WBF of 2", members=project.set_ids[:2], options={"iou_threshold": 0.55},
        )  # fmt: skip


@pytest.fixture
def second(project):
    return add_run(project, {"epochs": 3, "learning_rate": 0.01, "model": "<b>x</b>"}, project.set_ids[2], [0.1, 0.6])


@pytest.fixture
def comparison(project, second):
    return compare(project, project.run_id, second)


def test_options_that_differ_are_listed_with_both_values(comparison):
    assert [(row["option"], row["title"], row["values"]) for row in comparison["config"]] == [
        ("model", "Model", ["fasterrcnn_resnet18_fpn", "<b>x</b>"]),
        ("epochs", "Epochs", [4, 3]),
        ("learning_rate", "Learning rate", [0.001, 0.01]),
    ]
    assert comparison["config"][0]["texts"] == ["ResNet-18 FPN v1", "<b>x</b>"]


def test_differences_come_with_intervals_and_a_verdict(project, comparison):
    orjson.dumps(comparison)
    item = comparison["differences"]["map50"]
    assert item["difference"] == pytest.approx(item["second"] - item["first"])
    assert item["low"] <= item["difference"] <= item["high"]
    assert comparison["images"] == 6 and comparison["left_out"] == 0
    assert comparison["truth"]["words"] == []
    assert ("beyond chance" in comparison["verdict"]) == item["is_clear"]
    if item["is_clear"]:
        low, high = sorted(map(abs, (item["low"], item["high"])))
        assert f"+{abs(item['difference']):.3f} mAP50, 95 % interval +{low:.3f} to +{high:.3f}" in comparison["verdict"]
    assert [run["epoch"] for run in comparison["runs"]] == [4, 3]


def test_differences_of_classes_come_with_their_noise(project, comparison):
    for row in comparison["per_class"]:
        noise = row["difference"]
        assert noise["difference"] == pytest.approx(row["second"]["ap50"] - row["first"]["ap50"])
        assert (noise["low"] < noise["difference"] < noise["high"], noise["num_images"] > 1) == (True, True)
    told = [row["difference"]["words"] for row in comparison["per_class"]]
    assert set(told) <= {"Gain", "Within the noise", "Worse"}
    for suffix in (".html", ".md"):
        text = comparison_report.render(comparison, "Blood cells", suffix)
        for words in told:
            assert ("is better" if words in ("Gain", "Worse") else words.lower()) in text
        assert "In words" in text


def test_curves_are_summed_up_by_epoch_and_clock(project, second):
    third = add_run(project, {}, project.set_ids[0], [0.55, 0.7, 0.65])
    curves = compare(project, second, third)
    first, other = (run["curves"] for run in curves["runs"])
    assert (first["epoch"], first["map50"], first["f1"]) == ([1, 2], [0.1, 0.6], [0.1, 0.6])
    assert (other["best"]["epoch"], other["best"]["elapsed_s"], other["total_s"]) == (2, 20.0, 30.0)
    assert curves["reached"] == {
        "map50": 0.6,
        "by": [{"letter": "A", "epoch": 2, "elapsed_s": 20.0}, {"letter": "B", "epoch": 2, "elapsed_s": 20.0}],
    }


def test_only_images_that_both_have_are_compared_on_the_newer_labels(project):
    database = project.services.database(project.slug)
    with database.write() as db:
        db.execute("UPDATE image SET split = 'train' WHERE id = ?", [project.image_ids["valid"][0]])
        db.execute("UPDATE annotation SET x1 = x1 / 2 WHERE image_id = ?", [project.image_ids["valid"][1]])
    second = add_run(project, {}, project.set_ids[0], [0.5])
    comparison, turned = compare(project, project.run_id, second), compare(project, second, project.run_id)
    assert (comparison["images"], comparison["left_out"]) == (5, 1)
    assert comparison["truth"]["relabeled"] == [{"run": project.run_id, "images": 1}]
    assert comparison["truth"]["words"][0] == (
        "Judged on the labels of run 2 (Second run); 1 image of valid was relabeled since run 1 (First run)."
    )
    assert comparison["truth"]["words"][0] in comparison_report.render(comparison, "Cells", ".html")
    assert comparison["truth"]["words"][0] in cli_text.comparison_as_text({"project": "Cells", **comparison})
    comparison["runs"][0]["curves"] = comparison["runs"][1]["curves"]  # the fixture's first run was never validated
    assert "on the labels of that time" in comparison_report.render(comparison, "Cells", ".html")
    assert turned["truth"] == comparison["truth"]  # the newer labels, whichever side they stand on
    figures = comparison["differences"]["map"], turned["differences"]["map"]
    assert (figures[0]["first"], figures[0]["second"]) == (figures[1]["second"], figures[1]["first"])


def test_an_image_that_was_turned_between_the_runs_is_not_compared(project):
    with project.services.database(project.slug).write() as db:
        db.execute("UPDATE image SET rotation = 180 WHERE id = ?", [project.image_ids["valid"][0]])
        db.execute("UPDATE annotation SET x1 = x1 / 2 WHERE image_id = ?", [project.image_ids["valid"][0]])
    comparison = compare(project, project.run_id, add_run(project, {}, project.set_ids[0], [0.5]))
    assert (comparison["images"], comparison["left_out"], comparison["truth"]["relabeled"]) == (5, 1, [])


def test_runs_that_cannot_be_compared_are_refused(project, second):
    with pytest.raises(BadRequest, match="with itself"):
        compare(project, project.run_id, project.run_id)
    with pytest.raises(NotFound):
        compare(project, project.run_id, 99)
    path = project.services.files(project.slug).run(second) / "dataset.json"
    document = orjson.loads(path.read_bytes())
    document["categories"][0]["name"] = "Other"
    path.write_bytes(orjson.dumps(document))
    with pytest.raises(BadRequest, match="different classes"):
        compare(project, project.run_id, second)


def test_ensembles_and_checkpoints_are_sides_too(project):
    ensemble = Side("set", add_ensemble(project))
    third = Side("checkpoint", project.checkpoint_ids[2])
    compared = comparing.compare(project.services, project.slug, third, ensemble)
    assert [item["name"] for item in compared["runs"]] == ["First run, Epoch 2", "First run, WBF of 2, IoU 0.55"]
    assert compared["differences"]["map"]["difference"] > 0
    assert [(row["title"], row["texts"]) for row in compared["config"]] == [("Fusing: IoU", ["–", "0.55"])]
    assert [row["name"] for row in compared["per_class"]] == ["Red cell", "White cell"]
    with pytest.raises(BadRequest, match="of valid images, not of test"):
        comparing.compare(project.services, project.slug, third, ensemble, "test")
    on_test = Side("set", add_ensemble(project, "test"))
    with pytest.raises(BadRequest, match="of valid images, not of test"):
        comparing.describe(project.services, project.slug, [on_test, ensemble])  # the first set says the split
    assert comparing.describe(project.services, project.slug, [on_test, third])["split"] == "test"


def test_the_best_checkpoint_of_a_run_is_the_run(project):
    best = Side("checkpoint", project.checkpoint_ids[0])
    with pytest.raises(BadRequest, match="with itself"):
        comparing.compare(project.services, project.slug, Side("run", project.run_id), best)
    with pytest.raises(BadRequest, match="with itself"):  # before anything is predicted
        comparing.compare(project.services, project.slug, Side("run", project.run_id), best, "test")
    assert jobs.list_jobs(project.services, project.slug)[0].kind == "train"


@pytest.mark.parametrize("text", ["run", "run-", "run-x", "run-0", "walk-1", "run--1", f"set-{2**63}", "<b>"])
def test_what_names_no_side_is_refused(text):
    with pytest.raises(BadRequest, match=r"Write run-ID"):
        parse_side(text)
    assert str(parse_side("checkpoint-19")) == "checkpoint-19"


def test_sides_are_described_before_they_are_judged(project, second):
    sides = [Side("run", project.run_id), Side("run", second), Side("checkpoint", project.checkpoint_ids[2])]
    described = comparing.describe(project.services, project.slug, sides)
    assert [side["set"] is None for side in described["sides"]] == [False] * 3
    assert [side["images"] for side in described["sides"]] == [6] * 3
    epochs = next(row for row in described["config"] if row["option"] == "epochs")
    assert epochs["values"] == [4, 3, 4] and "training image" in epochs["help"]
    missing = comparing.describe(project.services, project.slug, sides, "test")["sides"][0]
    assert (missing["set"], missing["job"]) == (None, None)
    with pytest.raises(Conflict, match="First run has no predictions on test yet"):
        comparing.find_figures(project.services, project.slug, *sides[:2], "test")
    job = jobs.enqueue(
        project.services, project.slug, "predict", {"checkpoint_id": missing["checkpoint_id"], "split": "test"}
    )
    assert comparing.describe(project.services, project.slug, sides, "test")["sides"][0]["job"] == job.id
    with pytest.raises(BadRequest, match="1 to 6 sides"):
        comparing.describe(project.services, project.slug, sides * 3)


def test_figures_are_made_once_and_anew_for_other_predictions(project, second, monkeypatch):
    made = []
    compare_sets = bootstrap.compare_sets
    monkeypatch.setattr(
        bootstrap, "compare_sets", lambda *given, **named: (made.append(1), compare_sets(*given, **named))[1]
    )
    before = compare(project, project.run_id, second)
    assert compare(project, project.run_id, second) == before and made == [1]
    checkpoint_id = predictions.get_set(project.services.database(project.slug), before["runs"][1]["set"]).checkpoint_id
    with project.services.database(project.slug).write() as db:
        predictions.store_predictions(
            db, run_id=second, split="valid", detections={}, snapshot_sha256="a" * 64, checkpoint_id=checkpoint_id
        )
    assert compare(project, project.run_id, second)["differences"]["map"]["second"] == 0.0
    assert made == [1, 1]


def test_figures_are_made_on_a_thread_that_tells_and_can_be_stopped(project, second, monkeypatch):
    go_on = threading.Event()
    compare_sets = bootstrap.compare_sets

    def slowly(*given, on_progress, **named):
        on_progress(250, 1000)
        assert go_on.wait(10)
        return compare_sets(*given, on_progress=on_progress, **named)

    monkeypatch.setattr(bootstrap, "compare_sets", slowly)
    asked = (project.services, project.slug, Side("run", project.run_id), Side("run", second))
    answer = comparing.find_figures(*asked, wait_s=0.5)
    assert answer["state"] == "working"
    assert (answer["progress"]["done"], answer["progress"]["total"]) == (250, 1000)
    assert answer["progress"]["eta_s"] > 0
    comparing.stop_figures(*asked)
    go_on.set()
    assert not list(project.services.files(project.slug).run(second).glob("compared/*"))
    answer = comparing.find_figures(*asked, wait_s=20)  # begun anew
    assert answer["state"] == "ready" and "mAP50" in answer["figures"]["verdict"]
    monkeypatch.setattr(bootstrap, "compare_sets", None)
    assert comparing.find_figures(*asked) == answer  # kept


def test_what_ends_the_work_is_told_to_who_asks(project, second, monkeypatch):
    asked = (project.services, project.slug, Side("run", project.run_id), Side("run", second))

    def fail(*given):
        raise BadRequest("The two share no image of the valid split.")

    with monkeypatch.context() as patched:
        patched.setattr(pair_figures, "load_pair", fail)
        with pytest.raises(BadRequest, match="share no image"):
            comparing.find_figures(*asked, wait_s=20)
    assert comparing.find_figures(*asked, wait_s=20)["state"] == "ready"


def test_images_come_by_what_only_one_side_found(project, second):
    sides = (Side("run", project.run_id), Side("run", second))
    page = comparison_images.list_images(project.services, project.slug, *sides, limit=500)
    figures = comparing.find_figures(project.services, project.slug, *sides, wait_s=20)["figures"]
    differences = []
    for image in page["images"]:
        outcomes = []
        for side in ("first", "second"):
            detections = Detections(image[side]["boxes"], image[side]["scores"], image[side]["labels"])
            found = match(
                image["truth"]["boxes"], image["truth"]["labels"], detections, 0.5, figures[side]["f1_threshold"]
            )
            outcomes.append((set(found.missed.tolist()), found.num_fp))
        (missed, false), (other_missed, other_false) = outcomes
        differences.append(len(missed ^ other_missed) + abs(false - other_false))
    assert len(differences) == page["total"] == 6 and page["next"] is None
    assert differences == sorted(differences, reverse=True) and differences[0] > 0
    later = comparison_images.list_images(project.services, project.slug, *sides, after=4, limit=1)
    assert (later["images"][0]["id"], later["next"]) == (page["images"][4]["id"], 5)


def test_notes_that_changed_elsewhere_are_not_written_over(project):
    at = (project.services, project.slug, project.run_id)
    run_notes.set_notes(*at, {"hypothesis": "One."}, {"hypothesis": ""})
    with pytest.raises(run_notes.StaleNotes) as refused:
        run_notes.set_notes(*at, {"hypothesis": "Other.", "setup": "x"}, {"hypothesis": "", "setup": ""})
    assert refused.value.current["hypothesis"] == "One."
    assert run_notes.get_notes(*at)["setup"] == ""  # all or nothing
    run_notes.set_notes(*at, {"setup": "Mine."}, {"setup": ""})  # another part: no conflict
    run_notes.set_notes(*at, {"hypothesis": "One."}, {"hypothesis": ""})  # the answer to the first save was lost
    run_notes.set_notes(*at, {"hypothesis": "Two."}, {"hypothesis": "One."})
    assert run_notes.get_notes(*at)["hypothesis"] == "Two."


def test_notes_are_kept_by_part(project):
    at = (project.services, project.slug, project.run_id)
    assert run_notes.get_notes(*at) == dict.fromkeys(run_notes.PARTS, "")
    run_notes.set_notes(*at, {"hypothesis": " Larger images help. "})
    run_notes.set_notes(*at, {"conclusion": "They do."})
    assert run_notes.get_notes(*at) == {
        "hypothesis": "Larger images help.", "setup": "", "results": "", "conclusion": "They do."
    }  # fmt: skip
    with pytest.raises(BadRequest, match="hypothesis, setup"):
        run_notes.set_notes(*at, {"summary": "x"})
    with pytest.raises(BadRequest, match="10000"):
        run_notes.set_notes(*at, {"setup": "x" * 10_001})
    with pytest.raises(NotFound):
        run_notes.get_notes(project.services, project.slug, 99)


@pytest.mark.parametrize("suffix", [".html", ".md"])
def test_a_report_has_everything_inside_and_shows_text_as_text(project, comparison, tmp_path, suffix):
    comparison["runs"][1]["name"] = "A & <i>B</i>"
    comparison["runs"][0]["notes"]["hypothesis"] = "<script>alert(1)</script> | *less*"
    path = tmp_path / f"report{suffix}"
    comparison_report.write_report(comparison, "Blood cells", path)
    text = path.read_text(encoding="utf-8")
    assert comparison["verdict"].split(":")[0] in text
    if suffix == ".md":
        assert "\\| \\*less\\*" in text and not re.search(r"(?<!\\)<", text)
        figures = [b64decode(data).decode() for data in re.findall(r"base64,([A-Za-z0-9+/=]+)\)", text)]
    else:
        assert not any(mark in text for mark in ("<script", "<b>x", "<i>"))
        figures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(figures) >= 2
    for svg in figures:
        ET.fromstring(svg)
    everything = text + "".join(figures)
    addresses = set(re.findall(r"[a-z]+://[^\s\"'<>)]+", everything)) - {"http://www.w3.org/2000/svg"}
    assert addresses == set()
    assert not re.search(r"(src|href|url\(|@import)", everything)


def test_curves_are_drawn_where_both_runs_were_validated(project, second, tmp_path):
    third = add_run(project, {}, project.set_ids[0], [0.55, 0.7, 0.65])
    comparison = compare(project, second, third)
    html = comparison_report.to_html(comparison_report.compose(comparison, "Blood cells"))
    assert html.count("<polyline") == 4
    assert "minutes of training" in html
    assert "by A in epoch 2 after 0.3 minutes, by B in epoch 2 after 0.3 minutes." in html


@pytest.mark.parametrize("suffix", [".html", ".md"])
def test_a_report_holds_every_side_that_is_shown_by_the_letters_of_the_page(project, second, suffix):
    third = add_run(project, {"epochs": 5, "image_size": 640}, project.set_ids[0], [0.55, 0.7, 0.65], name="Third run")
    run_notes.set_notes(project.services, project.slug, second, {"setup": "Another rate."})
    shown = [Side("run", number) for number in (project.run_id, second, third)]
    compared = comparing.compare(project.services, project.slug, shown[0], shown[2], shown=shown)
    assert compared["pair"] == [0, 2] and [("error_budget" in run) for run in compared["runs"]] == [True, False, True]
    text = comparison_report.render(compared, "Blood cells", suffix)
    assert "B: Second run (in options, curves and notes)" in text and "A: First run" in text
    assert "C less A" in text and "C better in" in text and "C is better" not in text.split("Classes")[1]
    for told in ("B Second run", "Image size", "Another rate.", "by B in epoch 2", "Never validated: A First run."):
        assert told in text
    row = next(line for line in text.splitlines() if re.match(r"(<tr><td>|\| )Epochs", line))
    assert re.findall(r"\d+", row) == ["4", "3", "5"]
    if suffix == ".html":
        colors = re.findall(r"<polyline[^>]*stroke=\"(.*?)\"", text)
        assert colors == ["#d55e00", "#009e73"] * 2  # those of B and C on the page
        assert 'height="11" fill="#009e73"' in text and 'height="11" fill="#d55e00"' not in text
    with pytest.raises(BadRequest, match="run-1 is compared"):
        comparing.compare(project.services, project.slug, *shown[:2], shown=shown[1:])


def test_sides_of_one_run_have_one_curve_and_one_sheet_of_notes(project, second):
    database = project.services.database(project.slug)
    (record,) = predictions.list_sets(database, run_id=second)
    with database.write() as db:
        ensemble = predictions.store_predictions(
            db, run_id=second, split="valid", detections=predictions.read_detections(database, project.set_ids[1]),
            snapshot_sha256="a" * 64, members=[record.id], options={"iou_threshold": 0.55, "weights": []},
        )  # fmt: skip
    sides = (Side("run", second), Side("set", ensemble))
    compared = comparing.compare(project.services, project.slug, *sides)
    assert compared["reached"] is None and compared["runs"][0]["curves"]["best"]
    html = comparison_report.render(compared, "Blood cells", ".html")
    assert html.count("<polyline") == 2 and html.count("Hypothesis") == 1
    assert f"<h3>Run {second}, of A and B</h3>" in html
    assert "null" not in html and "[]" not in html


def test_a_report_says_what_is_within_the_noise(project):
    sides = (Side("run", project.run_id), Side("set", add_ensemble(project)))
    compared = comparing.compare(project.services, project.slug, *sides)
    html = comparison_report.render(compared, "Blood cells", ".html")
    assert html.count("+0.000 (+0.000 to +0.000), within the noise") == 5
    assert "both have the same mAP50" in html and html.count('stroke="#7b8794"') == 5


def test_a_report_writes_figures_as_the_page_and_each_name_once(project, second):
    compared = compare(project, project.run_id, second)
    low = compared["differences"]["map"]["low"]
    assert low < 0
    for suffix in (".html", ".md"):
        text = comparison_report.render(compared, "Blood cells", suffix)
        assert f"−{-low:.3f}" in text and not re.search(r"[ (|>]-\d\.\d{3}", text)
        assert "First run and Second run" in text and f"({second})" not in text
    compared["runs"][1]["name"] = "A_long_name_" * 8 + "<i>-0.123"
    html = comparison_report.render(compared, "Blood cells", ".html")
    (head, *_) = re.findall(r"<th>(B A_.*?)</th>", html)
    assert head.replace("<wbr>", "") == "B " + "A_long_name_" * 8 + "&lt;i&gt;-0.123"
    assert max(map(len, head.split("<wbr>"))) <= 25  # else the table is wider than the page
    compared["runs"][1]["name"] = compared["runs"][0]["name"]
    html = comparison_report.render(compared, "Blood cells", ".html")
    assert f"<h1>First run (run {project.run_id}) and First run (run {second})</h1>" in html
    compared["runs"][1]["run"] = project.run_id
    first, other = (item["set"] for item in compared["runs"])
    html = comparison_report.render(compared, "Blood cells", ".html")
    assert f"<h1>First run (set {first}) and First run (set {other})</h1>" in html


def test_another_kind_of_file_is_refused(comparison, tmp_path):
    with pytest.raises(BadRequest, match="report.pdf"):
        comparison_report.write_report(comparison, "x", tmp_path / "report.pdf")
