import json

import pytest

from app.errors import BadRequest
from app.pipeline.types import Detections
from app.services import audited_labels, auditing, jobs
from app.services.auditing import AuditFilter
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
    audited = auditing.audit_run(project.services, project.slug, project.run_id, "train", min_score=0.5)
    assert (audited["in_sample"], audited["images"], audited["suspects"][0]["in_sample"]) == (1, 1, True)
    assert audited["suspects"][0]["set"] == set_id


def test_of_several_sets_the_one_that_did_not_train_on_an_image_is_asked(project, monkeypatch):
    """As with the folds of a cross-validation: an image is in training of one run, and held out by another."""
    image_id = project.image_ids["valid"][0]
    held_out = store(project, "valid", {image_id: ([[0, 0, 3, 3]], [0.9], [1])})
    trained = store(project, "train", {project.image_ids["train"][0]: ([[0, 0, 3, 3]], [0.9], [1])})
    original = audited_labels.review.load_truth

    def load(services, slug, run_id):
        """Both splits hold the same image, each for one of the sets."""
        snapshot = original(services, slug, run_id)
        sample = next(sample for sample in snapshot.samples if sample.image_id == image_id)

        class Both:
            categories = snapshot.categories

            @staticmethod
            def split(name):
                return (sample,)

        return Both

    monkeypatch.setattr(audited_labels.review, "load_truth", load)
    monkeypatch.setattr(
        audited_labels.predictions, "read_detections", lambda *_: {image_id: Detections([[0, 0, 3, 3]], [0.9], [1])}
    )
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
