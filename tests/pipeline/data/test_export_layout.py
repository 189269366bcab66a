"""Whole exports: any layout, several splits, merged classes, leakage, missing and unlisted files."""

from collections import Counter

import pytest

from app.pipeline.data.export_layout import ParsedExport, read_export
from app.pipeline.data.findings import ExportRefused, Finding, group_findings
from app.pipeline.data.fit import fit_to_image
from app.pipeline.data.image import probe_image
from app.pipeline.data.layout_names import split_of
from app.pipeline.data.source import open_source
from tests.pipeline.data.export_files import (
    Files,
    box_entry,
    coco,
    encoded,
    image_entry,
    picture,
    write_folder,
    write_zip,
)

COCO_NAME = "_annotations.coco.json"
PIXELS = picture()


def read(tmp_path, files: Files, **options) -> ParsedExport:
    with open_source(write_folder(tmp_path / "export", files)) as source:
        return read_export(source, **options)


def split_files(*splits: str, folder: str = "", **of_split) -> Files:
    """A Roboflow-like export of one image per split."""
    files: Files = {}
    for split in splits:
        document = of_split.get(split) or coco([image_entry(file_name=f"{split}.png")])
        files[f"{folder}{split}/{COCO_NAME}"] = encoded(document)
        for image in document["images"]:
            files[f"{folder}{split}/{image['file_name']}"] = PIXELS
    return files


def members(export: ParsedExport) -> dict[str, str]:
    return {image.member: image.split for image in export.images}


def found(export: ParsedExport, kind: str) -> list[tuple[str, str]]:
    return [(finding.code, finding.where) for finding in export.findings if finding.kind == kind]


def num_boxes(export: ParsedExport) -> int:
    return sum(len(image.annotations) for image in export.images)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            split_files("train", "valid", "test"),
            {"train/train.png": "train", "valid/valid.png": "valid", "test/test.png": "test"},
        ),
        (
            split_files("train", "val", folder="My data set/"),
            {"My data set/train/train.png": "train", "My data set/val/val.png": "valid"},
        ),
        (
            split_files("training", "validation"),
            {"training/training.png": "train", "validation/validation.png": "valid"},
        ),
        ({COCO_NAME: encoded(coco()), "a.png": PIXELS}, {"a.png": ""}),
        ({"labels.json": encoded(coco()), "images/a.png": PIXELS}, {"images/a.png": ""}),
        ({"annotations/all.json": encoded(coco()), "images/a.png": PIXELS}, {"images/a.png": ""}),
        ({"train/labels.json": encoded(coco()), "train/images/a.png": PIXELS}, {"train/images/a.png": "train"}),
        (
            {
                "annotations/instances_train2017.json": encoded(coco()),
                "annotations/instances_val2017.json": encoded(coco()),
                "train2017/a.png": PIXELS,
                "val2017/a.png": picture(seed=1),
            },
            {"train2017/a.png": "train", "val2017/a.png": "valid"},
        ),
        (
            {
                COCO_NAME: encoded(coco([image_entry(file_name="sub dir/deep/a.png")])),
                "sub dir/deep/a.png": PIXELS,
            },
            {"sub dir/deep/a.png": ""},
        ),
        (
            {COCO_NAME: encoded(coco([image_entry(file_name="sub\\a.png")])), "sub/a.png": PIXELS},
            {"sub/a.png": ""},
        ),
        (
            {COCO_NAME: encoded(coco([image_entry(file_name="./train/a.png")])), "train/a.png": PIXELS},
            {"train/a.png": "train"},
        ),
    ],
    ids=[
        "train, valid and test",
        "in a folder with blanks, val",
        "training and validation",
        "flat",
        "images folder",
        "annotations and images folders",
        "images folder in the split",
        "COCO's own layout, equal names",
        "file_name with sub-folders",
        "file_name with backslashes",
        "split told by file_name",
    ],
)
def test_layouts_are_understood(tmp_path, files, expected):
    export = read(tmp_path, files)
    assert members(export) == expected
    assert num_boxes(export) == len(expected)
    assert not found(export, "missing") + found(export, "unlisted")


