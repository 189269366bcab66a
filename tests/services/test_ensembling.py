import pytest

from app.errors import BadRequest, Cancelled, UserError
from app.pipeline.evaluate.coco_numbers import GroundTruth, evaluate
from app.pipeline.types import Detections
from app.services import comparing, ensembling, jobs, review, truths
from app.services.comparison_sides import parse_side
from app.store import predictions, runs
from tests.services.review_project import make_review_project
from tests.services.test_comparing import add_run


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    return make_review_project(tmp_path)


def never_predict(checkpoint_id, split, views):
    raise AssertionError("nothing had to be predicted")


def carry_out(project, job, predict=never_predict, **given):
    database = project.services.database(project.slug)
    return ensembling.carry_out(
        project.services, project.slug, job.payload, predict=predict, write=database.write, **given
    )


def request(project, **given):
    return ensembling.request_ensemble(project.services, project.slug, **{"run_id": project.run_id, **given})


def test_best_three_of_a_run_are_fused_by_default(project):
    job = request(project)
    assert (job.kind, job.payload["checkpoint_ids"]) == ("ensemble", project.checkpoint_ids[:3])
    assert (job.payload["split"], job.payload["options"]["method"]) == ("valid", "wbf")


@pytest.mark.parametrize("top", [-3, 0, 1, 1000])
def test_number_of_members_out_of_range_is_refused(project, top):
    with pytest.raises(BadRequest, match=f"{top} were asked for"):
        request(project, top=top)


def test_last_checkpoint_fills_up_only_when_it_is_another_epoch(project):
    assert request(project, top=4).payload["checkpoint_ids"] == project.checkpoint_ids
    database = project.services.database(project.slug)
    with database.write() as db:
        db.execute("UPDATE checkpoint SET epoch = 4 WHERE is_last")
    assert request(project, top=4).payload["checkpoint_ids"] == project.checkpoint_ids[:3]


@pytest.mark.parametrize(
    ("method", "title"),
    [
        ("wbf", "WBF of 3, IoU 0.55"),
        ("nms", "NMS of 3, IoU 0.55"),
        ("soft_nms", "Soft-NMS of 3"),
        ("nmw", "NMW of 3, IoU 0.55"),
    ],
)
def test_ensemble_is_stored_and_judged_beside_its_members(project, method, title):
    seen = []
    table = carry_out(
        project, request(project, options={"method": method}), on_progress=lambda *step: seen.append(step)
    )
    assert [row["set"] for row in table["rows"]] == [*project.set_ids, table["set"]]
    assert [row["is_ensemble"] for row in table["rows"]] == [False, False, False, True]
    best = max(row["score"] for row in table["rows"][:-1])
    assert table["gain"]["score"] == pytest.approx(table["rows"][-1]["score"] - best)
    assert (table["noise"], table["outcome"], table["is_gain"]) == (None, None, None)  # asked for afterwards
    assert table["verdict"].startswith(f"{table['rows'][-1]['score']:.3f} as an ensemble, {best:.3f} for its best")
    assert seen[-1] == (6, 6, "Fusing")
    record = predictions.get_set(project.services.database(project.slug), table["set"])
    assert (record.kind, record.options["method"], record.members) == ("ensemble", method, tuple(project.set_ids))
    with project.services.database(project.slug).write() as db:  # as earlier versions wrote it
        db.execute("UPDATE prediction_set SET name = ? WHERE id = ?", [f"{method.upper()} of 3", record.id])
    assert review.overview(project.services, project.slug)[0]["sets"][0]["title"] == title
    table = ensembling.comparison(project.services, project.slug, record.id)
    assert table["rows"][-1]["name"] == record.name == title.split(",")[0]


def test_what_was_fused_before_keeps_its_number(project):
    first = carry_out(project, request(project))
    other = carry_out(project, request(project, options={"method": "nms"}))
    again = carry_out(project, request(project))
    assert again == first and other["set"] != first["set"]
    assert carry_out(project, request(project, score_threshold=0.4))["set"] not in (first["set"], other["set"])
    database = project.services.database(project.slug)
    with database.write() as db:  # as a version stored it that did not measure
        db.execute("UPDATE prediction_set SET ms_per_image = NULL WHERE id = ?", [first["set"]])
    anew = carry_out(project, request(project))
    assert anew["set"] != first["set"] and predictions.get_set(database, anew["set"]).ms_per_image > 0


