"""Boxes that are not written as COCO asks: judged once for a whole export, whatever its splits hold."""

import pytest

from app.pipeline.data.export_layout import ParsedExport, read_export
from app.pipeline.data.findings import ExportRefused
from app.pipeline.data.source import open_source
from tests.pipeline.data.export_files import box_entry, coco, encoded, image_entry, picture, write_folder

CORNERS = [30, 20, 50, 44]  # as xywh it would leave the image of 64 x 48
PLAIN = [1, 1, 5, 5]


def read(tmp_path, **boxes_of_split: list) -> ParsedExport:
    """The export of one image per split with these four numbers per box."""
    files = {}
    for split, boxes in boxes_of_split.items():
        entries = [box_entry(n, bbox=bbox) for n, bbox in enumerate(boxes)]
        document = coco([image_entry(file_name=f"{split}.png")], entries)
        files |= {f"{split}/_annotations.coco.json": encoded(document), f"{split}/{split}.png": picture()}
    with open_source(write_folder(tmp_path / "export", files)) as source:
        return read_export(source)


def boxes(export: ParsedExport, split: str = "train") -> list[tuple]:
    return [annotation.bbox for image in export.images if image.split == split for annotation in image.annotations]


def codes(export: ParsedExport) -> set[tuple[str, str, int]]:
    return {(finding.kind, finding.code, finding.count) for finding in export.findings if finding.kind != "note"}


def test_export_of_corner_pairs_is_read_as_such(tmp_path):
    export = read(tmp_path, train=[[30 + n, 20, 50, 44] for n in range(12)])
    assert boxes(export)[0] == (30, 20, 50, 44)
    assert export.images[0].annotations[0].source_bbox_xywh == (30, 20, 20, 24)
    assert codes(export) == {("fixed", "xyxy", 12)}


def test_small_splits_are_read_as_the_whole_export_is(tmp_path):
    export = read(tmp_path, train=[CORNERS] * 12, valid=[CORNERS], test=[CORNERS, [1, 2, 9, 9]])
    assert boxes(export, "valid") == [(30, 20, 50, 44)]
    assert boxes(export, "test") == [(30, 20, 50, 44), (1, 2, 9, 9)]
    assert codes(export) == {("fixed", "xyxy", 15)}


def test_splits_that_are_each_too_small_are_judged_together(tmp_path):
    export = read(tmp_path, train=[CORNERS] * 6, valid=[CORNERS] * 6)
    assert boxes(export, "valid")[0] == (30, 20, 50, 44)


def test_one_box_that_is_no_corner_pair_does_not_hide_the_others(tmp_path):
    export = read(tmp_path, train=[CORNERS] * 30 + [[30, 20, 9, 9]])
    assert boxes(export)[0] == (30, 20, 50, 44)


def test_a_few_boxes_over_the_edge_are_no_corner_pairs(tmp_path):
    assert boxes(read(tmp_path, train=[CORNERS] * 4 + [PLAIN] * 8))[0] == (30, 20, 80, 64)


SHARES = [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    "boxes_of_split",
    [
        {"train": [SHARES] * 3},
        {"train": [SHARES], "valid": [SHARES], "test": [SHARES]},
        {"train": [SHARES] * 11 + [[0, 0, 1.002, 0.5]]},
        {"train": [SHARES] * 30, "valid": [PLAIN]},
        {"train": [SHARES, [0, 0, 1, 1], [0, 0, 1, 1]]},
    ],
    ids=["all", "few in each split", "one just over 1", "one in pixels", "whole images"],
)
def test_normalized_boxes_are_refused(tmp_path, boxes_of_split):
    with pytest.raises(ExportRefused, match=r"export: \d+ of \d+ boxes lie between 0 and 1, as normalized"):
        read(tmp_path, **boxes_of_split)


@pytest.mark.parametrize(
    "boxes_of_split",
    [
        {"train": [PLAIN] * 3, "test": [SHARES]},
        {"train": [PLAIN, SHARES]},
        {"train": [PLAIN] * 3 + [SHARES] * 9},
        {"train": [SHARES] * 2},
    ],
    ids=["alone in a small split", "beside another", "many, but not nearly all", "too few to tell"],
)
def test_a_few_tiny_boxes_are_kept_with_a_warning(tmp_path, boxes_of_split):
    export = read(tmp_path, **boxes_of_split)
    split = "test" if "test" in boxes_of_split else "train"
    assert boxes(export, split)[-1] == pytest.approx((0.1, 0.2, 0.4, 0.6))
    assert [(kind, code) for kind, code, _ in codes(export)] == [("warning", "below_a_pixel")]


def test_boxes_of_one_whole_pixel_are_no_shares(tmp_path):
    assert not codes(read(tmp_path, train=[[0, 0, 1, 1]] * 4))
