import json

import numpy as np
import orjson
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from app.errors import BadRequest, NotFound, UserError
from app.records import Job, PredictionSet
from app.services import comparison_sides, jobs, label_export, review, view_gain
from app.services.comparison_sides import Side
from app.store import images, predictions, runs
from tests.services.review_project import make_review_project


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    return make_review_project(tmp_path)


def test_overview_lists_runs_with_checkpoints_and_sets(project):
    (run,) = review.overview(project.services, project.slug)
    assert run["splits"] == {"train": 2, "valid": 6, "test": 3}
    assert [item["name"] for item in run["checkpoints"]] == ["Epoch 4", "Epoch 3", "Epoch 2", "Epoch 5 (last)"]
    assert [item["id"] for item in run["sets"]] == project.set_ids[::-1]


def test_stored_predictions_are_given_at_once(project):
    found = review.ensure_predictions(project.services, project.slug, project.checkpoint_ids[0], "valid")
    assert isinstance(found, PredictionSet)
    assert found.id == project.set_ids[0]


def test_missing_predictions_are_queued_once(project):
    first = review.ensure_predictions(project.services, project.slug, project.checkpoint_ids[0], "test")
    again = review.ensure_predictions(project.services, project.slug, project.checkpoint_ids[0], "test")
    other = review.ensure_predictions(project.services, project.slug, project.checkpoint_ids[1], "test")
    assert isinstance(first, Job)
    assert (first.kind, first.payload) == (
        "predict",
        {"checkpoint_id": project.checkpoint_ids[0], "split": "test", "test_time_augmentation": "off"},
    )
    assert again.id == first.id
    assert other.id != first.id


def choose_views(project, augmentation):
    config = orjson.dumps({"epochs": 4, "test_time_augmentation": augmentation}).decode()
    with project.services.database(project.slug).write() as db:
        db.execute("UPDATE run SET config = ?", [config])


def store_views(project, augmentation, source):
    """Predictions of the best checkpoint on valid in other views: those of another set."""
    database = project.services.database(project.slug)
    with database.write() as db:
        return predictions.store_predictions(
            db,
            run_id=project.run_id,
            split="valid",
            detections=predictions.read_detections(database, source),
            snapshot_sha256="a" * 64,
            checkpoint_id=project.checkpoint_ids[0],
            options={"test_time_augmentation": augmentation},
        )


def test_run_is_judged_in_the_views_it_was_given(project):
    """What its own validations left was predicted in one view: it is no answer for a run that wants more."""
    choose_views(project, "flip")
    asked = (project.services, project.slug, project.checkpoint_ids[0], "valid")
    job = review.ensure_predictions(*asked)
    assert isinstance(job, Job)
    assert job.payload["test_time_augmentation"] == "flip"
    assert review.ensure_predictions(*asked, "off").id == project.set_ids[0]
    flipped = store_views(project, "flip", project.set_ids[0])
    assert review.ensure_predictions(*asked).id == flipped
    sets = {item["id"]: item for item in review.overview(project.services, project.slug)[0]["sets"]}
    assert (sets[flipped]["is_main"], sets[flipped]["views"]) == (True, "flip")
    assert (sets[project.set_ids[0]]["is_main"], sets[project.set_ids[0]]["views"]) == (False, "one view")


@pytest.mark.parametrize("outcome", ["worse", "noise", "gain"])
def test_views_are_compared_in_one_table_by_what_is_more_than_chance(project, outcome):
    best, middle, worst = project.set_ids
    database = project.services.database(project.slug)
    if outcome == "gain":  # the one view gets the worst predictions, flipping the best
        with database.write() as db:
            db.execute("UPDATE prediction_set SET checkpoint_id = NULL, kind = 'ensemble' WHERE id = ?", [best])
            db.execute("UPDATE prediction_set SET checkpoint_id = ? WHERE id = ?", [project.checkpoint_ids[0], worst])
    store_views(project, "flip", {"worse": middle, "noise": best, "gain": best}[outcome])
    store_views(project, "flip_scales", worst)
    compared = review.compare_views(project.services, project.slug, project.checkpoint_ids[0])
    heard = []
    table = view_gain.measure_gain(project.services, project.slug, compared, lambda *told: heard.append(told))
    assert heard[-1] == (1000, 1000, "Measuring the noise")
    assert [row["name"] for row in table["rows"]] == ["one view", "flip", "flip + scales"]
    is_gain = outcome == "gain"
    assert (table["outcome"], table["is_gain"], table["best"]) == (outcome, is_gain, "flip" if is_gain else "off")
    assert table["verdict"].startswith({"worse": "Worse: ", "noise": "Within the noise: ", "gain": "Gain: "}[outcome])
    assert "by the run's selection metric, 0.5 mAP50 + 0.5 F1." in table["verdict"]
    off, flip, scaled = (row["noise"] for row in table["rows"])
    assert off is None and flip["outcome"] == outcome and scaled["figure"] == "map50_f1"
    assert flip["difference"] == pytest.approx(table["rows"][1]["score"] - table["rows"][0]["score"])


