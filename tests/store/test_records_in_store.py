"""Images, annotations, classes, settings and reports in the project's database."""

import pytest

from app.errors import BadRequest, Conflict, NotFound
from app.records import Annotation, ImageFilter, NewImage
from app.store import annotations, categories, images, reports, settings
from app.store.database import ProjectDatabase


@pytest.fixture
def database(tmp_path):
    return ProjectDatabase.create(tmp_path / "project.db")


def add_image(db, name="a.jpg", *, split="train", coco_id=0, problem="", extra=None):
    return images.insert(
        db,
        NewImage(
            file_name=name,
            sha256=f"{abs(hash(name)):064x}"[:64],
            extension="jpg",
            width=100,
            height=80,
            split=split,
            source_key=name,
            coco_id=coco_id,
            problem=problem,
            extra=extra or {},
        ),
    )


def box(image_id, category_id=1, bbox=(1.0, 2.0, 30.5, 40.25), **values):
    return Annotation(id=0, image_id=image_id, category_id=category_id, bbox=bbox, **values)


def test_annotation_comes_back_with_all_its_fields(database):
    with database.write() as db:
        categories.insert(db, "cat")
        image_id = add_image(db)
        written = box(
            image_id, is_crowd=True, segmentation={"counts": [1, 2], "size": [3, 4]}, coco_id=7,
            source_bbox_xywh=(1.0, 2.0, 29.5, 38.25),
        )  # fmt: skip
        annotations.insert_many(db, [written])
    with database.read() as db:
        (found,) = annotations.of_image(db, image_id)
        assert found == Annotation(
            id=found.id, image_id=image_id, category_id=1, bbox=(1.0, 2.0, 30.5, 40.25), is_crowd=True,
            segmentation={"counts": [1, 2], "size": [3, 4]}, coco_id=7, source_bbox_xywh=(1.0, 2.0, 29.5, 38.25),
        )  # fmt: skip
        assert images.get(db, image_id).num_annotations == 1
        assert annotations.all_by_image(db) == {image_id: [found]}
        assert annotations.box_rows(db) == [(image_id, 1, 1.0, 2.0, 30.5, 40.25)]


def test_replacing_keeps_known_ids_and_raises_the_revision(database):
    with database.write() as db:
        categories.insert(db, "cat")
        image_id = add_image(db)
        annotations.insert_many(db, [box(image_id), box(image_id, bbox=(5, 5, 9, 9))])
        kept, gone = annotations.of_image(db, image_id)
    with database.write() as db:
        new = box(image_id, bbox=(0, 0, 3, 3))
        assert annotations.replace(db, image_id, 0, [kept, new]) == 1
    with database.read() as db:
        after = annotations.of_image(db, image_id)
        assert [annotation.bbox for annotation in after] == [kept.bbox, (0, 0, 3, 3)]
        assert after[0].id == kept.id and after[1].id not in (kept.id, 0)
        image = images.get(db, image_id)
        assert (image.revision, image.num_annotations) == (1, 2)


def test_stale_save_changes_nothing(database):
    with database.write() as db:
        categories.insert(db, "cat")
        image_id = add_image(db)
        annotations.replace(db, image_id, 0, [box(image_id)])
    with pytest.raises(Conflict, match="revision 1, yours began at 0"), database.write() as db:
        annotations.replace(db, image_id, 0, [])
    with database.read() as db:
        assert len(annotations.of_image(db, image_id)) == 1


def test_id_of_another_image_is_not_taken_over(database):
    with database.write() as db:
        categories.insert(db, "cat")
        first, second = add_image(db, "a.jpg"), add_image(db, "b.jpg")
        annotations.insert_many(db, [box(first)])
        (foreign,) = annotations.of_image(db, first)
        annotations.replace(db, second, 0, [foreign])
        assert annotations.of_image(db, first) == [foreign]
        (own,) = annotations.of_image(db, second)
        assert own.image_id == second and own.id != foreign.id


def test_empty_on_purpose_only_without_boxes(database):
    with database.write() as db:
        categories.insert(db, "cat")
        image_id = add_image(db)
        annotations.replace(db, image_id, 0, [], is_empty_on_purpose=True)
        assert images.get(db, image_id).is_empty_on_purpose
        annotations.replace(db, image_id, 1, [box(image_id)], is_empty_on_purpose=True)
        assert not images.get(db, image_id).is_empty_on_purpose


def test_unknown_image_is_told(database):
    with database.write() as db:
        for call in (images.get, images.extra_of, images.needs_rendering):
            with pytest.raises(NotFound):
                call(db, 5)
        with pytest.raises(NotFound):
            images.set_split(db, 5, "test")
        with pytest.raises(NotFound):
            annotations.replace(db, 5, 0, [])