def test_zip_and_folder_read_alike(tmp_path):
    files = split_files("train", "valid")
    with open_source(write_zip(tmp_path / "a.zip", files)) as source:
        from_zip = read_export(source)
    assert from_zip == read(tmp_path, files)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train/_annotations.coco.json", "train"),
        ("Val/a.json", "valid"),
        ("data/test2017/x.png", "test"),
        ("instances_val2017.json", "valid"),
        ("contest.json", ""),
        ("trained/a.png", ""),
        ("train.png", ""),
        ("test/train/a.png", "train"),
    ],
)
def test_split_is_told_by_the_nearest_folder_or_the_json_name(name, split):
    assert split_of(name) == split


def test_hidden_json_is_read_and_its_macos_twin_is_not(tmp_path):
    files = {
        "train/.annotations.coco.json": encoded(coco()),
        "train/.__annotations.coco.json": b"\x00\x05\x16\x07\x00\x02binary",
        "train/._a.png": b"\x00\x05\x16\x07",
        "train/.DS_Store": b"x",
        "train/.ipynb_checkpoints/a.png": PIXELS,
        "train/a.png": PIXELS,
    }
    export = read(tmp_path, files)
    assert members(export) == {"train/a.png": "train"}
    assert found(export, "unlisted") == []


def test_other_json_files_beside_the_real_ones_do_not_matter(tmp_path):
    files = {**split_files("train"), "train/settings.json": b"[broken", "results.json": b"[]"}
    assert found(read(tmp_path, files), "note") == [("other_json", "")]


def test_captions_and_results_beside_boxes_are_left_out(tmp_path):
    captions = {"images": [image_entry()], "annotations": [{"id": 1, "image_id": 1, "caption": "a cell"}]}
    files = {
        "annotations/captions_train.json": encoded(captions),
        "annotations/instances_train.json": encoded(coco()),
        "annotations/results.json": b"[]",
        "train/a.png": PIXELS,
    }
    export = read(tmp_path, files)
    assert num_boxes(export) == 1
    assert len(found(export, "note")) == 2


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"a.png": PIXELS}, r"no COCO file.*1 file\(s\) \(png\), 1 of them pictures"),
        ({"data.yaml": b"x", "labels/a.txt": b"0 1 1 1 1"}, r"2 file\(s\) \(txt, yaml\), 0 of them"),
        ({}, "no files"),
        ({"a.json": b"[]", "a.png": PIXELS}, r"a\.json is no COCO file"),
        ({"a.json": b'{"hello": 1}'}, r"a\.json is no COCO file"),
        ({"a.json": b"{broken"}, r"a\.json is no valid JSON: .*line 1 column 2"),
        ({f"train/{COCO_NAME}": b"[]"}, r"train/_annotations\.coco\.json.*found a list"),
        ({COCO_NAME: encoded({**coco(), "categories": []}), "a.png": PIXELS}, "no COCO file"),
    ],
    ids=["only pictures", "YOLO", "nothing", "a list", "other JSON", "broken", "list in the real one", "no classes"],
)
def test_no_usable_json_is_refused_saying_what_was_found(tmp_path, files, match):
    (tmp_path / "export").mkdir()
    with pytest.raises(ExportRefused, match=match):
        read(tmp_path, files)


def test_bare_images_are_read_where_wanted(tmp_path):
    files = {"b.png": PIXELS, "sub/a.JPG": picture(file_format="JPEG"), "note.txt": b"x"}
    export = read(tmp_path, files, allow_bare=True)
    assert members(export) == {"b.png": "", "sub/a.JPG": ""}
    assert export.categories == []
    assert [image.coco_id for image in export.images] == [0, 1]


def test_listed_but_absent_images_are_reported(tmp_path):
    document = coco([image_entry(1), image_entry(2, "gone.png")], [box_entry(1, 1), box_entry(2, 2)])
    export = read(tmp_path, {f"train/{COCO_NAME}": encoded(document), "train/a.png": PIXELS})
    assert members(export) == {"train/a.png": "train"}
    assert found(export, "missing") == [("image", "gone.png")]