def test_a_split_without_images_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    project = make_review_project(tmp_path, num_test=0)
    with pytest.raises(BadRequest, match="no images in the test split"):
        review.ensure_predictions(project.services, project.slug, project.checkpoint_ids[0], "test")


def test_figures_are_computed_once_and_again_after_new_predictions(project, monkeypatch):
    calls = []
    original = review.evaluate_columns
    monkeypatch.setattr(review, "evaluate_columns", lambda *given: calls.append(1) or original(*given))
    first = review.evaluation(project.services, project.slug, project.set_ids[0])
    assert review.evaluation(project.services, project.slug, project.set_ids[0]) == first
    assert len(calls) == 1
    assert 0.3 < first["map50"] < 1
    assert first["set"]["id"] == project.set_ids[0]
    json.dumps(first)


def test_images_come_by_errors_in_pages(project):
    first = review.images(project.services, project.slug, project.set_ids[2], limit=4)
    rest = review.images(project.services, project.slug, project.set_ids[2], after=first["next"], limit=4)
    everything = first["images"] + rest["images"]
    errors = [image["fp"] + image["fn"] for image in everything]
    assert errors == sorted(errors, reverse=True)
    assert sorted(image["id"] for image in everything) == project.image_ids["valid"]
    assert (first["total"], first["next"], rest["next"]) == (6, 4, None)


def test_a_higher_threshold_turns_found_objects_into_missed_ones(project):
    low = review.images(project.services, project.slug, project.set_ids[0], score_threshold=0.0)
    high = review.images(project.services, project.slug, project.set_ids[0], score_threshold=1.0)
    assert sum(image["tp"] for image in high["images"]) == 0
    assert sum(image["fn"] for image in high["images"]) == sum(len(i["truth"]["labels"]) for i in low["images"]) == 25


def test_unknown_sets_and_orders_are_refused(project):
    with pytest.raises(NotFound):
        review.evaluation(project.services, project.slug, 999)
    with pytest.raises(BadRequest, match="errors, name, id"):
        review.images(project.services, project.slug, project.set_ids[0], sort="beauty")


def test_images_that_left_the_split_are_counted(project):
    set_id = project.set_ids[0]
    assert review.images_left_out(project.services, project.slug, set_id) == 0
    judged = {item["image_id"] for item in review.coco_results(project.services, project.slug, set_id)}
    with project.services.database(project.slug).write() as db:
        db.execute("UPDATE image SET split = 'train' WHERE id = (SELECT min(id) FROM image WHERE split = 'valid')")
    assert review.images_left_out(project.services, project.slug, set_id) == 1
    left = {item["image_id"] for item in review.coco_results(project.services, project.slug, set_id)}
    assert len(left) < len(judged)


