import json

import orjson
import pytest

from app import cli_text
from app.errors import BadRequest, Cancelled, NotFound
from app.services import ensemble_lab, ensembling, jobs
from app.store import jobs as job_store
from app.store import predictions, runs, timings
from tests.services.review_project import make_review_project


@pytest.fixture(scope="module", autouse=True)
def no_worker():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "ensure_worker", lambda services: None)
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_review_project(tmp_path_factory.mktemp("lab"), num_valid=25)


@pytest.fixture(scope="module")
def result(project):
    """A lab over the three checkpoints, done and stored as its job does it."""
    job = request(project)
    return {"job": job.id, **finish(project, job)}


def request(project, **given):
    return ensemble_lab.request_lab(
        project.services, project.slug, **{"checkpoint_ids": project.checkpoint_ids[:3], **given}
    )


def never_predict(*asked):
    raise AssertionError("nothing had to be predicted")


def carry_out(project, job, predict=never_predict, **given):
    return ensemble_lab.carry_out(project.services, project.slug, job.payload, predict=predict, **given)


def finish(project, job, **given):
    """Do a lab as its job does it, and read it."""
    database = project.services.database(project.slug)
    running = job_store.claim(database, job.id)
    job_store.finish(database, job.id, running.attempt, "done", carry_out(project, job, **given))
    return ensemble_lab.lab(project.services, project.slug, job.id)


class Predictor:
    """Stands in for the detectors: finds the same in all views, but a little worse; notes what it was asked for."""

    def __init__(self, project):
        self.project, self.asked, self.told = project, [], []

    def __call__(self, checkpoint_id, split, views, tell):
        self.asked.append((checkpoint_id, views))
        database = self.project.services.database(self.project.slug)
        of = self.project.checkpoint_ids.index(checkpoint_id)
        found = predictions.read_detections(database, self.project.set_ids[of])
        for done in range(len(found) + 1):
            tell(done)
        with database.write() as db:
            predictions.store_predictions(
                db,
                run_id=self.project.run_id,
                split=split,
                detections={image_id: one.select(slice(1, None)) for image_id, one in found.items()},
                snapshot_sha256="a" * 64,
                checkpoint_id=checkpoint_id,
                options={"test_time_augmentation": views},
            )


def test_every_method_is_tuned_on_one_half_and_judged_on_the_other(result):
    assert [row["method"] for row in result["methods"]] == ["wbf", "nms", "soft_nms", "nmw"]
    assert result["num_tuning_images"] + result["num_judging_images"] == 25
    assert abs(result["num_tuning_images"] - result["num_judging_images"]) <= 1
    for row in result["methods"]:
        assert {"map", "map50", "map75", "f1", "threshold", "score"} <= set(row["judged"])
        assert row["judged"]["threshold"] == row["tuned"]["threshold"]
        assert row["judged"]["map"] != row["tuned"]["map"]
        assert row["fuse_ms"] > 0
        assert max(row["options"]["weights"]) == 1 and len(row["options"]["weights"]) == 3
    best = result["methods"][result["best"]]
    assert best["tuned"]["score"] == max(row["tuned"]["score"] for row in result["methods"])


def test_contribution_is_the_whole_less_the_ensemble_without_the_member(result):
    whole = result["methods"][result["best"]]["judged"]
    assert len(result["contributions"]) == 3
    for row in result["contributions"]:
        assert row["map"] == pytest.approx(whole["map"] - row["without"]["map"])
    assert len({row["score"] for row in result["contributions"]}) == 3


def test_smallest_subset_is_within_two_tenths_of_a_point_of_the_best(result):
    assert result["near_best"] == 0.002
    assert result["smallest"]["num_tried"] == 7
    chosen = result["smallest"]
    assert chosen["tuned"]["map"] >= result["methods"][result["best"]]["tuned"]["map"] - 0.002


