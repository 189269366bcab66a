import json

import pytest

from app.errors import BadRequest, NotFound
from app.pipeline.evaluate.error_budget import KINDS, TOTALS
from app.services import diagnosing, jobs, review
from app.services.diagnosing import Thresholds
from app.services.lru_cache import LruCache
from app.services.stored_sets import load_set
from tests.services.review_project import make_review_project


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    return make_review_project(tmp_path)


def test_the_budget_starts_from_map50_and_the_matrix_from_the_best_f1(project):
    diagnosis = diagnosing.diagnose(project.services, project.slug, project.set_ids[1])
    figures = review.evaluation(project.services, project.slug, project.set_ids[1])
    json.dumps(diagnosis)
    assert diagnosis["error_budget"]["ap50"] == pytest.approx(figures["map50"], abs=1e-9)
    confusion = diagnosis["confusion"]
    assert confusion["score_threshold"] == figures["f1_threshold"]
    assert confusion["labels"] == ["background", "Red cell", "White cell"]
    assert sum(map(sum, confusion["counts"][1:])) == 25  # every labelled box once


def test_each_kind_lists_as_many_errors_as_it_counts_in_pages(project):
    set_id = project.set_ids[2]
    budget = diagnosing.diagnose(project.services, project.slug, set_id)["error_budget"]
    counted = {row["kind"]: row["count"] for row in budget["kinds"] + budget["totals"]}
    for kind in KINDS + TOTALS:
        listed, after = [], 0
        while after is not None:
            page = diagnosing.list_errors(project.services, project.slug, set_id, kind, after, limit=2)
            listed += page["errors"]
            after = page["next"]
        assert len(listed) == page["total"] == counted[kind]
        scores = [item["score"] for item in listed if item["score"] is not None]
        assert scores == sorted(scores, reverse=True)
    assert counted["background"] and counted["missed"]
    assert counted["false_positives"] == sum(counted[kind] for kind in KINDS if kind != "missed")
    assert counted["false_negatives"] > counted["missed"]  # mistaken ones too


def test_sliders_and_pages_price_the_errors_once_and_new_predictions_anew(project, monkeypatch):
    for name in ("_sets", "_budgets", "_matrices"):
        monkeypatch.setattr(diagnosing, name, LruCache(4))
    done = []
    for name in ("load_set", "spend_errors", "confuse"):
        work = getattr(diagnosing, name)
        monkeypatch.setattr(diagnosing, name, lambda *at, name=name, work=work: done.append(name) or work(*at))
    at = project.services, project.slug, project.set_ids[0]
    diagnosing.diagnose(*at, Thresholds(0.5))
    assert sorted(done) == ["confuse", "load_set", "spend_errors"]
    diagnosing.diagnose(*at, Thresholds(0.5))
    diagnosing.list_errors(*at, "missed")
    diagnosing.list_confused(*at, 1, 1, Thresholds(0.5))
    assert len(done) == 3
    diagnosing.count_confusions(*at, Thresholds(0.6, 0.7))
    assert done[3:] == ["confuse"]
    database = project.services.database(project.slug)
    with database.write() as db:
        db.execute("UPDATE prediction_set SET created_at = created_at + 1")
    diagnosing.diagnose(*at, Thresholds(0.5))
    assert sorted(done[4:]) == ["confuse", "load_set", "spend_errors"]


def test_listed_boxes_are_those_of_the_image(project):
    stored = load_set(project.services, project.slug, project.set_ids[0])
    page = diagnosing.list_errors(project.services, project.slug, project.set_ids[0], "missed")
    assert page["total"]
    for item in page["errors"]:
        (sample,) = [sample for sample in stored.samples if sample.image_id == item["image_id"]]
        assert sample.boxes[item["truth"]].tolist() == item["box"]
        assert (item["file_name"], item["detection"]) == (sample.file_name, None)
        assert item["truth_label"] == item["label"] == sample.labels[item["truth"]]


def test_cells_list_as_many_pairs_as_they_count(project):
    set_id = project.set_ids[2]
    counts = diagnosing.diagnose(project.services, project.slug, set_id, Thresholds(0.3))["confusion"]["counts"]
    for row, line in enumerate(counts):
        for column, count in enumerate(line):
            page = diagnosing.list_confused(
                project.services, project.slug, set_id, row, column, Thresholds(0.3), limit=3
            )
            assert page["total"] == count
            assert len(page["pairs"]) == min(count, 3)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda *at: diagnosing.list_errors(*at, "beauty"), "classification, localization"),
        (lambda *at: diagnosing.list_errors(*at, "missed", limit=0), "1 to 500"),
        (lambda *at: diagnosing.list_confused(*at, 1, 3), "0 .background. to 2"),
        (lambda *at: diagnosing.diagnose(*at, Thresholds(1.5)), "score threshold"),
        (lambda *at: diagnosing.diagnose(*at, Thresholds(0.5, -1)), "IoU threshold"),
        (lambda *at: diagnosing.count_confusions(*at, Thresholds(nms=2)), "NMS threshold"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(project, call, error):
    with pytest.raises(BadRequest, match=error):
        call(project.services, project.slug, project.set_ids[0])


def test_an_unknown_set_is_not_found(project):
    with pytest.raises(NotFound):
        diagnosing.diagnose(project.services, project.slug, 999)
