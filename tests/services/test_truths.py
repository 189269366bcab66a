"""On whose labels predictions of several runs are judged, which of them may be fused, and what is told of it."""

import orjson
import pytest

from app.errors import BadRequest
from app.services import comparing, jobs, review, truths
from app.services.comparison_sides import Side
from app.store import annotations, runs
from tests.services.review_project import make_review_project
from tests.services.test_comparing import add_run


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ensure_worker", lambda services: None)
    return make_review_project(tmp_path)


def change(project, statement, *values):
    with project.services.database(project.slug).write() as db:
        db.execute(statement, list(values))


def train_again(project, config=None, name="Second run"):
    """A run on the dataset as it is now, whose best checkpoint predicts what the first run's does."""
    return add_run(project, config or {}, project.set_ids[0], [0.5], name=name)


def note(project, *run_ids, split="valid"):
    return truths.note_common(project.services, project.slug, run_ids, split)


def words(project, *run_ids, split="valid"):
    return truths.explain(project.services, project.slug, note(project, *run_ids, split=split), split)


def require(project, *run_ids, split="valid"):
    truths.require_same_images(project.services, project.slug, run_ids, split)


def test_labels_of_the_newest_run_count_whatever_the_order(project):
    first, second = project.image_ids["valid"][:2]
    change(project, "UPDATE annotation SET x1 = x1 / 2 WHERE image_id IN (?, ?)", first, second)
    run_2 = train_again(project)
    change(project, "DELETE FROM annotation WHERE image_id = ?", first)
    run_3 = train_again(project, name="Run 3")
    for order in ((project.run_id, run_2, run_3), (run_3, run_2, project.run_id)):
        found = truths.find_common(project.services, project.slug, order, "valid")
        assert found.samples.find(first).boxes.size == 0 and len(found.samples) == 6
        assert found.note["relabeled"] == [{"run": run_2, "images": 1}, {"run": project.run_id, "images": 2}]
        require(project, *order)
    assert words(project, 1, 2, 3) == [
        "Judged on the labels of run 3; 1 image of valid was relabeled since run 2 (Second run), 2 since run 1"
        " (First run)."
    ]
    assert words(project, run_2, run_3, split="test") == words(project, run_3) == []


def test_labels_in_another_order_or_of_another_split_are_no_other_labels(project):
    database = project.services.database(project.slug)
    image_id = project.image_ids["valid"][0]
    with database.write() as db:
        rows = annotations.of_images(db, [image_id])[image_id]
        db.execute("DELETE FROM annotation WHERE image_id = ?", [image_id])
        annotations.insert_many(db, rows[::-1])
        db.execute("UPDATE annotation SET x1 = x1 / 2 WHERE image_id = ?", [project.image_ids["train"][0]])
    second = train_again(project)
    assert note(project, project.run_id, second)["relabeled"] == []
    change(project, "UPDATE annotation SET is_crowd = 1 WHERE id = (SELECT min(id) FROM annotation)")
    change(project, "UPDATE annotation SET is_crowd = 1 WHERE image_id = ?", image_id)
    assert note(project, second, train_again(project))["relabeled"] == [{"run": second, "images": 1}]