def test_results_file_is_judged_the_same_against_the_exported_labels(project, tmp_path, capsys):
    path = tmp_path / "results.json"
    assert review.export_results(project.services, project.slug, project.set_ids[0], path) > 0
    document = label_export.coco_documents(project.services, project.slug)["valid"]
    (tmp_path / "labels.json").write_text(json.dumps(document))
    labelled = COCO(str(tmp_path / "labels.json"))
    judge = COCOeval(labelled, labelled.loadRes(str(path)), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    ours = review.evaluation(project.services, project.slug, project.set_ids[0])["coco"]
    np.testing.assert_allclose(list(ours.values()), judge.stats, rtol=0, atol=1e-9)


def test_results_are_read_some_images_at_a_time_and_written_as_one_list(project, tmp_path, monkeypatch):
    given = (project.services, project.slug, project.set_ids[0])
    whole, read, sizes = list(review.coco_results(*given)), predictions._of_images, []

    def spy(db, set_id, image_ids):
        sizes.append(len(image_ids))
        return read(db, set_id, image_ids)

    monkeypatch.setattr(predictions, "_of_images", spy)
    monkeypatch.setattr(predictions, "_IDS_PER_QUERY", 2)
    assert review.export_results(*given, tmp_path / "results.json") == len(whole)
    assert json.loads((tmp_path / "results.json").read_text()) == whole
    assert max(sizes) == 2 and len(sizes) > 1
    with project.services.database(project.slug).write() as db:
        db.execute("UPDATE image SET split = 'train'")
    assert review.export_results(*given, tmp_path / "results.json") == 0
    assert json.loads((tmp_path / "results.json").read_text()) == []


def test_results_leave_out_images_that_left_the_split(project):
    before = list(review.coco_results(project.services, project.slug, project.set_ids[0]))
    with project.services.database(project.slug).write() as db:
        images.set_split(db, project.image_ids["valid"][0], "train")
    after = list(review.coco_results(project.services, project.slug, project.set_ids[0]))
    assert {item["image_id"] for item in before} - {item["image_id"] for item in after} == {100}


def predict(project, split="valid"):
    """What a run is judged by: the predictions of its best checkpoint."""
    return comparison_sides.predict(project.services, project.slug, Side("run", project.run_id), split)


def test_a_run_is_judged_by_the_predictions_of_its_best_checkpoint_once_they_are_made(project, monkeypatch):
    database = project.services.database(project.slug)
    chosen = predict(project)
    assert (chosen.checkpoint.epoch, chosen.record.id) == (4, project.set_ids[0])

    def finish_with_predictions(services, slug, job_id, on_change):
        with database.write() as db:
            predictions.store_predictions(
                db,
                run_id=project.run_id,
                split="test",
                detections={},
                snapshot_sha256="a" * 64,
                checkpoint_id=project.checkpoint_ids[0],
            )
            db.execute("UPDATE job SET state = 'done' WHERE id = ?", [job_id])
        return jobs.get(services, slug, job_id)

    monkeypatch.setattr(jobs, "wait_for", finish_with_predictions)
    assert review.evaluate_set(project.services, project.slug, predict(project, "test").record)["map50"] == 0


def test_a_failed_prediction_is_told_with_its_reason(project, monkeypatch):
    def fail(services, slug, job_id, on_change):
        with services.database(slug).write() as db:
            db.execute("UPDATE job SET state = 'failed', error = 'out of memory' WHERE id = ?", [job_id])
        return jobs.get(services, slug, job_id)

    monkeypatch.setattr(jobs, "wait_for", fail)
    with pytest.raises(UserError, match="out of memory"):
        predict(project, "test")


def test_a_run_without_weights_says_so(project):
    database = project.services.database(project.slug)
    with database.write() as db:
        runs.remove_checkpoints(db, project.run_id, ["last.pt", "epoch-2.pt", "epoch-3.pt", "epoch-4.pt"])
    with pytest.raises(NotFound, match="no weights yet"):
        predict(project)


def test_a_page_reads_the_predictions_of_its_own_images_only(project, monkeypatch):
    """Reading all of them for each page made opening a set of thousands of images quadratic."""
    asked = []
    original = predictions.read_detections

    def read(database, set_id, image_ids=None):
        asked.append(image_ids)
        return original(database, set_id, image_ids)

    whole = review.images(project.services, project.slug, project.set_ids[1], score_threshold=0.31)["images"]
    monkeypatch.setattr(predictions, "read_detections", read)
    given = {"score_threshold": 0.31, "limit": 2}
    pages = [review.images(project.services, project.slug, project.set_ids[1], after=at, **given) for at in (0, 2, 4)]
    shown = [image for page in pages for image in page["images"]]
    assert asked == [[image["id"] for image in page["images"]] for page in pages]
    assert [(image["id"], image["tp"], image["fp"], image["fn"]) for image in shown] == [
        (image["id"], image["tp"], image["fp"], image["fn"]) for image in whole
    ]


def test_order_found_in_pieces_is_that_of_all_images(project, monkeypatch):
    given = (project.services, project.slug, project.set_ids[1])
    whole = [image["id"] for image in review.images(*given, score_threshold=0.2)["images"]]
    monkeypatch.setattr(review, "_orders", review.LruCache(1))
    monkeypatch.setattr(review, "MAX_PAGE", 4)
    pages = [review.images(*given, score_threshold=0.2, after=at, limit=4) for at in (0, 4)]
    assert [image["id"] for page in pages for image in page["images"]] == whole


@pytest.mark.parametrize("sort", ["errors", "name", "id"])
def test_page_past_the_end_is_empty(project, sort):
    page = review.images(project.services, project.slug, project.set_ids[0], sort=sort, after=100)
    assert (page["images"], page["total"], page["next"]) == ([], 6, None)
