"""Opening and saving the boxes of one image."""

import threading

import pytest

from app.errors import BadRequest, NotFound
from app.records import Annotation, ImageFilter, NewImage
from app.services import annotate, projects
from app.services.annotate import BoxEdit, Origin
from app.services.context import Services
from app.store import annotations, categories, images
from app.store.files import Workspace

POLYGON = [[10.0, 10.0, 20.0, 10.0, 20.0, 20.0]]


@pytest.fixture
def services(tmp_path) -> Services:
    return Services(Workspace(tmp_path))


@pytest.fixture
def slug(services) -> str:
    """A project of four images of 100 x 80 px; the first has a box with a polygon and a plain one."""
    slug = projects.create_project(services, "Cells")
    with services.database(slug).write() as db:
        categories.insert(db, "red", category_id=3)
        categories.insert(db, "white", category_id=7)
        for number, split in enumerate(("train", "valid", "train", "train"), 1):
            images.insert(db, _image(number, split))
        annotations.insert_many(
            db,
            [
                Annotation(0, 1, 3, (10, 10, 20, 20), False, POLYGON, 501, (10.0, 10.0, 10.0, 10.0)),
                Annotation(0, 1, 7, (30, 30, 60, 70), False, None, 502, (30.0, 30.0, 30.0, 40.0)),
                Annotation(0, 3, 7, (1, 2, 3, 4)),
            ],
        )
    return slug


def _image(number: int, split: str) -> NewImage:
    return NewImage(
        file_name=f"cell-{number}.png",
        sha256=f"{number:064x}",
        extension="png",
        width=100,
        height=80,
        split=split,
        source_key=f"cell-{number}",
        coco_id=number,
    )


def _edits(opened: annotate.OpenedImage) -> list[BoxEdit]:
    return [BoxEdit(item.id, item.category_id, item.bbox) for item in opened.annotations]


def test_neighbors_follow_the_filter(services, slug):
    opened = annotate.load(services, slug, 3, ImageFilter(split="train"))
    assert (opened.previous, opened.next, opened.position, opened.total) == (1, 4, 2, 3)
    assert opened.is_listed
    assert annotate.load(services, slug, 2).previous == 1


def test_an_image_outside_the_filter_still_finds_its_neighbors(services, slug):
    opened = annotate.load(services, slug, 2, ImageFilter(split="train"))
    assert (opened.previous, opened.next, opened.is_listed) == (1, 3, False)


def test_an_image_is_found_by_its_number_among_the_filtered(services, slug):
    assert annotate.load_at(services, slug, 2, ImageFilter(category_id=7)).image.id == 3
    for position in (0, 3, -1):
        with pytest.raises(NotFound):
            annotate.load_at(services, slug, position, ImageFilter(category_id=7))


def test_saving_keeps_floats_ids_and_outlines_of_boxes_that_did_not_move(services, slug):
    before = annotate.load(services, slug, 1)
    edits = [*_edits(before), BoxEdit(None, 7, (1.01, 2.02, 30.33, 40.44))]
    saved = annotate.save(services, slug, 1, 0, edits)
    after = annotate.load(services, slug, 1)
    assert saved.revision == after.image.revision == 1
    assert after.annotations[:2] == before.annotations
    assert after.annotations[2].bbox == (1.01, 2.02, 30.33, 40.44)
    assert after.image.num_annotations == 3


def test_relabelling_keeps_the_outline_and_moving_drops_it(services, slug):
    first, second = annotate.load(services, slug, 1).annotations
    edits = [BoxEdit(first.id, 7, first.bbox), BoxEdit(second.id, 7, (31, 30, 61, 70))]
    relabelled, moved = annotate.save(services, slug, 1, 0, edits).annotations
    assert (relabelled.category_id, relabelled.segmentation, relabelled.coco_id) == (7, POLYGON, 501)
    assert (moved.bbox, moved.source_bbox_xywh, moved.coco_id) == ((31, 30, 61, 70), None, 502)


def test_boxes_come_back_in_the_order_given(services, slug):
    first, second = annotate.load(services, slug, 1).annotations
    wanted = [(5, 5, 6, 6), second.bbox, (7, 7, 8, 8), first.bbox]
    ids = [None, second.id, None, first.id]
    saved = annotate.save(services, slug, 1, 0, [BoxEdit(i, 3, b) for i, b in zip(ids, wanted, strict=True)])
    assert [item.bbox for item in saved.annotations] == wanted
    assert [item.id for item in saved.annotations][1::2] == [second.id, first.id]


