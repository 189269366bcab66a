"""Anchor recall as the Train page asks for it."""

import pytest

from app.pipeline.anchors import boxes_of
from app.pipeline.config import ConfigError, parse_config
from app.pipeline.data.snapshot import load_snapshot
from app.services import anchors, importing, projects
from app.services.dataset import write_snapshot
from app.store import annotations as annotation_store
from tests.services.export_maker import Export


@pytest.fixture
def project(services, tmp_path):
    """In train four squares of 16 and one crowd; what the other splits hold must not count."""
    export = Export()
    for index in range(4):
        export.add("train", f"{index}.jpg", [(1, [10.0 * index, 12, 16, 16])])
    export.add("valid", "v.jpg", [(1, [0, 0, 40, 40])])
    return importing.import_as_new_project(services, "Squares", export.folder(tmp_path / "export"))[0]


def test_recall_of_stock_and_proposed_anchors(services, project):
    answer = anchors.describe_recall(services, project, {"image_size": 64, "resize": "as_is"})
    assert answer["num_boxes"] == 4
    assert answer["stock"]["kind"] == "stock"
    assert answer["stock"]["num_per_position"] == 3
    assert answer["stock"]["recall"]["all"]["at_50"] == 0  # 256 of 1024 at most
    assert answer["other"]["kind"] == "kmeans"
    assert answer["other"]["shapes"][0] == [[16, 16]]
    assert answer["other"]["recall"]["small"] == {"num_boxes": 4, "at_50": 1, "at_70": 1}
    assert answer["other"]["recall"]["large"]["at_50"] is None


def test_a_larger_image_size_makes_boxes_larger(services, project):
    shapes = [
        anchors.describe_recall(services, project, {"image_size": size, "resize": "stretch"})["other"]["shapes"][0][0]
        for size in (64, 128)
    ]
    assert shapes[1] == pytest.approx([2 * side for side in shapes[0]], abs=0.2)


def test_custom_anchors_are_measured_instead_of_the_proposal(services, project):
    values = {"resize": "as_is", "anchors": "custom", "anchor_sizes": [16], "anchor_ratios": [1]}
    answer = anchors.describe_recall(services, project, values)["other"]
    assert (answer["kind"], answer["num_per_position"], answer["recall"]["all"]["at_70"]) == ("custom", 1, 1)


def test_options_that_anchors_do_not_depend_on_may_be_wrong(services, project):
    assert anchors.describe_recall(services, project, {"epochs": "many", "nonsense": 1})["num_boxes"] == 4
    with pytest.raises(ConfigError, match="image_size"):
        anchors.describe_recall(services, project, {"image_size": 1})


def test_page_and_run_measure_the_same_boxes(services, project, tmp_path):
    with services.database(project).write() as db:
        crowd = annotation_store.of_image(db, 1)[0]
        db.execute("UPDATE annotation SET is_crowd = 1 WHERE id = ?", [crowd.id])
    config = parse_config({"image_size": 96})
    write_snapshot(services, project, tmp_path / "dataset.json")
    samples = load_snapshot(tmp_path / "dataset.json").split("train")
    _, boxes = anchors._train_boxes(services, project, config)
    assert boxes.tolist() == boxes_of(samples, config).tolist()
    assert len(boxes) == 3


def test_a_project_without_boxes_has_no_recall(services):
    slug = projects.create_project(services, "Empty")
    answer = anchors.describe_recall(services, slug, {})
    assert (answer["num_boxes"], answer["stock"], answer["other"]) == (0, None, None)
