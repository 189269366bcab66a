"""Labels that leave and come back: the same ids, the same numbers, the same bytes."""

import io
import json
import zipfile

import numpy as np
import orjson
import pytest
from PIL import Image

from app.errors import Cancelled
from app.pipeline.data.snapshot import load_snapshot
from app.records import Annotation
from app.services import dataset, importing, label_export, projects
from app.store import annotations, categories, images
from tests.services.export_maker import Export, picture


def export_of(services, slug, path):
    label_export.export_labels(services, slug, path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def document_of(content, split):
    return orjson.loads(content[f"{split}/_annotations.coco.json"])


def test_export_imports_again_unchanged(services, tmp_path):
    first = Export()
    first.add("train", "a b.jpg", [(1, [1.5, 2, 62.75, 46.2]), (2, [0.1, 0.2, 10.3, 10.7])], coco_id=17)
    polygon = {"category_id": 2, "bbox": [1, 1, 9, 9], "segmentation": [[1, 1, 10, 1, 10, 10.5]], "id": 900}
    first.add("train", "sub/b.png", [polygon], content=picture(1, image_format="PNG"), extra={"name": "b.png"})
    crowd = {
        "category_id": 1,
        "bbox": [0, 0, 64, 48],
        "iscrowd": 1,
        "segmentation": {"counts": [0, 3072], "size": [48, 64]},
    }
    first.add("valid", "c.jpg", [crowd], coco_id=3)
    first.add("valid", "empty.jpg")
    first.add("test", "lying.jpg", [(1, [1, 40, 20, 20])], stated=(48, 64))
    slug, _ = importing.import_as_new_project(services, "One", first.folder(tmp_path / "e"))
    left = export_of(services, slug, tmp_path / "one.zip")

    train = document_of(left, "train")
    assert {image["id"]: image["file_name"] for image in train["images"]} == {17: "a b.jpg", 1: "sub/b.png"}
    assert [a["bbox"] for a in train["annotations"]] == [[1.5, 2, 62.75, 46.2], [0.1, 0.2, 10.3, 10.7], [1, 1, 9, 9]]
    assert [a["id"] for a in train["annotations"]] == [0, 1, 900]
    assert train["annotations"][2]["segmentation"] == polygon["segmentation"]
    assert train["images"][1]["extra"] == {"name": "b.png"}
    valid = document_of(left, "valid")
    assert (valid["annotations"][0]["iscrowd"], valid["annotations"][0]["segmentation"]) == (1, crowd["segmentation"])
    assert document_of(left, "test")["images"][0]["width"] == 48  # quarantined again at the next import
    assert left["train/a b.jpg"] == first.contents["train/a b.jpg"]

    again, report = importing.import_as_new_project(services, "Two", tmp_path / "one.zip")
    assert (report["fixed"], report["quarantined"], report["skipped"]) == (0, 1, 0)
    assert export_of(services, again, tmp_path / "two.zip") == left
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_class_with_id_0_comes_back_when_its_boxes_are_gone(services, tmp_path):
    first = Export([{"id": 0, "name": "cat", "supercategory": ""}, {"id": 1, "name": "dog", "supercategory": ""}])
    first.add("train", "a.jpg", [(0, [1, 1, 9, 9]), (1, [2, 2, 9, 9])]).add("valid", "b.jpg")
    slug, _ = importing.import_as_new_project(services, "One", first.folder(tmp_path / "e"))
    with services.database(slug).write() as db:
        image = images.all_of(db)[0]
        annotations.replace(db, image.id, 0, [a for a in annotations.of_image(db, image.id) if a.category_id == 1])
    left = export_of(services, slug, tmp_path / "one.zip")
    again, report = importing.import_as_new_project(services, "Two", tmp_path / "one.zip")
    assert (report["categories"], report["fixed"]) == (2, 0)
    assert export_of(services, again, tmp_path / "two.zip") == left


@pytest.mark.parametrize("split", ["train", "test"])
def test_project_of_one_split_comes_back_as_it_is(services, tmp_path, split):
    first = Export()
    for number in range(5):
        first.add(split, f"{number}.jpg", [(1, [0.1, 0.2, 0.3, 0.4])])  # smaller than a pixel, as ours may be
    first.add("valid", "v.jpg", [(1, [1, 1, 9, 9])])
    slug, _ = importing.import_as_new_project(services, "One", first.folder(tmp_path / "e"))
    with services.database(slug).write() as db:
        for image in images.all_of(db):
            images.set_split(db, image.id, split)
            annotations.replace(db, image.id, 0, [a for a in annotations.of_image(db, image.id) if a.bbox[2] < 1])
    left = export_of(services, slug, tmp_path / "one.zip")
    again, report = importing.import_as_new_project(services, "Two", tmp_path / "one.zip")
    assert (report["splits"], report["fixed"]) == ({split: 6}, 0)
    assert export_of(services, again, tmp_path / "two.zip") == left


@pytest.mark.parametrize("name", ["digits_tiny", "bccd", "granular_seg", "cubes_tiny"])
def test_real_exports_come_back_unchanged(services, real_data, tmp_path, name):
    slug, _ = importing.import_as_new_project(services, "One", real_data / name)
    left = export_of(services, slug, tmp_path / "one.zip")
    again, report = importing.import_as_new_project(services, "Two", tmp_path / "one.zip")
    assert report["fixed"] == report["skipped"] == report["quarantined"] == 0
    assert export_of(services, again, tmp_path / "two.zip") == left
    for split in report["splits"]:
        original = json.loads((real_data / name / split / "_annotations.coco.json").read_bytes())
        numbers = {a["id"]: [float(number) for number in a["bbox"]] for a in original["annotations"]}
        for annotation in document_of(left, split)["annotations"]:
            assert annotation["bbox"] == numbers[annotation["id"]]


def test_edited_and_new_boxes_leave_with_their_own_numbers_and_free_ids(services, export, tmp_path):
    slug, _ = importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
    with services.database(slug).write() as db:
        image = next(image for image in images.all_of(db) if image.file_name == "a.jpg")
        first, second = annotations.of_image(db, image.id)
        moved = Annotation(**{f: getattr(first, f) for f in first.__slots__} | {"bbox": (2.25, 2, 31.5, 22.25)})
        new = Annotation(0, image.id, categories.insert(db, "owl").id, (3, 3, 9, 9))
        annotations.replace(db, image.id, 0, [moved, second, new])
    document = document_of(export_of(services, slug, tmp_path / "x.zip"), "train")
    boxes = [(a["id"], a["bbox"]) for a in document["annotations"] if a["image_id"] == 0]
    assert boxes == [(0, [2.25, 2, 29.25, 20.25]), (1, [0, 0, 10, 10]), (3, [3, 3, 6, 6])]
    assert [category["name"] for category in document["categories"]] == ["cat", "dog", "owl"]


def test_moved_images_keep_ids_unique_and_results_share_them(services, export, tmp_path):
    slug, _ = importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
    with services.database(slug).write() as db:
        moved = next(image for image in images.all_of(db) if image.file_name == "a.jpg")
        images.set_split(db, moved.id, "valid")
    document = document_of(export_of(services, slug, tmp_path / "x.zip"), "valid")
    ids = {image["file_name"]: image["id"] for image in document["images"]}
    assert ids == {"a.jpg": 1, "c.jpg": 0}
    assert label_export.coco_image_ids(services, slug, "valid")[moved.id] == 1
    assert sorted(a["id"] for a in document["annotations"]) == [0, 1, 2]


def test_turned_image_leaves_upright(services, export, tmp_path):
    values = np.zeros((48, 64, 3), np.uint8)
    values[:24] = 255
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    export.add("train", "lying.png", [(1, [1, 40, 20, 20])], stated=(48, 64), content=buffer.getvalue())
    slug, _ = importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
    with services.database(slug).write() as db:
        lying = next(image for image in images.all_of(db) if image.problem)
        images.set_rotation(db, lying.id, 90, width=48, height=64)
    left = export_of(services, slug, tmp_path / "x.zip")
    upright = np.asarray(Image.open(io.BytesIO(left["train/lying.png"])))
    assert (upright == np.rot90(values, -1)).all()
    again, report = importing.import_as_new_project(services, "Two", tmp_path / "x.zip")
    assert report["quarantined"] == report["fixed"] == 0
    with services.database(again).read() as db:
        found = next(image for image in images.all_of(db) if image.file_name == "lying.png")
        assert (found.width, found.height, found.rotation) == (48, 64, 0)
        assert annotations.of_image(db, found.id)[0].bbox == (1, 40, 21, 60)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a b-ü.jpg", "a b-ü.jpg"),  # an ordinary name stays as it is
        ("sub/dir/a.jpg", "sub/dir/a.jpg"),
        ("CON.jpg", "_CON.jpg"),  # a device on Windows
        ("a:b?.jpg", "a_b_.jpg"),
        ("tail. ", "tail"),
        ("./a.jpg", "a.jpg"),
        ("///", "image"),
        ("x" * 300 + ".jpeg", "x" * 195 + ".jpeg"),
        ("ü" * 150 + ".jpg", "ü" * 98 + ".jpg"),  # 200 bytes, no letter cut in half
    ],
)
def test_names_that_every_file_system_takes(name, safe):
    assert label_export.safe_name(name) == safe
    assert label_export.safe_name(safe) == safe


