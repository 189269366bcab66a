"""Importing: whole or not at all, adding to a project, what the report says."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.errors import Cancelled, Conflict, ImportRefused, SameNames
from app.jobs.locks import FileLock
from app.services import importing, projects, staging
from app.store import annotations, categories, images
from tests.services.export_maker import CATEGORIES, Export, picture


def contents_of(services, slug):
    """Every image as (split, file name, problem, boxes by class name)."""
    with services.database(slug).read() as db:
        names = {category.id: category.name for category in categories.all_of(db)}
        boxes = annotations.of_images(db, [image.id for image in images.all_of(db)])
        return [
            (image.split, image.file_name, image.problem, [(names[b.category_id], b.bbox) for b in boxes[image.id]])
            for image in images.all_of(db)
        ]


def stored_files(services, slug):
    return sorted(path.name for path in services.files(slug).images.glob("*/*"))


def is_clean(services, slug):
    """No image, no file, no staging folder."""
    return (
        contents_of(services, slug) == []
        and stored_files(services, slug) == []
        and not services.files(slug).staging.exists()
    )


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_everything_arrives_and_the_report_counts_it(services, export, tmp_path, form):
    path = export.zip(tmp_path / "e.zip") if form == "zip" else export.folder(tmp_path / "e")
    seen = []
    slug, report = importing.import_as_new_project(
        services, "Pets", path, on_progress=lambda done, total: seen.append((done, total))
    )
    assert contents_of(services, slug) == [
        ("train", "a.jpg", "", [("cat", (1.0, 2.0, 31.5, 22.25)), ("dog", (0.0, 0.0, 10.0, 10.0))]),
        ("train", "b.jpg", "", [("cat", (5.125, 5.0, 8.125, 8.0))]),
        ("valid", "c.jpg", "", [("dog", (10.0, 10.0, 30.0, 30.0))]),
        ("test", "d.jpg", "", [("cat", (10.0, 10.0, 30.0, 30.0))]),
    ]
    assert seen[-1] == (4, 4)
    assert (report["images"], report["annotations"], report["categories"]) == (4, 5, 2)
    assert report["splits"] == {"train": 2, "valid": 1, "test": 1}
    assert report["per_split"]["train"]["classes"] == {"cat": 2, "dog": 1}
    assert [group["code"] for group in report["findings"]] == ["placeholder_category"]
    kept = importing.newest_report(services, slug)
    assert kept["source"] == path.name and kept["images"] == 4
    assert len(stored_files(services, slug)) == 4
    assert not services.files(slug).staging.exists()
    with services.database(slug).read() as db:
        assert [category.id for category in categories.all_of(db)] == [1, 2]
        assert images.extras(db) == {1: {"extra": {"name": "a.png"}}}


def test_refused_import_leaves_no_project(services, tmp_path):
    (tmp_path / "e.zip").write_bytes(b"this is no zip")
    with pytest.raises(ImportRefused):
        importing.import_as_new_project(services, "Pets", tmp_path / "e.zip")
    assert services.workspace.slugs() == []
    assert list(services.workspace.hidden_folder("imports").iterdir()) == []


def test_zip_damaged_inside_an_image_changes_nothing(services, export, tmp_path):
    path = export.zip(tmp_path / "e.zip")
    content = bytearray(path.read_bytes())
    at = content.index(export.contents["valid/c.jpg"])
    content[at + 400] ^= 0xFF  # stored, so only its checksum tells
    path.write_bytes(content)
    slug = projects.create_project(services, "Pets")
    with pytest.raises(ImportRefused, match=r"c\.jpg is damaged"):
        importing.import_dataset(services, slug, path)
    assert is_clean(services, slug)


def test_cancel_leaves_nothing(services, export, tmp_path):
    slug = projects.create_project(services, "Pets")
    with pytest.raises(Cancelled):
        importing.import_dataset(services, slug, export.folder(tmp_path / "e"), should_stop=lambda: True)
    assert is_clean(services, slug)


def test_failing_transaction_leaves_nothing(services, export, tmp_path, monkeypatch):
    slug = projects.create_project(services, "Pets")

    def fail(db, source, report):
        raise OSError("disk full")

    monkeypatch.setattr(importing.reports, "insert", fail)
    with pytest.raises(OSError, match="disk full"):
        importing.import_dataset(services, slug, export.folder(tmp_path / "e"))
    assert is_clean(services, slug)


_KILLED_WHILE_COMMITTING = """
import os, signal, sys
from pathlib import Path
from app.services import importing
from app.services.context import Services
from app.store.files import Workspace

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    root, slug, path, where = sys.argv[1:]
    setattr(importing, where, die)
    importing.import_dataset(Services(Workspace(Path(root))), slug, path)
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
@pytest.mark.parametrize("where", ["gather", "_insert"], ids=["after staging", "after moving"])
def test_killed_import_leaves_nothing_that_counts_and_the_next_one_sweeps(services, export, tmp_path, where):
    slug = projects.create_project(services, "Pets")
    script = tmp_path / "killed.py"
    script.write_text(_KILLED_WHILE_COMMITTING)
    path = export.folder(tmp_path / "e")
    repository = Path(__file__).resolve().parents[2]
    process = subprocess.run(
        [sys.executable, script, services.workspace.root, slug, path, where],
        env={**os.environ, "PYTHONPATH": str(repository)},
        timeout=60,
    )
    assert process.returncode == -signal.SIGKILL
    assert contents_of(services, slug) == []
    other = Export().add("train", "x.jpg", [(1, [1, 1, 9, 9])]).add("valid", "y.jpg", [(1, [1, 1, 9, 9])])
    other.contents = {name: picture(seed) for seed, name in enumerate(other.contents)}
    importing.import_dataset(services, slug, other.folder(tmp_path / "other"))
    assert len(stored_files(services, slug)) == 2
    assert not services.files(slug).staging.exists()


