import json
from dataclasses import replace

import pytest

from app.errors import BadRequest, NotFound
from app.pipeline.data.snapshot import Samples
from app.pipeline.types import Detections
from app.services import audited_labels, auditing, jobs
from app.services.auditing import AuditFilter
from app.services.comparison_sides import Side
from app.store import annotations, predictions
from tests.services.review_project import make_review_project


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    return make_review_project(tmp_path)


def store(project, split, found):
    """The best checkpoint's predictions on a split: image id -> (boxes, scores, labels)."""
    with project.services.database(project.slug).write() as db:
        return predictions.store_predictions(
            db,
            run_id=project.run_id,
            split=split,
            detections={image_id: Detections(*rows) for image_id, rows in found.items()},
            snapshot_sha256="a" * 64,
            checkpoint_id=project.checkpoint_ids[0],
        )


def boxes_of(project, image_id):
    with project.services.database(project.slug).read() as db:
        return annotations.of_image(db, image_id)


def test_a_removed_box_is_found_missing_and_mending_it_ends_that(project):
    image_id = project.image_ids["valid"][0]
    labels = boxes_of(project, image_id)
    set_id = store(project, "valid", {image_id: ([item.bbox for item in labels], [0.9] * 5, [1, 2, 1, 2, 1])})
    at = (project.services, project.slug)
    assert auditing.audit_sets(*at, [set_id], AuditFilter(min_score=0.5))["suspects"] == []
    with project.services.database(project.slug).write() as db:
        annotations.replace(db, image_id, 0, labels[:-1])
    audited = auditing.audit_sets(*at, [set_id], AuditFilter(min_score=0.5))
    json.dumps(audited)
    (suspect,) = audited["suspects"]
    assert (suspect["kind"], suspect["image_id"], suspect["annotation_id"]) == ("missing_box", image_id, None)
    assert suspect["box"] == pytest.approx(labels[-1].bbox, abs=1e-4)
    assert (suspect["predicted"], suspect["labeled"], suspect["in_sample"]) == ("Red cell", None, False)
    assert audited["counts"] == {"missing_box": 1, "wrong_class": 0, "loose_box": 0}


def test_a_relabeled_box_is_a_wrong_class_with_its_annotation(project):
    image_id = project.image_ids["valid"][1]
    labels = boxes_of(project, image_id)
    set_id = store(project, "valid", {image_id: ([labels[0].bbox], [0.8], [2])})
    (suspect,) = auditing.audit_sets(project.services, project.slug, [set_id], AuditFilter(min_score=0.5))["suspects"]
    assert (suspect["kind"], suspect["annotation_id"]) == ("wrong_class", labels[0].id)
    assert (suspect["labeled"], suspect["predicted"]) == ("Red cell", "White cell")
    assert suspect["label_box"] == list(labels[0].bbox)


def test_images_of_the_train_split_are_in_sample(project):
    image_id = project.image_ids["train"][0]
    set_id = store(project, "train", {image_id: ([[0, 0, 3, 3]], [0.9], [1])})
    given = ([Side("run", project.run_id)], "train", AuditFilter(min_score=0.5))
    audited = auditing.audit_sides(project.services, project.slug, *given)
    assert (audited["in_sample"], audited["images"], audited["suspects"][0]["in_sample"]) == (1, 1, True)
    assert audited["suspects"][0]["set"] == set_id


def test_of_several_sets_the_one_that_did_not_train_on_an_image_is_asked(project, monkeypatch):
    """As with the folds of a cross-validation: an image is in training of one run, and held out by another."""
    image_id = project.image_ids["valid"][0]
    held_out = store(project, "valid", {image_id: ([[0, 0, 3, 3]], [0.9], [1])})
    trained = store(project, "train", {image_id: ([[0, 0, 3, 3]], [0.9], [1])})
    original = audited_labels.truths.load_truth

    def load(services, slug, run_id):
        """Both splits hold the same image, each for one of the sets."""
        snapshot = original(services, slug, run_id)
        sample = next(sample for sample in snapshot.samples if sample.image_id == image_id)

        class Both:
            categories = snapshot.categories

            @staticmethod
            def split(name):
                return Samples.of([sample])

        return Both

    monkeypatch.setattr(audited_labels.truths, "load_truth", load)
    for order in ([held_out, trained], [trained, held_out]):
        audited = auditing.audit_sets(project.services, project.slug, order, AuditFilter(min_score=0.5))
        assert (audited["in_sample"], audited["suspects"][0]["set"]) == (0, held_out)