def test_cost_is_what_members_took_and_fusing_on_top(project):
    database = project.services.database(project.slug)
    untimed = carry_out(project, request(project))["rows"]
    assert [row["cost_ms"] for row in untimed] == [None] * 4
    for set_id, ms in zip(project.set_ids, (4.0, 5.0, 6.0), strict=True):
        with database.write() as db:
            db.execute("UPDATE prediction_set SET ms_per_image = ?, device = 'a gpu' WHERE id = ?", [ms, set_id])
    *members, ensemble = carry_out(project, request(project))["rows"]
    assert [(row["cost_ms"], row["devices"]) for row in members] == [(ms, ["a gpu"]) for ms in (4, 5, 6)]
    fusing = predictions.get_set(database, ensemble["set"]).ms_per_image
    assert fusing > 0 and ensemble["cost_ms"] == pytest.approx(15 + fusing)
    assert ensemble["devices"] == ["a gpu"]
    nested = request(project, set_ids=[ensemble["set"], project.set_ids[0]])
    assert carry_out(project, nested)["rows"][-1]["cost_ms"] > ensemble["cost_ms"] + 4
    with database.write() as db:
        db.execute("DELETE FROM prediction_set WHERE id = ?", [project.set_ids[2]])
    assert ensembling.comparison(project.services, project.slug, ensemble["set"])["rows"][-1]["cost_ms"] is None


def test_ensemble_has_a_threshold_of_its_own(project):
    table = carry_out(project, request(project))
    *members, ensemble = table["rows"]
    own = review.judge(project.services, project.slug, table["set"]).evaluation
    assert ensemble["threshold"] == own.f1_threshold
    assert ensemble["threshold"] not in [row["threshold"] for row in members]


def test_the_same_weights_thrice_are_no_gain(project):
    database = project.services.database(project.slug)
    best = predictions.read_detections(database, project.set_ids[0])
    for checkpoint_id in project.checkpoint_ids[1:3]:
        with database.write() as db:
            predictions.store_predictions(
                db,
                run_id=project.run_id,
                split="valid",
                detections=best,
                snapshot_sha256="a" * 64,
                checkpoint_id=checkpoint_id,
            )
    number = carry_out(project, request(project))["set"]
    table = ensembling.measure_noise(project.services, project.slug, number)
    assert (table["outcome"], table["is_gain"]) == ("noise", False)
    assert table["verdict"].startswith("Within the noise: ")


def test_ensemble_is_told_from_its_best_member_as_compare_tells_them(project):
    table = carry_out(project, request(project))
    asked = (project.services, project.slug, table["set"])
    answer = ensembling.find_noise(*asked, wait_s=30)
    measured = answer["table"]
    assert ensembling.measure_noise(*asked) == ensembling.comparison(*asked) == measured
    assert measured["rows"] == table["rows"]
    best, ensemble = measured["rows"][measured["best"]], measured["rows"][-1]
    noise = measured["noise"]
    assert (noise["figure"], noise["difference"]) == ("map50_f1", pytest.approx(table["gain"]["score"]))
    assert noise["low"] <= noise["difference"] <= noise["high"]
    sides = [parse_side(row["side"]) for row in (best, ensemble)]
    compared = comparing.find_figures(project.services, project.slug, *sides, wait_s=0)  # kept: no work is begun
    assert compared["figures"]["differences"]["map50_f1"] == {k: v for k, v in noise.items() if k != "figure"}
    expected = "gain" if noise["low"] > 0 else "worse" if noise["high"] < 0 else "noise"
    assert (measured["outcome"], measured["is_gain"]) == (expected, expected == "gain")
    words = {"gain": "Gain: ", "noise": "Within the noise: ", "worse": "Worse: "}[expected]
    assert measured["verdict"].startswith(words)
    assert f"The difference is {noise['difference']:+.3f}, 95 % interval {noise['low']:+.3f}" in measured["verdict"]


