"""The made-up dataset must look like real exports do: several classes, imbalance, crowds, empty images."""

import collections

import cv2
import numpy as np
import orjson
import pytest

from app.pipeline.data.demo import CLASS_NAMES, HEIGHT, WIDTH, write_demo_export


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return write_demo_export(tmp_path_factory.mktemp("demo"), num_images=60)


def _documents(export):
    return {
        folder.name: orjson.loads((folder / "_annotations.coco.json").read_bytes())
        for folder in export.iterdir()
        if folder.is_dir()
    }


def test_it_is_a_roboflow_layout_with_the_placeholder_category(export):
    documents = _documents(export)
    assert {split: len(document["images"]) for split, document in documents.items()} == {
        "train": 42,
        "valid": 12,
        "test": 6,
    }
    for document in documents.values():
        assert [item["name"] for item in document["categories"]] == ["blood-smear", *CLASS_NAMES]
        assert not any(item["category_id"] == 0 for item in document["annotations"])


def test_it_has_imbalance_crowds_and_empty_images(export):
    document = _documents(export)["train"]
    per_image = collections.Counter(item["image_id"] for item in document["annotations"])
    counts = [per_image[item["id"]] for item in document["images"]]
    per_class = collections.Counter(item["category_id"] for item in document["annotations"])
    assert min(counts) == 0
    assert max(counts) >= 30
    assert set(per_class) == {1, 2, 3, 4}
    assert per_class[1] > 8 * per_class[4]


def test_boxes_lie_inside_their_images_and_have_area(export):
    for document in _documents(export).values():
        boxes = np.array([item["bbox"] for item in document["annotations"]])
        assert (boxes[:, 2:] > 0).all()
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 0] + boxes[:, 2] <= WIDTH + 1e-6).all()
        assert (boxes[:, 1] + boxes[:, 3] <= HEIGHT + 1e-6).all()


def test_an_object_differs_from_the_plasma_around_it(export):
    document = _documents(export)["train"]
    names = {item["id"]: item["file_name"] for item in document["images"]}
    annotation = next(item for item in document["annotations"] if item["category_id"] == 3)
    picture = cv2.imread(str(export / "train" / names[annotation["image_id"]])).astype(float)
    x, y, width, height = (int(value) for value in annotation["bbox"])
    inside = picture[y + height // 4 : y + 3 * height // 4, x + width // 4 : x + 3 * width // 4].mean()
    assert inside < np.median(picture) - 20


def test_the_same_seed_gives_the_same_files(export, tmp_path):
    again = write_demo_export(tmp_path, num_images=60)
    for path in sorted(export.rglob("*.jpg"))[:5]:
        assert (again / path.relative_to(export)).read_bytes() == path.read_bytes()
