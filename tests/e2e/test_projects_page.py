"""The Projects page in a browser: what a newcomer clicks, imports and their errors, deleting."""

import pytest
from playwright.sync_api import expect

from tests.services.export_maker import CATEGORIES, Export

NAME = "<b>Pets</b> ${1+1}"


@pytest.fixture
def export():
    return Export().add("train", "a.jpg", [(1, [1, 2, 30, 20])]).add("valid", "b.jpg", [(2, [0, 0, 9, 9])])


def open_page(page):
    page.goto("/")
    page.wait_for_selector("anchorage-projects[data-ready]")


def import_path(page, path, name):
    page.click("[data-action=import]:visible")
    page.fill("input[name=path]", str(path))
    page.fill("input[name=name]", name)
    page.click("[data-action=look]")


def card(page, name):
    return page.locator("article.project", has=page.locator("h2", has_text=name))


def test_import_with_a_mistake_first_then_delete(page, export, tmp_path):
    open_page(page)
    import_path(page, tmp_path / "nowhere", NAME)
    expect(page.locator(".import-dialog .a-error")).to_contain_text("There is nothing at")
    page.fill("input[name=path]", str(export.folder(tmp_path / "e")))
    page.click("[data-action=look]")
    expect(page.locator(".import-dialog .facts")).to_contain_text("2 images, 2 boxes")
    page.click("[data-action=start]")
    expect(page.locator(".import-dialog[data-step=done] .facts")).to_contain_text("2 images, 2 boxes", timeout=60_000)
    expect(page.locator(".import-dialog .facts")).to_contain_text("Mended: placeholder class dropped × 1")
    page.get_by_role("button", name="Close").click()
    expect(card(page, NAME).locator(".counts")).to_contain_text("2 images")
    expect(card(page, NAME).locator("img")).to_have_count(2)

    card(page, NAME).locator("summary").click()
    card(page, NAME).get_by_role("button", name="Rename").click()
    page.get_by_label("Name", exact=True).fill("Renamed")
    page.locator("dialog .primary").click()
    expect(card(page, "Renamed")).to_be_visible()

    card(page, "Renamed").locator("summary").click()
    card(page, "Renamed").get_by_role("button", name="Delete").click()
    page.locator("dialog .danger").click()
    expect(card(page, "Renamed")).to_have_count(0)


def test_new_empty_project_is_opened(page):
    open_page(page)
    page.get_by_role("button", name="empty project").locator("visible=true").click()
    page.get_by_label("Name", exact=True).fill("From scratch")
    page.locator("dialog .primary").click()
    page.wait_for_url("**/data?project=from-scratch")


def test_upload_and_merge_of_classes_of_one_name(page, tmp_path):
    open_page(page)
    export = Export([*CATEGORIES, {"id": 3, "name": "cat"}])
    export.add("train", "a.jpg", [(1, [1, 2, 30, 20]), (3, [40, 2, 9, 9])]).add("valid", "b.jpg", [(2, [0, 0, 9, 9])])
    page.click("[data-action=import]:visible")
    page.click("[data-source=upload]")
    page.set_input_files("input[name=file]", export.zip(tmp_path / "my_cats.zip"))
    page.click("[data-action=look]")
    expect(page.locator(".import-dialog .a-error")).to_contain_text("Two classes are named 'cat'")
    page.check("input[name=merge]")
    page.click("[data-action=look]")
    expect(page.locator(".import-dialog .classes tbody tr")).to_have_count(2)
    page.click("[data-action=start]")
    page.wait_for_selector(".import-dialog[data-step=done]", timeout=60_000)
    page.click("[data-action=open]")
    page.wait_for_url("**/data?project=my-cats")