def test_missing_predictions_are_made_first(project):
    database = project.services.database(project.slug)
    asked = []

    def predict(checkpoint_id, split, views):
        asked.append((checkpoint_id, split, views))
        with database.write() as db:
            predictions.store_predictions(
                db,
                run_id=project.run_id,
                split=split,
                detections={image_id: Detections.empty() for image_id in project.image_ids["test"]},
                snapshot_sha256="a" * 64,
                checkpoint_id=checkpoint_id,
            )

    table = carry_out(project, request(project, split="test"), predict)
    assert asked == [(checkpoint_id, "test", "off") for checkpoint_id in project.checkpoint_ids[:3]]
    assert table["rows"][-1]["map50"] == 0


def test_a_member_that_left_no_predictions_fails_the_ensemble(project):
    with pytest.raises(UserError, match="left no predictions"):
        carry_out(project, request(project, split="test"), lambda *asked: None)


def test_stopping_stores_nothing(project):
    with pytest.raises(Cancelled):
        carry_out(project, request(project), should_stop=lambda: True)
    assert ensembling.list_ensembles(project.services, project.slug) == []


def test_table_goes_on_without_a_member_that_was_replaced(project):
    table = carry_out(project, request(project))
    with project.services.database(project.slug).write() as db:
        runs.remove_checkpoints(db, project.run_id, ["epoch-2.pt"])
    later = ensembling.comparison(project.services, project.slug, table["set"])
    assert len(later["rows"]) == 3
    assert later["num_missing_members"] == 1


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"checkpoint_ids": [1]}, "2 to 20 members; there are 1"),
        ({"checkpoint_ids": [1, 1]}, "there are 1"),
        ({"options": {"method": "best"}}, "method"),
        ({"options": {"iou": 0.5}}, "iou"),
        ({"options": {"weights": [1, 2]}}, "one weight per member: 3, got 2"),
        ({"options": {"weights": [1, 2, 0]}}, "must be a number above 0, got 0"),
        ({"split": "holdout"}, "split"),
        ({"run_id": None}, "Name a run"),
    ],
)
def test_requests_that_cannot_work_are_refused_before_they_are_queued(project, given, reason):
    with pytest.raises(BadRequest, match=reason):
        request(project, **given)
    assert [job.kind for job in jobs.list_jobs(project.services, project.slug)] == ["train"]


def test_checkpoints_of_runs_with_other_classes_or_images_are_refused(project):
    database = project.services.database(project.slug)
    with database.write() as db:
        db.execute("UPDATE image SET split = 'train' WHERE id = ?", [project.image_ids["valid"][0]])
    second = add_run(project, {}, project.set_ids[1], [0.5])
    chosen = [project.checkpoint_ids[0], review.best_checkpoint(project.services, project.slug, second).id]
    with pytest.raises(BadRequest, match=r"valid images of run 1 are not those of run 2.* is in train of run 2"):
        request(project, run_id=None, checkpoint_ids=chosen)
    with pytest.raises(BadRequest, match="valid images of run 1"):
        request(project, set_ids=[project.set_ids[0], predictions.find_set(database, chosen[1], "valid").id])
    request(project, run_id=None, checkpoint_ids=chosen, split="test")
    with database.write() as db:
        db.execute("UPDATE category SET name = 'Cell' WHERE name = 'Red cell'")
    chosen[0] = review.best_checkpoint(project.services, project.slug, add_run(project, {}, 2, [0.5])).id
    with pytest.raises(BadRequest, match="'Red cell' in run 2 and 'Cell' in run 3"):
        request(project, run_id=None, checkpoint_ids=chosen)


@pytest.fixture
def relabeled(project):
    """A second run, after the loop of the app: a label of train and the boxes of two images of valid were mended."""
    images = [project.image_ids["train"][0], *project.image_ids["valid"][:2]]
    with project.services.database(project.slug).write() as db:
        db.execute(f"UPDATE annotation SET x1 = x1 * 0.6 WHERE image_id IN ({', '.join(map(str, images))})")
    return add_run(project, {"selection_metric": "map"}, project.set_ids[1], [0.5])