def test_verdict_compares_with_the_best_member_on_images_that_tuning_did_not_see(result):
    chosen = max(result["alone"], key=lambda row: row["tuned"]["score"])  # not by the images that judge
    best = chosen["judged"]["score"]
    assert result["alone"][result["best_alone"]] == chosen
    assert result["gain"] == pytest.approx(result["methods"][result["best"]]["judged"]["score"] - best)
    noise = result["noise"]
    assert noise["difference"] == pytest.approx(result["gain"])  # F1 at the thresholds of the tuning half, too
    assert noise["low"] <= noise["difference"] <= noise["high"] and noise["detectable"] > 0
    assert result["outcome"] == noise["outcome"] and result["is_gain"] == (noise["low"] > 0)
    assert result["verdict"].startswith(f"{noise['words']}: ")
    assert f"{best:.3f} for the member that was best in tuning" in result["verdict"]


def test_labs_are_read_again_by_number_newest_first(project, result):
    listed = ensemble_lab.list_labs(project.services, project.slug)
    assert [lab["id"] for lab in listed] == [result["job"]]
    assert listed[0]["verdict"] == result["verdict"]
    with pytest.raises(NotFound, match="no finished lab"):
        ensemble_lab.lab(project.services, project.slug, 1)


def test_the_same_predictions_thrice_are_no_gain_and_one_member_is_enough(project, tmp_path, monkeypatch):
    copies = make_review_project(tmp_path, num_valid=12)
    database = copies.services.database(copies.slug)
    best = predictions.read_detections(database, copies.set_ids[0])
    for checkpoint_id in copies.checkpoint_ids[1:3]:
        with database.write() as db:
            predictions.store_predictions(
                db,
                run_id=copies.run_id,
                split="valid",
                detections=best,
                snapshot_sha256="a" * 64,
                checkpoint_id=checkpoint_id,
            )
    found = carry_out(copies, request(copies))
    assert (found["outcome"], found["is_gain"], len(found["smallest"]["members"])) == ("noise", False, 1)
    assert found["verdict"].startswith("Within the noise: ")


def test_cost_is_that_of_all_members_and_of_fusing_as_predicting_took_or_the_models_alone(project, result):
    def read():
        return ensemble_lab.lab(project.services, project.slug, result["job"])

    database = project.services.database(project.slug)
    assert (read()["methods"][0]["cost_ms"], read()["methods"][0]["num_passes"]) == (None, 3)
    with database.write() as db:
        db.execute("UPDATE run SET config = ?", ['{"model": "small", "image_size": 320}'])
    timing = {"model": "small", "image_size": 640, "device": "cpu", "train_s": 0.2, "predict_s": 0.01}
    timings.keep(project.services.workspace, timing)
    assert read()["alone"][0]["cost_ms"] is None
    timings.keep(project.services.workspace, {**timing, "image_size": 320, "predict_s": 0.05})
    found = read()
    assert [row["cost_ms"] for row in found["alone"]] == [50, 50, 50]
    assert found["methods"][0]["cost_ms"] == pytest.approx(150 + found["methods"][0]["fuse_ms"])
    assert found["costs"] == {"how": "alone", "devices": []}
    with database.write() as db:
        db.execute("UPDATE prediction_set SET ms_per_image = id * 10, device = 'a gpu'")
    found = read()
    assert found["costs"] == {"how": "predicting", "devices": ["a gpu"]}
    members = [10 * set_id for set_id in found["sets"]["off"]]
    assert [row["cost_ms"] for row in found["alone"]] == members
    assert [row["cost_ms"] - row["fuse_ms"] for row in found["methods"]] == [pytest.approx(sum(members))] * 4
    with database.write() as db:
        db.execute("UPDATE prediction_set SET ms_per_image = NULL WHERE id = ?", [found["sets"]["off"][0]])
    assert read()["costs"] == {"how": "alone", "devices": []}