def test_half_made_project_of_a_killed_import_is_swept(services, export, tmp_path):
    left = services.workspace.hidden_folder("imports", "dead")
    (left / "project.db").write_bytes(b"")
    alive = services.workspace.hidden_folder("imports", "alive")
    with FileLock(alive / "locks" / importing.LOCK_NAME) as lock:
        assert lock.acquire()
        importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
        assert not left.exists() and alive.exists()


@pytest.mark.parametrize("step", ["write_identity", "place_project"], ids=["begun", "ready to be placed"])
def test_new_project_is_not_taken_for_abandoned_by_another_import(services, export, tmp_path, monkeypatch, step):
    original = getattr(importing, step)
    others = []

    def while_another_sweeps(*arguments):
        others.append(threading.Thread(target=importing._sweep_abandoned, args=[services]))
        others[0].start()
        others[0].join(timeout=0.5)  # it may have to wait
        return original(*arguments)

    monkeypatch.setattr(importing, step, while_another_sweeps)
    slug, report = importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
    others[0].join()
    assert report["images"] == len(contents_of(services, slug)) == len(stored_files(services, slug)) == 4
    assert list(services.workspace.hidden_folder("imports").iterdir()) == []


def test_two_imports_at_once_are_refused(services, export, tmp_path):
    slug = projects.create_project(services, "Pets")
    with FileLock(services.files(slug).locks / importing.LOCK_NAME) as lock:
        assert lock.acquire()
        with pytest.raises(Conflict, match="under way"):
            importing.import_dataset(services, slug, export.folder(tmp_path / "e"))
    assert is_clean(services, slug)


