"""Boxes are fitted to the real size of their image: clip first, then drop what has no area."""

import pytest

from app.pipeline.data.coco import ParsedAnnotation, ParsedImage, xywh_to_xyxy
from app.pipeline.data.fit import fit_to_image
from app.pipeline.data.image import ImageInfo


def make_image(boxes_xywh, width=100, height=80, category_id=1) -> ParsedImage:
    annotations = [
        ParsedAnnotation(n, category_id, xywh_to_xyxy(box), False, None, tuple(box)) for n, box in enumerate(boxes_xywh)
    ]
    return ParsedImage("a.png", "a.png", "train", 1, width, height, "a.png", None, annotations)


def fit(image, width=100, height=80):
    fitted = fit_to_image(image, ImageInfo("png", width, height, False))
    return [a.bbox for a in fitted.annotations], {(f.kind, f.code) for f in fitted.findings}, fitted


@pytest.mark.parametrize(
    ("box_xywh", "kept", "findings"),
    [
        ((10, 10, 20, 20), [(10, 10, 30, 30)], set()),
        ((90, 70, 10.4, 10.4), [(90, 70, 100, 80)], {("note", "clipped_rounding")}),
        ((90, 70, 30, 30), [(90, 70, 100, 80)], {("fixed", "clipped")}),
        ((-5, -5, 10, 10), [(0, 0, 5, 5)], {("fixed", "clipped")}),
        ((100, 10, 5, 5), [], {("skipped", "outside")}),
        ((-9, 10, 9, 5), [], {("skipped", "outside")}),
        ((9, 80, 33.72, 0.02), [], {("skipped", "outside")}),  # empty only after clipping
        ((99.999, 10, 5, 5), [], {("skipped", "degenerate")}),
        ((0, 0, 100, 80), [(0, 0, 100, 80)], set()),  # the whole image is a legal box
    ],
)
def test_boxes_are_clipped_and_then_judged(box_xywh, kept, findings):
    assert fit(make_image([box_xywh]))[:2] == (kept, findings)


def test_source_box_survives_clipping():
    _, _, fitted = fit(make_image([(90, 70, 30, 30)]))
    assert fitted.annotations[0].source_bbox_xywh == (90, 70, 30, 30)


def test_exact_duplicates_are_dropped_and_counted():
    boxes, findings, fitted = fit(make_image([(1, 1, 5, 5), (1, 1, 5, 5), (1, 1, 5, 5.5)]))
    assert len(boxes) == 2
    assert findings == {("fixed", "duplicate_box")}
    assert fitted.findings[0].count == 1


def test_equal_boxes_of_two_classes_are_both_kept():
    image = make_image([(1, 1, 5, 5)])
    image.annotations += make_image([(1, 1, 5, 5)], category_id=2).annotations
    assert len(fit(image)[0]) == 2


@pytest.mark.parametrize("real", [(100, 79), (101, 80), (50, 40)])
def test_other_size_than_declared_trusts_the_file(real):
    boxes, findings, fitted = fit(make_image([(10, 10, 200, 200)]), *real)
    assert boxes == [(10, 10, *real)]
    assert ("fixed", "size_differs") in findings
    assert fitted.problem == ""


def test_missing_declared_size_is_taken_from_the_file():
    assert fit(make_image([(1, 1, 5, 5)], None, None))[1] == {("fixed", "size_missing")}
    assert fit(make_image([], None, None))[1] == set()


def test_swapped_size_is_quarantined_with_boxes_in_the_declared_frame():
    boxes, findings, fitted = fit(make_image([(90, 10, 20, 20)]), 80, 100)
    assert boxes == [(90, 10, 100, 30)]
    assert ("quarantined", "swapped_size") in findings
    assert "100 x 80" in fitted.problem
    assert "80 x 100" in fitted.problem


def test_square_image_cannot_be_swapped():
    assert fit(make_image([], 80, 80), 80, 80)[2].problem == ""


def test_very_many_boxes_are_kept_with_a_warning():
    boxes, findings, _ = fit(make_image([(n % 90, n // 90, 5, 5.5) for n in range(5000)]))
    assert len(boxes) == 5000
    assert findings == {("warning", "many_boxes")}