def test_views_that_are_missing_are_predicted_once_and_compared_in_one_table(tmp_path):
    project = make_review_project(tmp_path, num_valid=12)
    predictor = Predictor(project)
    seen = []
    wanted = request(project, checkpoint_ids=project.checkpoint_ids[:2], views=("off", "flip"))
    found = finish(project, wanted, predict=predictor, on_progress=lambda *step: seen.append(step))
    assert predictor.asked == [(checkpoint_id, "flip") for checkpoint_id in project.checkpoint_ids[:2]]
    assert [(row["views"], row["method"]) for row in found["methods"]] == [
        (views, method) for views in ("off", "flip") for method in ("wbf", "nms", "soft_nms", "nmw")
    ]
    assert [(row["views"], row["num_passes"]) for row in found["alone"]] == [("off", 1)] * 2 + [("flip", 2)] * 2
    assert found["methods"][4]["num_passes"] == 4
    best = found["methods"][found["best"]]
    assert best["tuned"]["score"] == max(row["tuned"]["score"] for row in found["methods"])
    assert seen[0][2] == "Predicting 1 of 2: Epoch 4, flip" and seen[0][3] > 0
    shares = [step[0] for step in seen]
    assert shares == sorted(shares) and shares[-1] == 1
    again = finish(project, request(project, checkpoint_ids=project.checkpoint_ids[:2], views=("flip",)))
    assert again["num_predicted"] == 0  # never_predict was not called
    best_alone = found["alone"][found["best_alone"]]
    assert f"Epoch {4 - best_alone['member']}, one view" in found["verdict"]


def test_a_stop_while_predicting_keeps_whole_predictions_and_nothing_else(tmp_path):
    project = make_review_project(tmp_path, num_valid=6)
    predictor = Predictor(project)
    wanted = request(project, views=("flip",))

    def stop_at_the_second(*asked):
        if predictor.asked:
            raise Cancelled("stopped")
        predictor(*asked)

    with pytest.raises(Cancelled):
        carry_out(project, wanted, stop_at_the_second)
    database = project.services.database(project.slug)
    flipped = [item for item in predictions.list_sets(database) if item.test_time_augmentation == "flip"]
    assert [item.checkpoint_id for item in flipped] == project.checkpoint_ids[:1]
    assert len(predictions.read_detections(database, flipped[0].id)) == 6
    assert ensemble_lab.list_labs(project.services, project.slug) == []
    carry_out(project, wanted, predictor)
    assert [asked[0] for asked in predictor.asked] == project.checkpoint_ids[:3]


def test_models_that_costs_wait_for_are_measured_with_the_options_of_their_run(tmp_path):
    project = make_review_project(tmp_path, num_valid=8)
    config = {"model": "fasterrcnn_resnet50_fpn_v2", "image_size": 320, "epochs": 4}
    with project.services.database(project.slug).write() as db:
        db.execute("UPDATE run SET config = ?", [json.dumps(config)])
    lab = finish(project, request(project))
    job = ensemble_lab.request_measurement(project.services, project.slug, lab["id"])
    assert job.payload == {"models": [config["model"]], "options": {"image_size": 320}}
    timing = {"model": config["model"], "image_size": 320, "device": "cpu", "train_s": 0.2, "predict_s": 0.01}
    timings.keep(project.services.workspace, timing)
    with pytest.raises(BadRequest, match="measured already"):
        ensemble_lab.request_measurement(project.services, project.slug, lab["id"])
    runs.delete_run(project.services.database(project.slug), project.run_id)
    kept = ensemble_lab.lab(project.services, project.slug, lab["id"])  # a lab outlives its run
    assert (kept["verdict"], kept["methods"][0]["cost_ms"]) == (lab["verdict"], None)
    with pytest.raises(NotFound):
        ensemble_lab.request_ensemble(project.services, project.slug, lab["id"], 0)


def test_a_row_becomes_an_ensemble_with_the_threshold_of_the_tuning_half(project, result):
    job = ensemble_lab.request_ensemble(project.services, project.slug, result["job"], 2)
    table = ensembling.carry_out(
        project.services,
        project.slug,
        job.payload,
        predict=never_predict,
        write=project.services.database(project.slug).write,
    )
    record = predictions.get_set(project.services.database(project.slug), table["set"])
    row = result["methods"][2]
    assert record.options == {**row["options"], "score_threshold": row["judged"]["threshold"]}
    assert (record.name, record.members) == ("Soft-NMS of 3, tuned", tuple(project.set_ids))
    with project.services.database(project.slug).write() as db:
        db.execute("DELETE FROM prediction_set WHERE id = ?", [table["set"]])


