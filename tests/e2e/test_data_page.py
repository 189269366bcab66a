"""The Data page in a browser: thousands of images, filters, classes, a quarantined image, the report."""

import json

import cv2
import numpy as np
import pytest

from app.records import Annotation, NewImage
from app.services import projects
from app.services.context import Services
from app.store import annotations, categories, images, reports
from app.store.files import Workspace

WIDGET = "anchorage-gallery"
NAME = "<img src=x onerror=alert(1)> ${1+1}"
NUM_IMAGES = 3000


@pytest.fixture(scope="module")
def services(app_server):
    return Services(Workspace(app_server.workspace))


def store_picture(services, slug, pixels, sha256):
    path = services.files(slug).image(sha256, "png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


@pytest.fixture(scope="module")
def large(services):
    """Three thousand images of one picture; image n has n % 4 boxes of the second class, every tenth is in valid."""
    slug = projects.create_project(services, "large")
    store_picture(services, slug, np.full((60, 80, 3), 120, np.uint8), "a" * 64)
    with services.database(slug).write() as db:
        categories.insert(db, "cell")
        category = categories.insert(db, NAME)
        boxes = []
        for n in range(NUM_IMAGES):
            name, split = f"image-{n:04d}.png", "train" if n % 10 else "valid"
            image_id = images.insert(db, NewImage(name, "a" * 64, "png", 80, 60, split, name, n))
            boxes += [Annotation(0, image_id, category.id, (4, 10, 24 + k, 40)) for k in range(n % 4)]
        annotations.insert_many(db, boxes)
    return slug


@pytest.fixture
def small(services):
    """One plain image and one that is quarantined, with a report."""
    slug = projects.create_project(services, "small")
    store_picture(services, slug, np.full((60, 80, 3), 120, np.uint8), "a" * 64)
    with services.database(slug).write() as db:
        category = categories.insert(db, "cell")
        images.insert(db, NewImage("plain.png", "a" * 64, "png", 80, 60, "train", "plain", 0))
        problem = "Width and height are swapped"
        image_id = images.insert(db, NewImage("turned.png", "a" * 64, "png", 80, 60, "train", "t", 1, problem=problem))
        annotations.insert_many(db, [Annotation(0, image_id, category.id, (10, 50, 30, 75))])
        example = {"where": NAME, "message": "listed, but not there", "count": 1}
        finding = {"kind": "missing", "code": "image", "split": "train", "count": 7, "examples": [example]}
        per_split = {"train": {"images": 2, "annotations": 1, "empty": 1, "quarantined": 1, "classes": {"cell": 1}}}
        report = {"images": 2, "annotations": 1, "missing": 7, "findings": [finding], "per_split": per_split}
        reports.insert(db, "export.zip", report)
    return slug


def open_page(page, slug, query=""):
    page.goto(f"/data?project={slug}{query}")
    return page.wait_for_selector(f"{WIDGET}[data-ready='true']", timeout=60_000)


def wait_for_total(page, total):
    page.wait_for_selector(f"{WIDGET}[data-total='{total}']")


def test_thousands_of_images_scroll_with_few_cards(page, large):
    open_page(page, large)
    wait_for_total(page, NUM_IMAGES)
    page.wait_for_selector("article[data-image] img[src^='/thumb/']")
    page.evaluate("document.querySelector('.scroller').scrollTop = 1e9")
    last = page.wait_for_selector("article:has-text('image-2999.png')")
    assert last.is_visible()
    assert page.locator(".thumb-card").count() < 60


def test_filters_narrow_the_images_and_stay_in_the_address(page, large):
    open_page(page, large)
    page.click("button[data-split='valid']")
    wait_for_total(page, 300)
    page.fill("input[data-filter='min_boxes']", "2")
    page.keyboard.press("Enter")
    wait_for_total(page, 150)
    page.fill("input[type='search']", "IMAGE-00")
    wait_for_total(page, 5)
    page.reload()
    wait_for_total(page, 5)
    page.click("text=Clear filters")
    wait_for_total(page, NUM_IMAGES)
    page.select_option("select[aria-label='Class']", label=NAME)
    wait_for_total(page, 2250)
    page.fill("input[type='search']", "no such name")
    page.wait_for_selector("text=No image passes these filters")


def test_the_browser_s_back_returns_to_the_former_view_and_its_filters(page, large):
    open_page(page, large)
    page.click("button[data-split='valid']")
    wait_for_total(page, 300)
    page.evaluate("window.isSamePage = true")
    for view in ("figures", "report", "images"):
        page.click(f"[role=tab][data-view={view}]")
        page.wait_for_selector(f"{WIDGET}[data-view={view}]")
    page.fill("input[type='search']", "image-00")
    wait_for_total(page, 10)
    page.go_back()
    page.wait_for_selector(f"{WIDGET}[data-view=report] .panel.reports:not([hidden])")
    page.go_back()
    page.wait_for_selector(f"{WIDGET}[data-view=figures] [data-category]")
    page.go_back()
    page.wait_for_selector(f"{WIDGET}[data-view=images]")
    wait_for_total(page, 300)
    assert page.input_value("input[type='search']") == ""
    assert page.get_attribute("button[data-split='valid']", "aria-pressed") == "true"
    assert page.evaluate("window.isSamePage")


def test_card_opens_the_editor_with_the_same_filters(page, large):
    open_page(page, large, "&split=valid")
    wait_for_total(page, 300)
    page.click("article:has-text('image-0010.png') a.thumb")
    page.wait_for_url(lambda url: "/annotate" in url and "split=valid" in url and "image=" in url)


def test_boxes_are_drawn_in_the_color_of_their_class(page, large):
    open_page(page, large)
    page.wait_for_selector("article[data-boxes='3'] img[src^='/thumb/']")
    color = page.evaluate(
        """() => {
            const canvas = document.querySelector("article[data-boxes='3'] canvas");
            const scale = canvas.width / 80;
            const [red, green, blue] = canvas.getContext("2d").getImageData(Math.round(4 * scale), Math.round(25 * scale), 1, 1).data;
            return [red, green, blue];
        }"""  # noqa: E501
    )
    assert np.abs(np.array(color) - (0xE6, 0x9F, 0x00)).max() < 60


def test_class_is_renamed_in_place_and_shown_as_text(page, api, large):
    open_page(page, large, "&view=figures")
    field = page.locator("tr[data-category='1'] .name-field")
    field.fill("lymphocyte")
    field.press("Enter")
    page.wait_for_selector("input[aria-label='Name of class lymphocyte']")
    listed = api.get(f"/api/projects/{large}/categories").json()["categories"]
    assert [category["name"] for category in listed] == ["lymphocyte", NAME]
    assert page.locator("tr[data-category='2'] .name-field").input_value() == NAME
    taken = page.locator("tr[data-category='1'] .name-field")
    taken.fill(NAME)
    taken.press("Enter")
    page.wait_for_selector(".a-notice.error")
    assert taken.input_value() == "lymphocyte"
    assert page.locator(".chart").count() == 4


def test_class_is_added(page, api, small):
    open_page(page, small, "&view=figures")
    page.fill(".add-class input", "nucleus")
    page.keyboard.press("Enter")
    page.wait_for_selector("input[aria-label='Name of class nucleus']")
    assert len(api.get(f"/api/projects/{small}/categories").json()["categories"]) == 2


def test_quarantined_image_is_released_by_choosing_its_rotation(page, api, small):
    open_page(page, small, "&problem=true")
    wait_for_total(page, 1)
    page.click("article .decide")
    assert page.locator("button.rotation:enabled").count() == 2
    page.click("button[data-rotation='90']")
    page.wait_for_selector(".a-notice.done")
    (image,) = api.get(f"/api/projects/{small}/images?name=turned").json()["images"]
    assert (image["rotation"], image["width"], image["height"], image["problem"]) == (90, 60, 80, "")


def test_image_moves_to_another_split(page, api, small):
    open_page(page, small)
    page.select_option("article:has-text('plain.png') select", "valid")
    page.wait_for_selector("button[data-split='valid']:enabled")
    (image,) = api.get(f"/api/projects/{small}/images?name=plain").json()["images"]
    assert image["split"] == "valid"


def test_report_tells_what_was_found_as_text(page, small):
    open_page(page, small, "&view=report")
    finding = page.wait_for_selector("details[data-code='image']")
    finding.click()
    assert NAME in finding.inner_text()
    assert "Listed images that are not in the export in train × 7" in finding.inner_text()
    assert "export.zip" in page.inner_text(".report summary")


def test_empty_project_says_what_to_do(page, services):
    slug = projects.create_project(services, "nothing")
    open_page(page, slug)
    page.wait_for_selector("text=This project has no images yet")
    page.click("button:has-text('Import a dataset')")
    page.wait_for_selector("dialog.import-dialog")


@pytest.mark.parametrize("view", ["images", "figures", "report"])
def test_nothing_is_cut_off(page, small, view):
    open_page(page, small, f"&view={view}")
    sizes = page.evaluate(
        "() => { const root = document.scrollingElement;"
        " return [root.scrollWidth, innerWidth, root.scrollHeight, innerHeight]; }"
    )
    assert sizes[0] <= sizes[1], json.dumps(sizes)
    assert sizes[2] <= sizes[3] + 1, json.dumps(sizes)


def test_window_on_gray_values_is_asked_for_shown_and_kept(page, api, services):
    slug = projects.create_project(services, "deep")
    pixels = np.repeat(np.linspace(1000, 1400, 80, dtype=np.uint16)[None], 60, axis=0)
    store_picture(services, slug, pixels, "d" * 64)
    with services.database(slug).write() as db:
        new = NewImage("deep.png", "d" * 64, "png", 80, 60, "train", "deep", 0, needs_rendering=True)
        image_id = images.insert(db, new)

    def brightest():
        content = api.get(f"/thumb/{slug}/{image_id}").content
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE).max()

    page.goto(f"/data?project={slug}")
    page.wait_for_selector(f"{WIDGET}[data-ready=true] .gray-window")
    assert brightest() < 10
    page.click(f"{WIDGET} .gray-window")
    page.click(".window-dialog >> text=Fit to the pictures")
    page.click(".window-dialog >> text=Apply")
    page.wait_for_selector(f"{WIDGET}[data-ready=true] .gray-window:has-text('Gray values 10')")
    assert brightest() > 240
    page.click(f"{WIDGET} .gray-window")
    page.click(".window-dialog >> text=Whole range")
    page.wait_for_selector(f"{WIDGET}[data-ready=true] .gray-window:has-text('Gray values …')")
    assert brightest() < 10
