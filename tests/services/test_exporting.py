"""What is taken away: only finished files of the exports folder are listed and served; jobs write them whole."""

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Picture

from app.errors import BadRequest, NotFound
from app.pipeline.data.image import read_image
from app.pipeline.types import Detections
from app.services import export_handlers, exporting, jobs, label_export, predicting
from tests.services.review_project import make_review_project


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    return make_review_project(tmp_path / "projects")


class FakeJob:
    """A job's context without a process: payload in, progress out."""

    def __init__(self, project, payload):
        self.workspace = project.services.workspace
        self.slug = project.slug
        self.files = project.services.files(project.slug)
        self.database = project.services.database(project.slug)
        self.payload = payload
        self.events = []

    def should_stop(self):
        return False

    def set_progress(self, done, total, message=""):
        self.events.append((done, total))

    def emit(self, event):
        self.events.append(event)


def put(project, name, content=b"x"):
    folder = project.services.files(project.slug).exports
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)


def test_only_finished_files_are_listed_newest_first(project):
    assert exporting.list_exports(project.services, project.slug) == []
    put(project, "a.zip")
    put(project, ".half.zip.123.tmp")  # a write that was cut
    put(project, "notes.exe")
    assert [item["name"] for item in exporting.list_exports(project.services, project.slug)] == ["a.zip"]
    assert exporting.list_exports(project.services, project.slug)[0]["size_bytes"] == 1


@pytest.mark.parametrize("name", ["../project.db", "/etc/passwd", "..", "", ".half.zip", "b.zip", "..\\project.db"])
def test_nothing_but_a_listed_file_is_served_or_deleted(project, name):
    put(project, "a.zip")
    with pytest.raises(NotFound):
        exporting.export_path(project.services, project.slug, name)
    with pytest.raises(NotFound):
        exporting.delete_export(project.services, project.slug, name)
    assert project.services.files(project.slug).database.exists()


def test_a_file_is_deleted(project):
    put(project, "a.zip")
    exporting.delete_export(project.services, project.slug, "a.zip")
    assert exporting.list_exports(project.services, project.slug) == []


def test_an_unknown_format_or_checkpoint_is_refused_before_anything_is_queued(project):
    with pytest.raises(BadRequest, match="onnx"):
        exporting.request_weights(project.services, project.slug, project.checkpoint_ids[0], "onnx")
    with pytest.raises(NotFound):
        exporting.request_weights(project.services, project.slug, 999, "pth")
    assert [job.kind for job in jobs.list_jobs(project.services, project.slug)].count("export") == 0


def test_results_have_the_ids_of_the_exported_labels(project):
    job = exporting.request_results(project.services, project.slug, project.set_ids[0])
    assert job.payload["name"] == "run-1-epoch-4-valid-results.json"  # what it is called on the screen
    result = export_handlers.export(FakeJob(project, job.payload))
    path = exporting.export_path(project.services, project.slug, result["files"][0])
    results = json.loads(path.read_bytes())
    assert len(results) == result["detections"] > 0
    labels = label_export.coco_documents(project.services, project.slug)["valid"]
    assert {item["image_id"] for item in results} <= {image["id"] for image in labels["images"]}
    assert {item["category_id"] for item in results} <= {category["id"] for category in labels["categories"]}


def test_labels_zip_tells_its_progress(project):
    job = exporting.request_labels(project.services, project.slug)
    context = FakeJob(project, job.payload)
    result = export_handlers.export(context)
    with zipfile.ZipFile(exporting.export_path(project.services, project.slug, result["files"][0])) as archive:
        assert archive.testzip() is None
    assert context.events[-1] == (result["images"], result["images"])


class FakeDetector:
    categories = SimpleNamespace(ids=(4, 9), names=("cat", "dog"))
    read = staticmethod(read_image)
    config = SimpleNamespace(test_time_augmentation="flip")

    def predict_image(self, picture, augmentation):
        assert augmentation == "flip"  # as the run is judged
        boxes = np.array([[1, 2, 11, 22], [0, 0, 5, 5]], np.float32)
        return Detections(boxes, np.array([0.9, 0.01], np.float32), np.array([2, 1], np.int32))


def test_pictures_of_a_folder_become_one_coco_document(project, tmp_path, monkeypatch):
    monkeypatch.setattr("app.pipeline.predict.load_detector", lambda path: FakeDetector())
    folder = tmp_path / "new"
    (folder / "deep").mkdir(parents=True)
    Picture.new("RGB", (40, 30)).save(folder / "deep" / "a.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not a picture")
    pictures = predicting.list_pictures(folder)
    assert [path.name for path in pictures] == ["broken.jpg", "a.png"]
    payload = {
        "checkpoint_id": project.checkpoint_ids[0],
        "root": str(folder),
        "pictures": [str(path) for path in pictures],
        "out": str(tmp_path / "out" / "found.json"),
        "min_score": 0.05,
    }
    result = export_handlers.predict_files(FakeJob(project, payload))
    document = json.loads((tmp_path / "out" / "found.json").read_bytes())
    assert document["images"] == [{"id": 0, "file_name": "deep/a.png", "width": 40, "height": 30}]
    assert document["categories"] == [{"id": 4, "name": "cat"}, {"id": 9, "name": "dog"}]
    (found,) = document["annotations"]  # the one below the smallest score is left out
    assert (found["category_id"], found["bbox"], found["image_id"]) == (9, [1, 2, 10, 20], 0)
    assert found["score"] == pytest.approx(0.9)
    assert [item["file_name"].endswith("broken.jpg") for item in result["skipped"]] == [True]


def test_predicting_nothing_readable_is_an_error_and_writes_nothing(project, tmp_path, monkeypatch):
    monkeypatch.setattr("app.pipeline.predict.load_detector", lambda path: FakeDetector())
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    payload = {
        "checkpoint_id": project.checkpoint_ids[0],
        "root": str(tmp_path),
        "pictures": [str(broken)],
        "out": str(tmp_path / "found.json"),
        "min_score": 0.05,
    }
    with pytest.raises(BadRequest, match="could be read"):
        export_handlers.predict_files(FakeJob(project, payload))
    assert not (tmp_path / "found.json").exists()


def test_linked_pictures_keep_their_own_names(project, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    Picture.new("RGB", (8, 8)).save(tmp_path / "elsewhere" / "real.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "elsewhere" / "real.png")
    (tmp_path / "in" / "moving.GIF").write_bytes(b"GIF89a")
    payloads = []
    queued = SimpleNamespace(id=1, state="done", result={})
    monkeypatch.setattr(jobs, "enqueue", lambda s, slug, kind, payload: payloads.append(payload) or queued)
    monkeypatch.setattr(jobs, "wait_for", lambda *given: queued)
    monkeypatch.chdir(tmp_path)
    predicting.predict_files(project.services, project.slug, project.run_id, Path("in"), Path("found.json"))
    assert payloads[0]["root"] == str(tmp_path / "in")
    assert payloads[0]["pictures"] == [str(tmp_path / "in" / name) for name in ("link.png", "moving.GIF")]
    assert payloads[0]["out"] == str(tmp_path / "found.json")


@pytest.mark.parametrize("make", [lambda path: path / "missing.jpg", lambda path: path], ids=["missing", "empty"])
def test_nothing_to_predict_is_told(tmp_path, make):
    with pytest.raises(BadRequest):
        predicting.list_pictures(make(tmp_path))