def test_bad_pictures_are_left_out_with_a_line(services, export, tmp_path):
    export.add("train", "cut.jpg", [(1, [1, 1, 5, 5])], content=picture(1)[:300])
    export.add("train", "drawing.jpg", content=b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    slug, report = importing.import_as_new_project(services, "Pets", export.zip(tmp_path / "e.zip"))
    assert report["images"] == 4 and report["skipped"] == 2
    (group,) = [group for group in report["findings"] if group["code"] == "unusable_image"]
    assert sorted(example["where"] for example in group["examples"]) == ["cut.jpg", "drawing.jpg"]
    assert len(contents_of(services, slug)) == 4


def test_swapped_sides_are_quarantined_with_their_boxes(services, export, tmp_path):
    export.add("train", "lying.jpg", [(1, [1, 40, 20, 20])], size=(64, 48), stated=(48, 64))
    slug, report = importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
    assert report["quarantined"] == report["per_split"]["train"]["quarantined"] == 1
    (lying,) = [image for image in contents_of(services, slug) if image[1] == "lying.jpg"]
    assert "swapped" in lying[2]
    assert lying[3] == [("cat", (1.0, 40.0, 21.0, 60.0))]  # not clipped to the 48 pixels of the file's height


def test_only_train_is_divided_by_source(services, tmp_path):
    export = Export()
    for number in range(30):
        source = number // 3
        export.add("train", f"s{source}_jpg.rf.{number:032x}.jpg", [(1 + source % 2, [1, 1, 9, 9])])
    slug, report = importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
    assert set(report["splits"]) == {"train", "valid", "test"}
    assert ("note", "splits_made") in [(group["kind"], group["code"]) for group in report["findings"]]
    with services.database(slug).read() as db:
        splits_of = {}
        for image in images.all_of(db):
            splits_of.setdefault(image.source_key, set()).add(image.split)
    assert len(splits_of) == 10 and all(len(splits) == 1 for splits in splits_of.values())
    assert report["leakage"]["sources"] == 0


def test_equal_pictures_are_kept_together_when_splits_are_made(services, tmp_path):
    export = Export()
    for number in range(30):
        export.add("train", f"{number}.jpg", content=picture(number // 3))
    _, report = importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
    assert set(report["splits"]) == {"train", "valid", "test"}
    assert "identical_images" not in {group["code"] for group in report["findings"]}


def test_pictures_of_sixteen_bits_are_told(services, tmp_path):
    deep = cv2.imencode(".png", np.full((48, 64, 3), 3000, np.uint16))[1].tobytes()
    export = Export().add("train", "a.jpg").add("train", "deep.png", content=deep).add("valid", "b.jpg")
    _, report = importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
    (group,) = (group for group in report["findings"] if group["code"] == "deep_values")
    assert (group["kind"], group["count"], group["examples"][0]["where"]) == ("note", 1, "deep.png")


def test_leakage_is_told(services, export, tmp_path):
    export.add("train", f"one_jpg.rf.{1:032x}.jpg", content=picture(5)).add("valid", f"one_jpg.rf.{2:032x}.jpg")
    export.add("test", "twin.jpg", content=picture(5))
    _, report = importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
    assert report["leakage"] == {"sources": 1, "examples": {"one-jpg": ["train", "valid"]}}
    assert {"leakage", "identical_images"} <= {group["code"] for group in report["findings"]}


def test_only_the_same_bytes_make_a_leak_of_plain_names(services, tmp_path):
    export = Export()
    for split in ("train", "valid"):
        export.add(split, "000001.jpg").add(split, "000002.jpg", content=picture(5))
    _, report = importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
    assert report["leakage"]["sources"] == 0
    warnings = [group for group in report["findings"] if group["kind"] == "warning"]
    assert [(group["code"], group["count"]) for group in warnings] == [("identical_images", 1)]
    assert warnings[0]["examples"][0]["where"] == "000002.jpg"


def test_second_import_adds_by_name_and_skips_what_is_there(services, export, tmp_path):
    slug, _ = importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
    more = Export([{"id": 1, "name": "dog", "supercategory": ""}, {"id": 2, "name": "owl", "supercategory": ""}])
    more.add("train", "a.jpg", [(1, [1, 1, 5, 5]), (2, [2, 2, 5, 5])], content=picture(1))
    more.add("valid", "again.jpg", [(1, [1, 1, 5, 5])], content=export.contents["train/b.jpg"])
    more.add("valid", "new.jpg", [(1, [1, 1, 5, 5])], content=picture(2))
    path = more.folder(tmp_path / "more")

    plan = importing.plan_import(services, slug, path)
    assert plan["classes"] == [
        {"name": "dog", "target": "dog", "is_new": False, "boxes": 3},
        {"name": "owl", "target": "owl", "is_new": True, "boxes": 1},
    ]
    assert (plan["images"], plan["project_images"], plan["project_classes"]) == (3, 4, ["cat", "dog"])

    report = importing.import_dataset(services, slug, path)
    assert report["images"] == 2 and report["skipped"] == 1
    assert contents_of(services, slug)[4:] == [
        ("train", "a.jpg", "", [("dog", (1.0, 1.0, 6.0, 6.0)), ("owl", (2.0, 2.0, 7.0, 7.0))]),
        ("valid", "new.jpg", "", [("dog", (1.0, 1.0, 6.0, 6.0))]),
    ]
    with services.database(slug).read() as db:
        assert [(category.id, category.name) for category in categories.all_of(db)] == [
            (1, "cat"),
            (2, "dog"),
            (3, "owl"),
        ]
        for split in ("train", "valid"):
            ids = [image.coco_id for image in images.all_of(db, split)]
            assert len(set(ids)) == len(ids)
    assert len(list(services.files(slug).backups.glob("*.db"))) == 1


def test_mapping_sends_a_class_elsewhere(services, export, tmp_path):
    slug, _ = importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
    more = Export([{"id": 7, "name": "Kitten", "supercategory": ""}])
    more.add("train", "k.jpg", [(7, [1, 1, 5, 5])], content=picture(1))
    path = more.folder(tmp_path / "more")
    with pytest.raises(ImportRefused, match="'puppy'"):
        importing.import_dataset(services, slug, path, mapping={"puppy": "dog"})
    importing.import_dataset(services, slug, path, mapping={"Kitten": "cat"})
    assert contents_of(services, slug)[4][3] == [("cat", (1.0, 1.0, 6.0, 6.0))]
    with services.database(slug).read() as db:
        assert [category.name for category in categories.all_of(db)] == ["cat", "dog"]


def test_same_export_again_is_refused_with_the_reason(services, export, tmp_path):
    path = export.folder(tmp_path / "e")
    slug, _ = importing.import_as_new_project(services, "Pets", path)
    with pytest.raises(ImportRefused, match="already"):
        importing.import_dataset(services, slug, path)
    assert len(contents_of(services, slug)) == 4


def test_classes_of_one_name_need_a_word_of_the_user(services, tmp_path):
    export = Export([*CATEGORIES, {"id": 3, "name": "cat", "supercategory": ""}])
    export.add("train", "a.jpg", [(1, [1, 1, 5, 5]), (3, [20, 20, 5, 5])]).add("valid", "b.jpg", [(3, [1, 1, 5, 5])])
    path = export.folder(tmp_path / "e")
    with pytest.raises(SameNames, match="'cat'"):
        importing.import_as_new_project(services, "Pets", path)
    slug, report = importing.import_as_new_project(services, "Pets", path, merge=True)
    assert report["categories"] == 2
    assert [name for image in contents_of(services, slug) for name, _ in image[3]] == ["cat", "cat", "cat"]


def test_hostile_names_are_kept_as_text(services, tmp_path):
    names = ["<img src=x onerror=alert(1)>", "'); DROP TABLE image; --", "${7*7}", "=HYPERLINK(1)", "two\nlines\x07"]
    listed = [{"id": i + 1, "name": name, "supercategory": ""} for i, name in enumerate(names)]
    export = Export(listed).add("train", "con.jpg", [(i + 1, [i, i, 9, 9]) for i in range(5)]).add("valid", "b.jpg")
    slug, _ = importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
    with services.database(slug).read() as db:
        assert [category.name for category in categories.all_of(db)] == [*names[:4], "twolines"]


def test_folder_of_bare_images_only_on_request(services, tmp_path):
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(picture(number, image_format="PNG"))
    with pytest.raises(ImportRefused, match="no COCO file"):
        importing.import_as_new_project(services, "Bare", tmp_path)
    # The workspace lies in the same folder: its own files are not part of the dataset.
    slug, report = importing.import_as_new_project(services, "Bare", tmp_path, allow_bare=True)
    assert report["images"] == 10 and report["annotations"] == 0
    assert set(report["splits"]) == {"train", "valid", "test"}


def test_picture_that_ends_its_process_is_left_out_and_the_others_arrive(services, export, tmp_path, monkeypatch):
    """The worker is told by its environment to die at one name, as a decoder's crash would end it."""
    for number in range(40):
        export.add("train", f"n{number}.jpg")
    monkeypatch.setattr(staging, "_stage_chunk", _die_at_n7)
    slug, report = importing.import_as_new_project(services, "Pets", export.folder(tmp_path / "e"))
    assert report["images"] == 43
    (group,) = [group for group in report["findings"] if group["code"] == "unusable_image"]
    assert group["examples"] == [{"where": "n7.jpg", "message": "decoding it ended the process that tried", "count": 1}]


def _die_at_n7(names):
    if any(name.endswith("/n7.jpg") for name in names):
        os.kill(os.getpid(), signal.SIGKILL)
    return [staging._stage(name) for name in names]


def test_workers_leave_when_the_import_is_killed(services, export, tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from app.services import importing, staging\n"
        "from app.services.context import Services\n"
        "from app.store.files import Workspace\n"
        "def slow(names):\n"
        "    Path(sys.argv[3]).write_text(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "staging._stage_chunk = slow\n"
        "if __name__ == '__main__':\n"
        "    importing.import_as_new_project(Services(Workspace(Path(sys.argv[1]))), 'x', sys.argv[2])\n"
    )
    note = tmp_path / "pid"
    repository = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, script, services.workspace.root, export.folder(tmp_path / "e"), note],
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    deadline = time.monotonic() + 30
    while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    worker = int(note.read_text())
    process.kill()
    process.wait()
    while _is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(worker)
    assert services.workspace.slugs() == []


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_real_exports(services, real_data):
    for name, (num_images, num_boxes, classes) in {
        "digits_tiny": (50, 262, list("0123456789")),
        "bccd": (364, 4886, ["Platelets", "RBC", "WBC"]),
    }.items():
        slug, report = importing.import_as_new_project(services, name, real_data / name)
        assert (report["images"], report["annotations"]) == (num_images, num_boxes)
        with services.database(slug).read() as db:
            assert sorted(category.name for category in categories.all_of(db)) == classes
    assert json.dumps(report)