@pytest.mark.parametrize(
    ("train", "valid", "only"),
    [
        (f"train/{COCO_NAME}", f"valid/{COCO_NAME}", "train/a.png"),
        ("one/labels_train.json", "two/labels_val.json", "one/a.png"),
        ("annotations/val.json", "annotations/train.json", "train2017/a.png"),
    ],
    ids=["split told by the folder", "split told by the JSON name", "split of the picture's folder"],
)
def test_same_name_in_another_split_is_no_substitute(tmp_path, train, valid, only):
    export = read(tmp_path, {train: encoded(coco()), valid: encoded(coco()), only: PIXELS})
    assert members(export) == {only: "train"}
    assert found(export, "missing") == [("image", "a.png")]


def test_unlisted_images_are_kept_without_boxes(tmp_path):
    files = {**split_files("train", "valid"), "train/extra.png": PIXELS, "loose.png": PIXELS}
    export = read(tmp_path, files)
    assert members(export)["train/extra.png"] == "train"
    assert members(export)["loose.png"] == ""
    assert found(export, "unlisted") == [("image", "loose.png"), ("image", "train/extra.png")]
    ids = [(image.split, image.coco_id) for image in export.images]
    assert len(set(ids)) == len(ids)


def test_file_listed_twice_is_one_image_with_all_boxes(tmp_path):
    document = coco([image_entry(1), image_entry(2)], [box_entry(1, 1), box_entry(2, 2, bbox=[1, 1, 5, 5])])
    export = read(tmp_path, {COCO_NAME: encoded(document), "a.png": PIXELS})
    assert len(export.images) == 1
    assert num_boxes(export) == 2
    assert found(export, "fixed") == [("listed_twice", "a.png")]


def test_decomposed_names_of_a_mac_zip_are_found(tmp_path):
    document = coco([image_entry(file_name="gr\u00f6\u00dfe.png")])
    assert len(read(tmp_path, {COCO_NAME: encoded(document), "gro\u0308\u00dfe.png": PIXELS}).images) == 1


PLACEHOLDER = {"id": 0, "name": "cells", "supercategory": "none"}
REAL = {"id": 1, "name": "cell", "supercategory": "cells"}


@pytest.mark.parametrize(
    ("categories", "used", "kept"),
    [
        ([PLACEHOLDER, REAL], {1}, [1]),
        ([PLACEHOLDER, {**REAL, "name": "cells"}], {1}, [1]),  # same name: ids tell them apart
        ([PLACEHOLDER, REAL], {0, 1}, [0, 1]),  # a real class at id 0
        ([PLACEHOLDER], {0}, [0]),
        ([PLACEHOLDER], set(), [0]),  # nothing else is there
        ([REAL, {**REAL, "id": 2, "name": "unused"}], {1}, [1, 2]),  # an unused class that is not id 0 stays
    ],
)
def test_placeholder_goes_only_when_nothing_uses_it(tmp_path, categories, used, kept):
    annotations = [box_entry(n, category_id=n) for n in used]
    export = read(tmp_path, {COCO_NAME: encoded(coco(None, annotations, categories)), "a.png": PIXELS})
    assert [category.id for category in export.categories] == kept
    assert ("placeholder_category" in dict(found(export, "fixed"))) == (len(kept) < len(categories))


def test_placeholder_with_a_box_in_any_split_stays(tmp_path):
    train = coco([image_entry(file_name="t.png")], [box_entry()], [PLACEHOLDER, REAL])
    valid = coco([image_entry(file_name="v.png")], [box_entry(category_id=0)], [PLACEHOLDER, REAL])
    export = read(tmp_path, split_files("train", "valid", train=train, valid=valid))
    assert [category.id for category in export.categories] == [0, 1]


def test_class_listed_in_one_split_only_is_added(tmp_path):
    valid = coco([image_entry(file_name="v.png")], [box_entry(category_id=2)], [{"id": 2, "name": "nucleus"}])
    export = read(tmp_path, split_files("train", "valid", valid=valid))
    assert [(c.id, c.name) for c in export.categories] == [(1, "cell"), (2, "nucleus")]
    assert ("category_lists_differ", "valid/_annotations.coco.json") in found(export, "note")


