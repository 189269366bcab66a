"""One COCO document: every oddity of real exports is read, listed as a finding, or refused."""

import pytest

from app.pipeline.data.coco import parse_coco, xywh_to_xyxy, xyxy_to_xywh
from app.pipeline.data.findings import ExportRefused
from tests.pipeline.data.export_files import box_entry, coco, encoded, image_entry


def parse(document):
    return parse_coco(document if isinstance(document, bytes) else encoded(document), "a.json")


def codes(parsed) -> set[tuple[str, str]]:
    return {(finding.kind, finding.code) for finding in parsed.findings}


def boxes(parsed) -> list[tuple]:
    return [annotation.bbox for image in parsed.images for annotation in image.annotations]


def test_plain_document_is_read_without_findings():
    parsed = parse(coco([image_entry(7, extra={"name": "a b.png"})], [box_entry(3, 7, bbox=[1, 2, 30.5, 4])]))
    (image,) = parsed.images
    (annotation,) = image.annotations
    assert (image.coco_id, image.file_name, image.width, image.height) == (7, "a.png", 64, 48)
    assert image.extra == {"name": "a b.png"}
    assert (annotation.coco_id, annotation.category_id) == (3, 1)
    assert annotation.bbox == (1, 2, 31.5, 6)
    assert annotation.source_bbox_xywh == (1, 2, 30.5, 4)
    assert parsed.findings == []


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b'{"images": [NaN]}', "line 1 column 13"),
        (b'{"images": [Infinity]}', "line 1 column 13"),
        (b'{"images": [1e999]}', "line 1"),
        (b"[" * 100_000, "line 1 column"),
        (b'{"images": [', "line 1 column"),
        (b"", "no valid JSON"),
        (b'{"a": 1} and more', "line 1 column 10"),
        (b"[]", "found a list"),
        (b"3", "found a number"),
        (b'{"images": {}}', "images must be a list, found an object"),
    ],
    ids=["NaN", "Infinity", "1e999", "deep", "cut off", "empty", "text after", "list", "number", "images no list"],
)
def test_unreadable_json_is_refused_with_the_place(data, match):
    with pytest.raises(ExportRefused, match=match):
        parse(data)


@pytest.mark.parametrize(
    "wrap", [lambda d: b"\xef\xbb\xbf" + d, lambda d: d.decode().encode("utf-16")], ids=["UTF-8", "UTF-16"]
)
def test_byte_order_mark_is_accepted(wrap):
    assert len(parse(wrap(encoded(coco()))).images) == 1


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_text_that_is_not_utf8_is_refused_with_the_byte(mark):
    data = mark + b'{"images": [],\n "categories": [{"id": 1, "name": "K\xe4se"}]}'
    place = data.index(b"\xe4")
    with pytest.raises(ExportRefused, match=rf"UTF-8 is expected, found the byte 0xe4 at position {place} \(line 2\)"):
        parse(data)


@pytest.mark.parametrize("separator", [b"", b"\n\n"])
def test_of_two_documents_in_a_file_the_fuller_is_read(separator):
    full = encoded(coco(annotations=[box_entry(1), box_entry(2, bbox=[1, 1, 5, 5])]))
    for data in (encoded(coco()) + separator + full, full + separator + encoded(coco())):
        parsed = parse(data)
        assert len(boxes(parsed)) == 2
        assert ("fixed", "several_documents") in codes(parsed)


@pytest.mark.parametrize(
    "bbox",
    [
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        ["one", 2, 3, 4],
        ["1e999", 2, 3, 4],
        ["nan", 2, 3, 4],
        [None, 2, 3, 4],
        [True, 2, 3, 4],
        [[1], 2, 3, 4],
        None,
        {},
        "1 2 3 4",
        [1e308, 2, 1e308, 4],
    ],
)
def test_box_that_is_not_four_finite_numbers_is_skipped(bbox):
    parsed = parse(coco(annotations=[{**box_entry(), "bbox": bbox}, box_entry(2)]))
    assert boxes(parsed) == [(10, 10, 30, 30)]
    assert codes(parsed) == {("skipped", "bbox")}


@pytest.mark.parametrize("bbox", [[1, 2, 0, 0], [1, 2, 0, 5], [1, 2, 5, -3]])
def test_box_without_positive_sides_is_skipped(bbox):
    parsed = parse(coco(annotations=[box_entry(bbox=bbox), box_entry(2)]))
    assert boxes(parsed) == [(10, 10, 30, 30)]
    assert codes(parsed) == {("skipped", "degenerate")}