def test_what_differs_between_images_is_named(project):
    kept, moved, turned, gone = project.image_ids["valid"][:4]
    change(project, "UPDATE image SET split = 'train' WHERE id = ?", moved)
    change(project, "UPDATE image SET rotation = 90, height = 100 WHERE id = ?", turned)
    change(project, "DELETE FROM image WHERE id = ?", gone)
    change(project, "UPDATE image SET split = 'valid' WHERE id = ?", project.image_ids["train"][0])
    second = train_again(project)
    with pytest.raises(BadRequest) as refused:
        require(project, project.run_id, second)
    learned = project.image_ids["train"][0]
    assert refused.value.message == (
        "The valid images of run 1 are not those of run 2, so that their predictions cannot be fused: "
        f"image {learned} (train_0.png) is in train of run 1, which was trained on it; "
        f"image {moved} (valid_1.png) is in train of run 2, which was trained on it; "
        f"image {gone} (valid_3.png) is not in run 2; and 1 more."
    )
    assert "labels may differ" in refused.value.hint
    require(project, project.run_id, second, split="test")
    change(project, "UPDATE image SET rotation = 180 WHERE id = ?", kept)
    with pytest.raises(BadRequest, match=r"200 x 200 pixels in run 2 and 200 x 200 pixels, turned by 180 degrees in"):
        require(project, second, train_again(project))


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE category SET name = 'Cell' WHERE position = 0", "class 1 is 'Red cell' in run 1 and 'Cell' in run 2"),
        ("INSERT INTO category VALUES (77, 'Third', '', 2)", "class 3 is missing in run 1 and 'Third' in run 2"),
    ],
)
def test_other_classes_are_refused_by_name(project, statement, what):
    change(project, statement)
    second = train_again(project)
    with pytest.raises(BadRequest, match=what):
        require(project, project.run_id, second)
    with pytest.raises(BadRequest, match=what):
        note(project, project.run_id, second)


def test_an_image_that_one_of_them_was_trained_on_is_told(project):
    services, slug = project.services, project.slug
    moved = project.image_ids["train"][0]
    change(project, "UPDATE image SET split = 'valid' WHERE id = ?", moved)
    weights = services.files(slug).run(project.run_id).resolve() / "epoch-4.pt"
    second = train_again(project, {"pretrained": "file", "weights_file": str(weights)})
    assert note(project, project.run_id, second)["left_out_seen"] == [{"run": project.run_id, "images": 1}]
    assert note(project, project.run_id, second, split="train")["left_out_seen"] == []
    asked = (services, slug, Side("run", project.run_id), Side("run", second))
    assert comparing.compare(*asked)["truth"]["words"] == [
        "1 image left out was trained on by run 1 (First run) and would have flattered it."
    ]
    third = train_again(project, {"pretrained": "file", "weights_file": "/elsewhere/1/epoch-4.pt"}, "Third run")
    weights = services.files(slug).run(second).resolve() / "best.pt"
    fourth = train_again(project, {"pretrained": "file", "weights_file": str(weights)}, "Run 4")
    require(project, second, third, fourth)  # to be fused, but with a word on it
    assert note(project, second, third)["seen"] == [{"run": second, "images": 1, "by": [project.run_id]}]
    assert words(project, third, fourth) == [
        "1 image of valid was trained on by run 1 (First run), whose weights run 4 began with: its figures are"
        " flattered."
    ]
    assert words(project, third, fourth, split="train") == []  # there it is no news
    runs.delete_run(services.database(slug), project.run_id)
    assert words(project, third, fourth)[0].startswith("1 image of valid was trained on by run 1, whose")


def test_the_page_reads_each_dataset_once(project, monkeypatch):
    reads = []
    load = truths.load_snapshot
    monkeypatch.setattr(truths, "load_snapshot", lambda path: (reads.append(path), load(path))[1])
    change(project, "UPDATE annotation SET x1 = x1 / 2")
    for _ in range(5):
        train_again(project)
    change(project, "UPDATE image SET split = 'train' WHERE id = ?", project.image_ids["valid"][0])
    train_again(project)
    reads.clear()
    newest, *others = review.overview(project.services, project.slug)
    assert review.overview(project.services, project.slug) == [newest, *others]
    assert len(reads) == len(set(reads)) == 7
    assert newest["splits"] == {"train": 3, "valid": 5, "test": 3}
    assert len({run["dataset"]["valid"] for run in others}) == 1
    assert {run["dataset"]["test"] for run in others} == {newest["dataset"]["test"]}
    assert newest["dataset"]["valid"] != others[0]["dataset"]["valid"]
    path = project.services.files(project.slug).run(newest["id"]) / "dataset.json"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | {"images": [], "annotations": []}))
    assert review.overview(project.services, project.slug)[0]["splits"]["valid"] == 0  # a new file is read