def test_members_of_several_runs_are_told_by_their_runs_too(tmp_path):
    project = make_review_project(tmp_path, num_valid=8)
    services, slug, database = project.services, project.slug, project.services.database(project.slug)
    with database.write() as db:
        second = runs.create_run(db, jobs.list_jobs(services, slug)[-1].id, "Second run", {})
        db.execute("UPDATE checkpoint SET run_id = ? WHERE id = ?", [second, project.checkpoint_ids[1]])
        db.execute("UPDATE prediction_set SET run_id = ? WHERE id = ?", [second, project.set_ids[1]])
    target = services.files(slug).run(second) / "dataset.json"
    target.parent.mkdir(parents=True)
    source = (services.files(slug).run(project.run_id) / "dataset.json").read_bytes()
    target.write_bytes(source)
    chosen = {"checkpoint_ids": project.checkpoint_ids[:2]}
    same = finish(project, request(project, **chosen))
    assert [member["name"] for member in same["members"]] == ["First run, Epoch 4", "Second run, Epoch 3"]
    assert same["truth"]["words"] == []
    document = orjson.loads(source)
    moved = [box for box in document["annotations"] if box["image_id"] == project.image_ids["valid"][0]]
    for box in moved:
        box["bbox"][2] /= 2
    target.write_bytes(orjson.dumps(document))
    found = finish(project, request(project, **chosen))
    assert found["truth"]["words"] == [
        "Judged on the labels of run 2 (Second run); 1 image of valid was relabeled since run 1 (First run)."
    ]
    assert found["truth"]["words"][0] in cli_text.lab_as_text(found)
    assert found["alone"][0] != same["alone"][0]  # the older run's member, too, on the newer labels
    kept = ensemble_lab.request_ensemble(services, slug, found["id"], 0)
    assert kept.payload["run_id"] == second
    target.write_bytes(source.replace(b'"Red cell"', b'"Blue cell"'))
    with pytest.raises(BadRequest, match="'Red cell' in run 1 and 'Blue cell' in run 2"):
        request(project, **chosen)


def test_stored_sets_of_any_kind_can_be_members(project):
    payload = request(project, checkpoint_ids=(), set_ids=project.set_ids[:2]).payload
    assert payload["members"] == [{"set_id": number} for number in project.set_ids[:2]]
    assert payload["views"] == ["stored"]
    best = request(project, checkpoint_ids=(), run_id=project.run_id).payload
    assert best["members"] == [{"checkpoint_id": number} for number in project.checkpoint_ids[:3]]
    assert best["views"] == ["off"]


def test_progress_never_goes_back_and_a_stop_ends_it(project):
    seen = []
    carry_out(project, request(project), on_progress=lambda *step: seen.append(step))
    assert [step[0] for step in seen] == sorted(step[0] for step in seen)
    assert seen[-1][0] == seen[-1][1]
    assert sum(1 for step in seen if step[0] == step[1]) < len(seen) / 3  # the end was not reached long before
    assert all(step[3] >= 0 for step in seen) and seen[-1][3] == 0
    with pytest.raises(Cancelled):
        carry_out(project, request(project), should_stop=lambda: True)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"checkpoint_ids": [1]}, "there are 1"),
        ({"checkpoint_ids": [1, 1]}, "there are 1"),
        ({"views": ("upside down",)}, "Views are off, flip"),
        ({"split": "holdout"}, "split"),
        ({"set_ids": [1]}, "a member twice"),
        ({"checkpoint_ids": (), "set_ids": [1, 2], "split": "test"}, "of the valid split"),
        ({"checkpoint_ids": (), "run_id": None}, "Name a run"),
    ],
)
def test_labs_that_cannot_work_are_refused_before_they_are_queued(project, given, reason):
    with pytest.raises(BadRequest, match=reason):
        request(project, **given)


def test_a_split_of_one_source_cannot_be_halved(tmp_path):
    project = make_review_project(tmp_path, num_valid=4)
    with project.services.database(project.slug).write() as db:
        db.execute("UPDATE image SET source_key = 'one' WHERE split = 'valid'")
    with pytest.raises(BadRequest, match="too few labeled images of different sources"):
        request(project)