def test_numbers_written_as_text_are_read():
    parsed = parse(coco([image_entry(width="64", height="48.0")], [box_entry(bbox=[10, 4, "9.0000", "17.5"])]))
    assert boxes(parsed) == [(10, 4, 19, 21.5)]
    assert (parsed.images[0].width, parsed.images[0].height) == (64, 48)
    assert codes(parsed) == {("fixed", "bbox_text")}


@pytest.mark.parametrize("image_id", ["1", 1, 1.0])
def test_ids_match_whether_number_or_text(image_id):
    parsed = parse(coco([image_entry(1)], [box_entry(image_id=image_id, category_id="1")]))
    assert len(boxes(parsed)) == 1


def test_text_ids_get_numbers():
    images = [image_entry("img-a", "a.png"), image_entry(5, "b.png")]
    parsed = parse(coco(images, [box_entry("x", "img-a", "c-1")], [{"id": "c-1", "name": "cell"}]))
    assert [image.coco_id for image in parsed.images] == [6, 5]
    assert len(parsed.images[0].annotations) == 1
    assert parsed.images[0].annotations[0].coco_id is None
    assert parsed.images[0].annotations[0].category_id == parsed.categories[0].id == 1
    assert {("fixed", "image_id"), ("fixed", "category_id"), ("fixed", "annotation_id")} <= codes(parsed)


@pytest.mark.parametrize("again", [1, "1", 1.0])
def test_image_id_twice_is_refused(again):
    with pytest.raises(ExportRefused, match="id 1 is used twice"):
        parse(coco([image_entry(1), image_entry(again, "b.png")]))


def test_annotation_id_twice_keeps_both_boxes():
    parsed = parse(coco(annotations=[box_entry(1), box_entry(1, bbox=[1, 1, 5, 5])]))
    assert [a.coco_id for a in parsed.images[0].annotations] == [1, None]
    assert codes(parsed) == {("fixed", "annotation_id")}


@pytest.mark.parametrize(
    ("annotation", "code"),
    [
        (box_entry(image_id=99), "unknown_image"),
        (box_entry(image_id=None), "unknown_image"),
        (box_entry(category_id=99), "unknown_category"),
        (box_entry(category_id=None), "unknown_category"),
        (["no", "object"], "bad_annotation"),
    ],
)
def test_annotation_that_belongs_nowhere_is_skipped(annotation, code):
    parsed = parse(coco(annotations=[annotation, box_entry(2)]))
    assert len(boxes(parsed)) == 1
    assert codes(parsed) == {("skipped", code)}


@pytest.mark.parametrize(
    "file_name",
    [
        "../a.png",
        "/etc/passwd",
        "C:\\a.png",
        "c:a.png",
        "\\\\srv\\a.png",
        "a\\..\\b.png",
        "a\x00.png",
        "",
        "  ",
        None,
        5,
    ],
)
def test_image_whose_name_is_no_plain_label_is_skipped(file_name):
    parsed = parse(coco([image_entry(1, file_name), image_entry(2, "b.png")], [box_entry(1, 1), box_entry(2, 2)]))
    assert [image.file_name for image in parsed.images] == ["b.png"]
    assert codes(parsed) == {("skipped", "file_name"), ("skipped", "of_skipped_image")}


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>", "${7*7}", "'); DROP TABLE image; --", "=HYPERLINK(1)", "0", "日本語"]
)
def test_class_and_file_names_stay_as_they_are(name):
    parsed = parse(coco([image_entry(file_name=name)], categories=[{"id": 1, "name": name}]))
    assert parsed.categories[0].name == name
    assert parsed.images[0].file_name == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [(None, "class 1"), ("", "class 1"), (7, "7"), (" Red\n", "Red"), ("x" * 300, "x" * 200), ("a\x00b", "ab")],
)
def test_unusable_class_names_are_mended(name, expected):
    parsed = parse(coco(categories=[{"id": 1, "name": name}]))
    assert parsed.categories[0].name == expected


def test_numeric_class_name_is_never_an_id():
    categories = [{"id": 1, "name": "2"}, {"id": 2, "name": "1"}]
    parsed = parse(coco(annotations=[box_entry(category_id=1)], categories=categories))
    assert parsed.images[0].annotations[0].category_id == 1
    assert [(c.id, c.name) for c in parsed.categories] == [(1, "2"), (2, "1")]


def test_category_id_with_two_names_is_refused():
    with pytest.raises(ExportRefused, match="'cell' and 'nucleus'"):
        parse(coco(categories=[{"id": 1, "name": "cell"}, {"id": 1, "name": "nucleus"}]))


@pytest.mark.parametrize("key", ["iscrowd", "is_crowd"])
@pytest.mark.parametrize("value", [1, True, "1"])
def test_crowd_flag_in_both_spellings(key, value):
    entry = box_entry()
    del entry["iscrowd"]
    rle = {"counts": [0, 5, 10], "size": [48, 64]}
    parsed = parse(coco(annotations=[{**entry, key: value, "segmentation": rle}]))
    assert parsed.images[0].annotations[0].is_crowd
    assert parsed.images[0].annotations[0].segmentation == rle