def test_names_alike_are_told_apart(services, tmp_path):
    slug = projects.create_project(services, "Pets")
    more = [Export().add("train", name, content=picture(n)) for n, name in enumerate(["x.jpg", "x.jpg", "X.jpg"])]
    for number, export in enumerate(more):
        export.add("valid", f"{number}.jpg", content=picture(100 + number))
        importing.import_dataset(services, slug, export.folder(tmp_path / str(number)))
    left = export_of(services, slug, tmp_path / "x.zip")
    assert [image["file_name"] for image in document_of(left, "train")["images"]] == ["x.jpg", "x_2.jpg", "X_3.jpg"]
    assert left["train/X_3.jpg"] == picture(2)


def test_stopped_export_leaves_no_file(services, export, tmp_path):
    slug, _ = importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
    (tmp_path / "out").mkdir()
    with pytest.raises(Cancelled):
        label_export.export_labels(services, slug, tmp_path / "out" / "x.zip", should_stop=lambda: True)
    assert list((tmp_path / "out").iterdir()) == []


def test_project_without_images_leaves_as_an_empty_export(services, tmp_path):
    slug = projects.create_project(services, "Pets")
    left = export_of(services, slug, tmp_path / "x.zip")
    assert list(left) == ["train/_annotations.coco.json"]
    assert document_of(left, "train")["images"] == []


def test_snapshot_holds_what_is_trained_on(services, export, tmp_path):
    export.add("train", "lying.jpg", [(1, [1, 40, 20, 20])], stated=(48, 64))
    slug, _ = importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
    path = services.files(slug).run(1) / "dataset.json"
    dataset.write_snapshot(services, slug, path)
    snapshot = load_snapshot(path)
    assert snapshot.categories.names == ("cat", "dog")
    assert [sample.file_name for sample in snapshot.split("train")] == ["a.jpg", "b.jpg"]  # not the quarantined one
    sample = snapshot.split("train")[0]
    assert sample.boxes.tolist() == [[1, 2, 31.5, 22.25], [0, 0, 10, 10]]
    assert sample.labels.tolist() == [1, 2]
    with services.database(slug).read() as db:
        assert images.get(db, sample.image_id).file_name == "a.jpg"
    assert all(sample.path.is_file() for sample in snapshot.samples)
    assert not path.read_bytes().count(str(tmp_path).encode())  # the project may move