def test_ids_that_mean_other_classes_in_a_split_are_matched_by_name(tmp_path):
    train = coco([image_entry(file_name="t.png")], [box_entry()], [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}])
    swapped = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "hen"}]
    boxes = [box_entry(n, category_id=n, bbox=[n, n, 5, 5]) for n in (1, 2, 3)]
    valid = coco([image_entry(file_name="v.png")], boxes, swapped)
    export = read(tmp_path, split_files("train", "valid", train=train, valid=valid))
    names = {category.id: category.name for category in export.categories}
    of_valid = next(image for image in export.images if image.split == "valid")
    assert [names[a.category_id] for a in of_valid.annotations] == ["dog", "cat", "hen"]
    assert names == {1: "cat", 2: "dog", 3: "hen"}


def test_two_classes_of_one_name_are_merged_only_after_asking(tmp_path):
    categories = [{"id": 1, "name": "cell"}, {"id": 2, "name": "cell"}]
    boxes = [box_entry(1), box_entry(2, category_id=2, bbox=[1, 1, 5, 5])]
    files = {COCO_NAME: encoded(coco(None, boxes, categories)), "a.png": PIXELS}
    with pytest.raises(ExportRefused, match=r"'cell' \(ids 1, 2\)") as refusal:
        read(tmp_path, files)
    assert refusal.value.code == "same_name"
    export = read(tmp_path, files, merge_same_names=True)
    assert [category.id for category in export.categories] == [1]
    assert {a.category_id for a in export.images[0].annotations} == {1}


def test_case_twins_stay_apart_with_a_warning(tmp_path):
    categories = [{"id": 1, "name": "Varroa"}, {"id": 2, "name": "varroa"}]
    export = read(tmp_path, {COCO_NAME: encoded(coco(categories=categories)), "a.png": PIXELS})
    assert len(export.categories) == 2
    assert found(export, "warning") == [("case_twins", "")]


def test_source_in_two_splits_is_told(tmp_path):
    suffixes = ("0" * 32, "f" * 32)
    train, valid = (coco([image_entry(file_name=f"img_7_jpg.rf.{suffix}.png")]) for suffix in suffixes)
    export = read(tmp_path, split_files("train", "valid", train=train, valid=valid))
    assert list(export.leaks.values()) == [("train", "valid")]
    assert [code for code, _ in found(export, "warning")] == ["leakage"]


def test_plain_name_used_in_two_splits_is_no_leak(tmp_path):
    numbered = coco([image_entry(file_name="000001.png")])
    export = read(tmp_path, split_files("train", "valid", train=numbered, valid=numbered))
    assert len(export.images) == 2
    assert export.leaks == {}
    assert found(export, "warning") == []


def test_findings_of_a_kind_are_grouped_gravest_first():
    findings = [
        finding
        for n in range(60)
        for finding in (Finding("fixed", "clipped", "x", count=2), Finding("skipped", "bbox", f"{n}"))
    ]
    assert [(g["kind"], g["count"], len(g["examples"])) for g in group_findings(findings, examples=5)] == [
        ("skipped", 60, 5),
        ("fixed", 120, 5),
    ]


@pytest.mark.parametrize(
    ("name", "splits", "boxes", "classes", "degenerate"),
    [
        ("digits_tiny", {"train": 30, "valid": 10, "test": 10}, 262, 10, 0),
        ("cubes_tiny", {"train": 87, "valid": 19, "test": 12}, 663, 4, 0),
        ("bccd", {"train": 255, "valid": 73, "test": 36}, 4886, 3, 2),  # 4,888 with two of zero size
        ("granular_seg", {"train": 180, "valid": 35}, 15435, 3, 0),
    ],
)
def test_real_exports(real_data, name, splits, boxes, classes, degenerate):
    with open_source(real_data / name) as source:
        export = read_export(source)
        fitted = [fit_to_image(image, probe_image(source.read(image.member))) for image in export.images]
    assert Counter(image.split for image in export.images) == splits
    assert sum(len(one.annotations) for one in fitted) == boxes
    assert len(export.categories) == classes
    findings = [*export.findings, *(finding for one in fitted for finding in one.findings)]
    assert sum(f.count for f in findings if f.code == "degenerate") == degenerate
    assert not [f for f in findings if f.kind in ("missing", "unlisted", "quarantined")]