def test_members_of_runs_with_other_labels_are_judged_on_those_of_the_newest(project, relabeled):
    services, slug, database = project.services, project.slug, project.services.database(project.slug)
    newer = review.best_checkpoint(services, slug, relabeled).id
    own = review.evaluation(services, slug, project.set_ids[0])  # remembered before: another truth
    job = request(project, run_id=None, checkpoint_ids=[newer, project.checkpoint_ids[0]])
    assert request(project, run_id=None, checkpoint_ids=[project.checkpoint_ids[0], newer]).payload["run_id"] == 2
    table = carry_out(project, job)
    record = predictions.get_set(database, table["set"])
    truth = truths.load_truth(services, slug, relabeled)
    assert (record.run_id, record.snapshot_sha256, table["run"], table["metric"]) == (2, truth.sha256, 2, "map")
    labels = GroundTruth.from_samples(truth.split("valid"), truth.categories)
    for row in table["rows"]:
        assert row["map"] == evaluate(labels, predictions.read_detections(database, row["set"])).map
    older = next(row for row in table["rows"] if row["run"] == project.run_id)
    assert older["map"] != own["map"] == review.evaluation(services, slug, project.set_ids[0])["map"]
    assert table["truth"]["words"] == [
        "Judged on the labels of run 2 (Second run); 2 images of valid were relabeled since run 1 (First run)."
    ]
    measured = ensembling.measure_noise(services, slug, table["set"])
    best = measured["rows"][measured["best"]]
    assert measured["noise"]["difference"] == pytest.approx(measured["rows"][-1]["score"] - best["score"])
    sides = [parse_side(row["side"]) for row in (older, table["rows"][-1])]
    for pair in (sides, sides[::-1]):
        compared = comparing.compare(services, slug, *pair)
        assert compared["differences"]["map"]["first" if pair is sides else "second"] == older["map"]
        assert compared["truth"]["words"] == table["truth"]["words"]


def test_members_of_one_run_need_no_word_on_labels(project, relabeled):
    assert carry_out(project, request(project))["truth"]["words"] == []


def test_members_of_several_runs_predict_as_their_own_run_is_judged(project, relabeled):
    database, asked = project.services.database(project.slug), []
    with database.write() as db:
        db.execute("UPDATE run SET config = ? WHERE id = 1", ['{"test_time_augmentation": "flip"}'])

    def predict(checkpoint_id, split, views):
        asked.append((checkpoint_id, split, views))
        with database.write() as db:
            predictions.store_predictions(
                db,
                run_id=runs.get_checkpoint(database, checkpoint_id).run_id,
                split=split,
                detections={image_id: Detections.empty() for image_id in project.image_ids["test"]},
                snapshot_sha256="a" * 64,
                checkpoint_id=checkpoint_id,
                options={} if views == "off" else {"test_time_augmentation": views},
            )

    newer = review.best_checkpoint(project.services, project.slug, relabeled).id
    chosen = [project.checkpoint_ids[0], newer]
    table = carry_out(project, request(project, run_id=None, checkpoint_ids=chosen, split="test"), predict)
    assert asked == [(chosen[0], "test", "flip"), (newer, "test", "off")]
    assert [row["run"] for row in table["rows"]] == [1, 2, 2]


def test_fusing_a_run_gives_the_figures_of_the_ensemble(project, monkeypatch):
    def do_it(services, slug, job_id, on_change):
        job = jobs.get(services, slug, job_id)
        result = carry_out(project, job)
        with services.database(slug).write() as db:
            db.execute(
                "UPDATE job SET state = 'done', result = json_object('set', ?) WHERE id = ?", [result["set"], job_id]
            )
        return jobs.get(services, slug, job_id)

    monkeypatch.setattr(jobs, "wait_for", do_it)
    result = ensembling.fuse_run(project.services, project.slug, project.run_id)
    assert {"map", "map50", "map75", "f1", "per_class", "coco", "members", "verdict", "truth"} <= set(result)
    assert len(result["members"]) == 3