def test_images_that_were_turned_since_are_skipped(project):
    image_id = project.image_ids["valid"][0]
    set_id = store(
        project, "valid", {image_id: ([[0, 0, 3, 3]], [0.9], [1]), project.image_ids["valid"][1]: ([], [], [])}
    )
    with project.services.database(project.slug).write() as db:
        db.execute("UPDATE image SET rotation = 90 WHERE id = ?", [image_id])
    audited = auditing.audit_sets(project.services, project.slug, [set_id], AuditFilter(min_score=0.5))
    assert (audited["skipped"], audited["images"], audited["total"]) == (1, 1, 0)


def test_pages_and_what_cannot_be_asked_for(project):
    at = (project.services, project.slug, [project.set_ids[2]])
    sure = AuditFilter(min_score=0.1)
    whole = auditing.audit_sets(*at, sure)
    first = auditing.audit_sets(*at, sure, limit=2)
    rest = auditing.audit_sets(*at, sure, after=first["next"])
    assert first["suspects"] + rest["suspects"] == whole["suspects"]
    assert (first["left"], rest["left"], rest["next"]) == (whole["total"] - 2, 0, None)
    scores = [suspect["score"] for suspect in whole["suspects"]]
    assert scores == sorted(scores, reverse=True) and len(scores) > 4
    with pytest.raises(BadRequest, match="1 to 500"):
        auditing.audit_sets(*at, limit=501)
    with pytest.raises(BadRequest, match="0..1"):
        auditing.audit_sets(*at, AuditFilter(min_score=2))


def wrong_class_suspect(project):
    """A valid image, and the suspect of its first box, which is predicted as the other class."""
    image_id = project.image_ids["valid"][1]
    labels = boxes_of(project, image_id)
    set_id = store(project, "valid", {image_id: ([labels[0].bbox], [0.8], [2])})
    at = (project.services, project.slug, [set_id], AuditFilter(min_score=0.5))
    return at, auditing.audit_sets(*at)["suspects"][0]


IGNORABLE = ("image_id", "kind", "predicted_id", "labeled_id", "box", "score")


def test_an_ignored_suspect_does_not_come_back_with_a_later_model_until_it_is_taken_back(project):
    at, suspect = wrong_class_suspect(project)
    services, slug, _, sure = at
    ignored = auditing.ignore(services, slug, **{name: suspect[name] for name in IGNORABLE})
    gone = auditing.audit_sets(*at)
    assert (gone["suspects"], gone["total"], gone["ignored"], gone["counts"]["wrong_class"]) == ([], 0, 1, 0)
    assert auditing.list_ignored(services, slug)["suspects"] == [ignored]
    assert (ignored["predicted"], ignored["labeled"], ignored["image"]["id"]) == (
        "White cell",
        "Red cell",
        suspect["image_id"],
    )

    x1, y1, x2, y2 = suspect["box"]
    width = x2 - x1
    for share, is_same in ((0.9, True), (0.75, True), (0.6, False)):  # the IoU of the box that a later model puts there
        later = store(project, "valid", {suspect["image_id"]: ([[x1, y1, x1 + share * width, y2]], [0.95], [2])})
        found = auditing.audit_sets(services, slug, [later], sure)
        assert (found["ignored"], found["total"]) == ((1, 0) if is_same else (0, 1)), share
    again = store(project, "valid", {suspect["image_id"]: ([suspect["box"]], [0.8], [2])})
    assert auditing.audit_sets(services, slug, [again], sure)["ignored"] == 1
    auditing.take_back(services, slug, ignored["id"])
    assert auditing.audit_sets(services, slug, [again], sure)["suspects"][0]["box"] == suspect["box"]
    with pytest.raises(NotFound):
        auditing.take_back(services, slug, ignored["id"])


def test_ignoring_is_about_one_disagreement_another_label_there_is_another(project):
    at, suspect = wrong_class_suspect(project)
    services, slug, set_ids, sure = at
    auditing.ignore(services, slug, **{name: suspect[name] for name in IGNORABLE})
    labels = boxes_of(project, suspect["image_id"])
    with services.database(slug).write() as db:  # nobody labels it any more: what was ignored was its class
        annotations.replace(db, suspect["image_id"], 0, labels[1:])
    found = auditing.audit_sets(services, slug, set_ids, sure)
    assert (found["suspects"][0]["kind"], found["ignored"]) == ("missing_box", 0)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"kind": "ugly"}, BadRequest, "missing_box"),
        ({"box": [5, 5, 5, 9]}, BadRequest, "an area"),
        ({"box": [0, 0, float("nan"), 9]}, BadRequest, "an area"),
        ({"image_id": 999}, NotFound, "no image 999"),
        ({"predicted_id": 999}, NotFound, "no class 999"),
    ],
)
def test_what_cannot_be_ignored(project, change, error, words):
    suspect = {
        "image_id": 1,
        "kind": "missing_box",
        "predicted_id": 3,
        "labeled_id": None,
        "box": [0, 0, 9, 9],
        "score": 0.5,
    }
    with pytest.raises(error, match=words):
        auditing.ignore(project.services, project.slug, **{**suspect, **change})
    assert auditing.list_ignored(project.services, project.slug)["total"] == 0