@pytest.mark.parametrize(
    ("image_filter", "names"),
    [
        (ImageFilter(), ["Cat_1.jpg", "dog.jpg", "100%.jpg"]),
        (ImageFilter(split="valid"), ["dog.jpg"]),
        (ImageFilter(category_id=2), ["Cat_1.jpg"]),
        (ImageFilter(has_problem=True), ["100%.jpg"]),
        (ImageFilter(has_problem=False), ["Cat_1.jpg", "dog.jpg"]),
        (ImageFilter(name="cAT"), ["Cat_1.jpg"]),
        (ImageFilter(name="%"), ["100%.jpg"]),  # a LIKE would take it for "anything"
        (ImageFilter(min_boxes=1), ["Cat_1.jpg", "dog.jpg"]),
        (ImageFilter(max_boxes=1), ["dog.jpg", "100%.jpg"]),
        (ImageFilter(split="train", min_boxes=1, name="x"), []),
    ],
)
def test_filters(database, image_filter, names):
    with database.write() as db:
        categories.insert(db, "cat")
        categories.insert(db, "dog")
        cat, dog = add_image(db, "Cat_1.jpg"), add_image(db, "dog.jpg", split="valid")
        add_image(db, "100%.jpg", split="test", problem="unreadable")
        annotations.insert_many(db, [box(cat, 1), box(cat, 2), box(dog, 1)])
        assert [image.file_name for image in images.page(db, image_filter)] == names
        assert images.count(db, image_filter) == len(names)


def test_pages_and_neighbors_follow_the_filter(database):
    with database.write() as db:
        ids = [add_image(db, f"{i}.jpg", split="train" if i % 2 else "valid") for i in range(6)]
        train = ImageFilter(split="train")
        assert [image.id for image in images.page(db, train, after=ids[1], limit=1)] == [ids[3]]
        assert images.neighbors(db, train, ids[3]) == (ids[1], ids[5], 1)
        assert images.neighbors(db, train, ids[5]) == (ids[3], None, 2)
        assert images.counts_by_split(db)["valid"] == {"images": 3, "annotations": 0, "quarantined": 0}
        assert list(images.of_ids(db, [ids[2], 999])) == [ids[2]]


def test_turning_an_image_sets_size_and_clears_its_problem(database):
    with database.write() as db:
        image_id = add_image(db, problem="sizes differ", extra={"license": 1})
        images.set_rotation(db, image_id, 90, width=80, height=100)
        image = images.get(db, image_id)
        assert (image.rotation, image.width, image.height, image.problem) == (90, 80, 100, "")
        assert images.extra_of(db, image_id) == {"license": 1} == images.extras(db)[image_id]


def test_class_names_are_unique_trimmed_and_printable(database):
    with database.write() as db:
        cat = categories.insert(db, "  cat ", category_id=0)
        dog = categories.insert(db, "<img src=x onerror=alert(1)>")
        assert (cat.id, cat.name, cat.position, dog.id, dog.position) == (0, "cat", 0, 1, 1)
        with pytest.raises(Conflict):
            categories.insert(db, "cat")
        with pytest.raises(Conflict):
            categories.rename(db, dog.id, "cat")
        for name in ("", "  ", "a\x00b", "x" * 201):
            with pytest.raises(BadRequest):
                categories.insert(db, name)
        assert categories.rename(db, dog.id, "Cat").name == "Cat"
        assert [category.name for category in categories.all_of(db)] == ["cat", "Cat"]
        with pytest.raises(NotFound):
            categories.get(db, 99)


def test_settings_and_reports_keep_json(database):
    with database.write() as db:
        assert settings.get(db, "chain", []) == []
        settings.put(db, "chain", [{"name": "flip"}])
        settings.put(db, "chain", [{"name": "blur"}])
        assert settings.get(db, "chain") == [{"name": "blur"}]
        assert reports.newest(db) is None
        reports.insert(db, "a.zip", {"images": 1})
        reports.insert(db, "b.zip", {"images": 2})
        assert reports.newest(db)["source"] == "b.zip" and reports.newest(db)["images"] == 2
        assert [report["images"] for report in reports.all_of(db)] == [2, 1]


def test_image_moved_to_a_split_where_its_coco_id_is_taken_gets_the_next(database):
    with database.write() as db:
        moved, _, free = add_image(db, "a", coco_id=3), add_image(db, "b", split="valid", coco_id=3), add_image(db, "c")
        images.set_split(db, moved, "valid")
        images.set_split(db, free, "valid")
        images.set_split(db, free, "valid")
        assert (images.get(db, moved).coco_id, images.get(db, free).coco_id) == (4, 0)
        assert images.get(db, moved).split == "valid"