def test_a_new_box_may_get_the_id_of_one_deleted_in_the_same_save(services, slug):
    only = annotate.load(services, slug, 3).annotations[0]  # the highest id of all: SQLite gives it out again
    saved = annotate.save(services, slug, 3, 0, [BoxEdit(None, 3, (5, 5, 6, 6))])
    assert saved.annotations[0].id == only.id
    assert saved.annotations[0].bbox == (5, 5, 6, 6)


def test_a_deleted_box_that_comes_back_brings_its_outline_and_id_along(services, slug):
    first, second = annotate.load(services, slug, 1).annotations
    annotate.save(services, slug, 1, 0, [BoxEdit(second.id, 7, second.bbox)])
    origin = Origin(first.segmentation, first.coco_id, first.source_bbox_xywh, True)
    edits = [BoxEdit(first.id, 3, first.bbox, origin), BoxEdit(second.id, 7, second.bbox)]
    restored = annotate.save(services, slug, 1, 1, edits).annotations[0]
    assert (restored.segmentation, restored.coco_id, restored.is_crowd) == (POLYGON, 501, True)
    twice = [*_edits(annotate.load(services, slug, 1)), BoxEdit(None, 3, first.bbox, origin)]
    assert annotate.save(services, slug, 1, 2, twice).annotations[2].coco_id is None  # ids stay distinct


def test_boxes_are_cut_to_the_image(services, slug):
    saved = annotate.save(services, slug, 2, 0, [BoxEdit(None, 3, (-5, -5, 300, 50))])
    assert saved.annotations[0].bbox == (0, 0, 100, 50)


@pytest.mark.parametrize(
    ("box", "says"),
    [
        (BoxEdit(None, 3, (10, 10, 10, 20)), "area"),
        (BoxEdit(None, 3, (20, 10, 10, 20)), "area"),  # corners the wrong way round
        (BoxEdit(None, 3, (100, 10, 120, 20)), "area"),  # beside the image: nothing is left after cutting
        (BoxEdit(None, 3, (float("nan"), 10, 20, 20)), "finite"),
        (BoxEdit(None, 3, (0, 0, float("inf"), 20)), "finite"),
        (BoxEdit(None, 4, (1, 1, 5, 5)), "class 4"),
    ],
)
def test_a_bad_box_is_refused_and_nothing_is_stored(services, slug, box, says):
    with pytest.raises(BadRequest, match=says):
        annotate.save(services, slug, 2, 0, [BoxEdit(None, 3, (1, 1, 9, 9)), box])
    opened = annotate.load(services, slug, 2)
    assert (opened.image.revision, opened.annotations) == (0, [])


def test_an_id_given_twice_is_refused(services, slug):
    box = _edits(annotate.load(services, slug, 1))[0]
    with pytest.raises(BadRequest, match="twice"):
        annotate.save(services, slug, 1, 0, [box, box])


def test_an_id_of_another_image_makes_a_new_box(services, slug):
    foreign = annotate.load(services, slug, 3).annotations[0]
    saved = annotate.save(services, slug, 2, 0, [BoxEdit(foreign.id, 3, (1, 1, 9, 9))])
    assert saved.annotations[0].id != foreign.id
    assert annotate.load(services, slug, 3).annotations == [foreign]


def test_a_stale_save_is_told_and_changes_nothing(services, slug):
    annotate.save(services, slug, 2, 0, [BoxEdit(None, 3, (1, 1, 9, 9))])
    with pytest.raises(annotate.StaleSave) as caught:
        annotate.save(services, slug, 2, 0, [BoxEdit(None, 7, (2, 2, 5, 5))])
    assert caught.value.current.revision == 1
    assert [item.bbox for item in caught.value.current.annotations] == [(1, 1, 9, 9)]
    assert [item.category_id for item in annotate.load(services, slug, 2).annotations] == [3]


def test_empty_on_purpose_holds_only_without_boxes(services, slug):
    assert annotate.save(services, slug, 2, 0, [], True).is_empty_on_purpose
    assert annotate.load(services, slug, 2).image.is_empty_on_purpose
    assert not annotate.save(services, slug, 2, 1, [BoxEdit(None, 3, (1, 1, 9, 9))], True).is_empty_on_purpose
    assert not annotate.load(services, slug, 2).image.is_empty_on_purpose


def test_of_many_saves_from_one_revision_exactly_one_wins(services, slug):
    outcomes = []

    def save(number: int) -> None:
        try:
            annotate.save(services, slug, 2, 0, [BoxEdit(None, 3, (number, 1, number + 5, 9))])
            outcomes.append(number)
        except annotate.StaleSave:
            outcomes.append(None)

    threads = [threading.Thread(target=save, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for number in outcomes if number is not None]
    assert len(outcomes) == 8 and len(winners) == 1
    assert annotate.load(services, slug, 2).annotations[0].bbox[0] == winners[0]