def test_suspects_mended_while_paging_skip_none(project):
    """A page begins behind the key of the last suspect seen, wherever that is by then."""
    at = (project.services, project.slug, [project.set_ids[2]], AuditFilter(min_score=0.1))
    whole = [suspect["key"] for suspect in auditing.audit_sets(*at)["suspects"]]
    first = auditing.audit_sets(*at, limit=3)
    for suspect in first["suspects"][:2]:
        auditing.ignore(project.services, project.slug, **{name: suspect[name] for name in IGNORABLE})
    rest = auditing.audit_sets(*at, after=first["next"])
    assert [suspect["key"] for suspect in rest["suspects"]] == whole[3:]
    with pytest.raises(NotFound, match="no suspect '1-9999'"):
        auditing.audit_sets(*at, after="1-9999")


def test_kinds_and_classes_filter_and_the_next_one_follows(project):
    at = (project.services, project.slug, [project.set_ids[2]])
    whole = auditing.audit_sets(*at, AuditFilter(min_score=0.1))
    kind = max(whole["counts"], key=whole["counts"].get)
    meant = [item["key"] for item in whole["suspects"] if item["kind"] == kind and 3 in classes_of(item)]
    chosen = AuditFilter(kind, 3, 0.1)
    found = auditing.audit_sets(*at, chosen)
    assert [item["key"] for item in found["suspects"]] == meant and len(meant) > 1
    assert 0 < found["total"] == found["counts"][kind] < whole["total"]
    opened = auditing.open_suspect(*at, meant[0], chosen)
    assert opened["suspect"] == found["suspects"][0]
    assert (opened["next"]["key"], opened["left"]) == (meant[1], len(meant) - 1)
    last = auditing.open_suspect(*at, meant[-1], chosen)
    assert (last["next"], last["left"]) == (None, 0)


def classes_of(suspect):
    return (suspect["predicted_id"], suspect["labeled_id"])


def test_a_settled_suspect_opens_as_none_and_leads_on(project):
    at = (project.services, project.slug, [project.set_ids[2]], AuditFilter(min_score=0.1))
    first, second = auditing.audit_sets(*at, limit=2)["suspects"]
    auditing.ignore(project.services, project.slug, **{name: first[name] for name in IGNORABLE})
    opened = auditing.open_suspect(*at[:3], first["key"], at[3])
    assert opened["suspect"] is None and opened["next"]["key"] == second["key"]


def test_labels_around_a_suspect_come_along_but_not_the_one_it_is_about(project):
    _, suspect = wrong_class_suspect(project)
    around = [item[:4] for item in suspect["nearby"]]
    labels = boxes_of(project, suspect["image_id"])
    assert around and suspect["label_box"] not in around
    assert all(any(box == list(item.bbox) for item in labels[1:]) for box in around)


def test_judged_again_on_labels_as_they_are_now(project):
    """Half of an image's boxes deleted: found boxes there became false alarms."""
    at = (project.services, project.slug, [project.set_ids[0]])
    before = auditing.judge_again(*at)
    assert before["before"] == before["after"] and (before["changed"], before["images"]) == (0, 6)
    image_id = project.image_ids["valid"][0]
    labels = boxes_of(project, image_id)
    with project.services.database(project.slug).write() as db:
        annotations.replace(db, image_id, 0, labels[:2])
    again = auditing.judge_again(*at)
    assert again["before"] == before["before"] and again["changed"] == 1
    assert again["after"]["f1"] < again["before"]["f1"] and again["after"]["map50"] < again["before"]["map50"]
    with project.services.database(project.slug).write() as db:  # back, in another order and under other ids
        annotations.replace(db, image_id, 1, [replace(item, id=0) for item in reversed(labels)])
    assert auditing.judge_again(*at) == before


def test_audit_of_a_run_tells_the_figures_too(project):
    audited = auditing.audit_sides(project.services, project.slug, [Side("run", project.run_id)])
    assert audited["judged"]["before"]["map50"] == audited["judged"]["after"]["map50"] > 0.5
    json.dumps(audited)
