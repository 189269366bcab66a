"""The widgets' files: served flat, revalidated by content, nothing else of the disk."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api import failures, widgets


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "widgets"
    folder.mkdir()
    (folder / "editor.js").write_text("export {};")
    (folder / "theme.css").write_text("a {}")
    (folder / "page.py").write_text("secret = 1")
    (folder / ".hidden.js").write_text("secret")
    (tmp_path / "outside.js").write_text("secret")
    return folder


@pytest.fixture
def client(folder) -> TestClient:
    app = FastAPI()
    failures.install(app)
    app.include_router(widgets.build_router(folder))
    return TestClient(app)


@pytest.mark.parametrize(("name", "kind"), [("editor.js", "text/javascript"), ("theme.css", "text/css")])
def test_file_is_served_as_what_it_is(client, name, kind):
    response = client.get(f"/widgets/{name}")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(kind)


def test_known_content_is_not_sent_again_until_it_changes(client, folder):
    etag = client.get("/widgets/editor.js").headers["etag"]
    known = {"If-None-Match": etag}
    assert client.get("/widgets/editor.js", headers=known).status_code == 304
    (folder / "editor.js").write_text("export const changed = 1;")
    assert client.get("/widgets/editor.js", headers=known).status_code == 200


def test_only_the_right_version_is_kept_for_ever(client, folder):
    version = widgets.widgets_version(folder)
    kept = client.get(f"/widgets/{version}/editor.js")
    assert "immutable" in kept.headers["cache-control"] and "max-age=31536000" in kept.headers["cache-control"]
    for path in ("/widgets/editor.js", "/widgets/0123456789abcdef/editor.js"):
        response = client.get(path)
        assert (response.status_code, response.headers["cache-control"]) == (200, "no-cache")
    (folder / "editor.js").write_text("export const changed = 1;")
    changed = client.get(f"/widgets/{version}/editor.js")
    assert (changed.text, changed.headers["cache-control"]) == ("export const changed = 1;", "no-cache")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "theme.css").write_text("b {}"),
        lambda folder: (folder / "new.js").write_text(""),
        lambda folder: (folder / "theme.css").rename(folder / "other.css"),
    ],
    ids=["a change", "another file", "another name"],
)
def test_whatever_changes_gives_another_version(folder, change):
    before = widgets.widgets_version(folder)
    (folder / "page.py").write_text("nothing = 2")  # is not served
    assert widgets.widgets_version(folder) == before
    change(folder)
    assert widgets.widgets_version(folder) != before


@pytest.mark.parametrize(
    "name", ["page.py", ".hidden.js", "missing.js", "..%2Foutside.js", "%2e%2e/outside.js", "..%5Coutside.js", "", "."]
)
def test_anything_else_is_not_found(client, name):
    assert client.get(f"/widgets/{name}").status_code == 404
    assert client.get(f"/widgets/0123456789abcdef/{name}").status_code == 404
