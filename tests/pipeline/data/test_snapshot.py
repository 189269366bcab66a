"""The frozen dataset, read piece by piece into columns."""

import json

import numpy as np
import pytest

from app.pipeline.data import json_stream
from app.pipeline.data.json_stream import stream_entries
from app.pipeline.data.snapshot import Sample, Samples, load_snapshot


def image(image_id: int, **changes) -> dict:
    entry = {"id": image_id, "file_name": f"Ämter {image_id}.png", "width": 40 + image_id, "height": 30}
    return {**entry, "split": "train", "path": f"images/{image_id}.png", **changes}


def box(image_id: int, category_id: int, bbox: list, **changes) -> dict:
    return {"id": 1, "image_id": image_id, "category_id": category_id, "bbox": bbox, **changes}


DOCUMENT = {
    "info": {"description": 'brackets ] } and "quotes"', "numbers": [1, [2]]},
    "annotations": [
        box(30, 9, [1.5, 2, 3, 4], iscrowd=1),
        box(7, 5, [0, 0, 10, 10]),
        box(30, 5, [5, 6, 7, 8.25]),
    ],
    "images": [image(7, rotation=90, sha256="ab" * 32), image(12, split="valid"), image(30)],
    "categories": [{"id": 9, "name": "red"}, {"id": 5, "name": "blue"}],
}


@pytest.fixture
def load(tmp_path):
    def write_and_load(document, indent=None):
        (tmp_path / "dataset.json").write_text(json.dumps(document, indent=indent, ensure_ascii=False), "utf-8")
        return load_snapshot(tmp_path / "dataset.json")

    return write_and_load


@pytest.mark.parametrize("piece", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_every_piece_size_gives_the_same_images(load, tmp_path, monkeypatch, piece, indent):
    monkeypatch.setattr(json_stream, "PIECE", piece)
    snapshot = load(DOCUMENT, indent)
    assert [sample.image_id for sample in snapshot.samples] == [7, 12, 30]
    first, second, third = snapshot.samples
    assert (first.file_name, first.width, first.height, first.rotation) == ("Ämter 7.png", 47, 30, 90)
    assert (first.path, first.sha256) == (tmp_path.resolve() / "images" / "7.png", "ab" * 32)
    assert (second.split, second.rotation, second.sha256) == ("valid", 0, "")
    assert second.boxes.shape == (0, 4)
    np.testing.assert_array_equal(third.boxes, [[1.5, 2, 4.5, 6], [5, 6, 12, 14.25]])
    assert third.labels.tolist() == [1, 2]
    assert third.is_crowd.tolist() == [True, False]


def test_splits_and_counts(load):
    snapshot = load(DOCUMENT)
    assert [len(snapshot.split(name)) for name in ("train", "valid", "test")] == [2, 1, 0]
    assert [sample.image_id for sample in snapshot.split("train")] == [7, 30]
    assert [sample.image_id for sample in snapshot.split("train")[1:]] == [30]
    assert snapshot.split("train")[-1].image_id == 30
    assert snapshot.count_boxes("train") == [0, 2]  # a crowd is none
    assert snapshot.count_boxes("valid") == [0, 0]
    assert snapshot.max_objects == 2


def test_dataset_without_images_or_boxes_is_read(load):
    snapshot = load({"images": [], "annotations": [], "categories": []})
    assert (len(snapshot.samples), snapshot.max_objects, snapshot.count_boxes("train")) == (0, 0, [])


@pytest.mark.parametrize(
    ("bbox", "reason"),
    [
        ([1, 1, 0, 5], "without area"),
        ([1, 1, 5, -5], "without area"),
        ([1, 1, 1e999, 5], "Infinity"),
        ([float("nan"), 1, 5, 5], "NaN"),
        ([1, 1, 5], "unpack"),
    ],
)
def test_wrong_box_is_refused(load, bbox, reason):
    document = {**DOCUMENT, "annotations": [box(7, 5, [0, 0, 9, 9]), box(30, 5, bbox)]}
    with pytest.raises(ValueError, match=reason):
        load(document)


def test_box_without_area_is_refused_naming_the_image(load):
    with pytest.raises(ValueError, match=r"image 30 \(Ämter 30\.png\)"):
        load({**DOCUMENT, "annotations": [box(30, 5, [1, 1, 0, 5])]})


@pytest.mark.parametrize("change", [{"image_id": 8}, {"category_id": 1}])
def test_box_of_what_is_not_listed_is_refused(load, change):
    with pytest.raises(ValueError, match="not listed"):
        load({**DOCUMENT, "annotations": [{**box(7, 5, [0, 0, 9, 9]), **change}]})


@pytest.mark.parametrize("text", ["", "[1]", '{"images": [{"id": 1}', '{"images": [1 2', '{"a": 12', '{"a" 1}', '{"a"'])
def test_what_is_no_json_object_is_refused_with_the_place(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON at character \d+"):
        list(stream_entries(tmp_path / "a.json"))


def test_samples_given_as_such_come_back(load):
    before = load(DOCUMENT).samples
    after = Samples.of([before[2], before[1]])
    for one, other in zip(after, (before[2], before[1]), strict=True):
        for name in Sample.__slots__:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert len(Samples.of([])) == 0