def test_polygons_are_kept_and_empty_lists_are_not():
    polygons = [[1, 1, 9, 1, 9, 9], [20, 20, 30, 20, 30, 30]]
    parsed = parse(coco(annotations=[box_entry(1, segmentation=polygons), box_entry(2, segmentation=[])]))
    assert [a.segmentation for a in parsed.images[0].annotations] == [polygons, None]


def nested(depth: int, core="1") -> bytes:
    return b"[" * depth + core.encode() + b"]" * depth


@pytest.mark.parametrize(
    "segmentation",
    [
        nested(3),
        nested(300),
        nested(990),
        b"[1, 2, 3, 4, 5, 6]",
        b'[["a", 2, 3, 4, 5, 6]]',
        b'[{"x": 1}]',
        b'{"counts": [[1]], "size": [48, 64]}',
        b'{"counts": "a", "size": [48]}',
        b'{"size": [48, 64]}',
        b'"mask.png"',
    ],
)
def test_segmentation_of_another_kind_is_left_out_and_the_box_stays(segmentation):
    data = encoded(coco(annotations=[box_entry(7, segmentation="HERE")])).replace(b'"HERE"', segmentation)
    parsed = parse(data)
    assert boxes(parsed) == [(10, 10, 30, 30)]
    assert parsed.images[0].annotations[0].segmentation is None
    (finding,) = parsed.findings
    assert (finding.kind, finding.code, finding.where) == ("skipped", "segmentation", "a.png")
    assert "annotation 7" in finding.message


@pytest.mark.parametrize("rle", [{"counts": "abc", "size": [48, 64]}, {"counts": [0, 5, 10], "size": [48, 64]}])
def test_run_lengths_and_polygons_written_as_text_are_kept(rle):
    polygons = [["1.5", 1, "9", 1, 9, 9]]
    parsed = parse(coco(annotations=[box_entry(1, segmentation=rle), box_entry(2, segmentation=polygons)]))
    assert [a.segmentation for a in parsed.images[0].annotations] == [rle, polygons]
    assert parsed.findings == []


@pytest.mark.parametrize("depth", [20, 300, 990])
def test_endlessly_nested_details_of_an_image_are_left_out(depth):
    data = encoded(coco([image_entry(extra={"name": "x", "more": "HERE"})])).replace(b'"HERE"', nested(depth))
    parsed = parse(data)
    assert parsed.images[0].extra is None
    assert [(f.kind, f.code, f.where) for f in parsed.findings] == [("skipped", "extra", "a.png")]


def test_details_of_an_image_are_kept_with_what_they_hold():
    extra = {"name": "x", "user_tags": ["a", {"b": [1, [2]]}]}
    assert parse(coco([image_entry(extra=extra)])).images[0].extra == extra


@pytest.mark.parametrize("key", ["bbox", "id", "image_id", "category_id", "file_name"])
def test_endless_nesting_anywhere_is_shown_and_not_a_fault(key):
    document = encoded(
        coco([image_entry(**({key: "HERE"} if key == "file_name" else {}))], [{**box_entry(), key: "HERE"}])
    )
    assert len(parse(document.replace(b'"HERE"', nested(990))).findings) > 0


def test_missing_box_is_taken_from_the_polygon():
    entry = {**box_entry(), "segmentation": [[1, 2, 9, 1, 9, 12], [3, 3, 4, 4, 30, 5]]}
    del entry["bbox"]
    parsed = parse(coco(annotations=[entry]))
    assert boxes(parsed) == [(1, 1, 30, 12)]
    assert codes(parsed) == {("fixed", "bbox_from_polygon")}


@pytest.mark.parametrize(("width", "height"), [(None, None), (0, 48), ("wide", 48), (-5, 48)])
def test_unusable_declared_size_counts_as_not_given(width, height):
    image = parse(coco([image_entry(width=width, height=height)])).images[0]
    assert None in (image.width, image.height)


def test_a_million_bad_boxes_cost_few_findings():
    parsed = parse(coco(annotations=[box_entry(n, bbox=[1, 1, 0, 0]) for n in range(1000)]))
    assert len(parsed.findings) < 300
    assert sum(finding.count for finding in parsed.findings) == 1000


def test_box_frames_convert_both_ways():
    assert xywh_to_xyxy((1, 2, 3, 4)) == (1, 2, 4, 6)
    assert xyxy_to_xywh((1, 2, 4, 6)) == (1, 2, 3, 4)
