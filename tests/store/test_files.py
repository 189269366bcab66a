"""Names become folders only when they are harmless; files are replaced whole or not at all."""

import pytest

from app.errors import BadRequest, NotFound
from app.store.files import Workspace, replacing, slugify


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Blood cells", "blood-cells"),
        ("../../etc/passwd", "etc-passwd"),  # no way up
        ("Zellen für Müller", "zellen-fur-muller"),  # accents are dropped
        ("细胞", "project"),  # nothing left: still a name
        ("CON", "con-project"),  # a device on Windows
        ("a" * 300, "a" * 60),
    ],
)
def test_any_name_gives_a_harmless_folder(name, slug):
    assert slugify(name) == slug


@pytest.mark.parametrize("slug", ["..", "../x", "a/b", "A", "", ".trash", "x\0y", "-a"])
def test_a_slug_that_is_no_plain_name_is_refused(tmp_path, slug):
    with pytest.raises(BadRequest):
        Workspace(tmp_path).project(slug)


def test_a_missing_project_is_told_by_name(tmp_path):
    with pytest.raises(NotFound, match="blood"):
        Workspace(tmp_path).project("blood")


def test_a_second_project_of_one_name_gets_a_number(tmp_path):
    workspace = Workspace(tmp_path)
    (tmp_path / "cells").mkdir()
    assert workspace.free_slug("Cells") == "cells-2"


def test_a_failed_write_keeps_the_old_file_and_no_rest(tmp_path):
    target = tmp_path / "config.json"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("power cut")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_new_file_is_synced_before_it_takes_the_name(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("app.store.files.sync_file", lambda path: calls.append(("file", target.exists())))
    monkeypatch.setattr("app.store.files.sync_folder", lambda folder: calls.append(("folder", target.exists())))
    target = tmp_path / "weights.pt"
    with replacing(target) as temporary:
        temporary.write_bytes(b"1")
    assert calls == [("file", False), ("folder", True)]
