"""The Augment page in a browser: a chain is built, seen at once, kept, and its lost boxes counted."""

import cv2
import numpy as np
import pytest

from app.records import Annotation, NewImage
from app.services import augmenting, projects
from app.services.context import Services
from app.store import annotations, categories, images
from app.store.files import Workspace

WIDGET = "anchorage-augment"
IDLE = f"{WIDGET}[data-ready='1'][data-busy='0']"
NAME = "<b>cell</b> ${1+1}"


@pytest.fixture(scope="module")
def services(app_server):
    return Services(Workspace(app_server.workspace))


@pytest.fixture
def slug(services):
    """A project of two images, 80 x 60 px, with a box on the left of each."""
    slug = projects.create_project(services, "augment")
    with services.database(slug).write() as db:
        category = categories.insert(db, NAME)
        for number in range(2):
            content = cv2.imencode(".png", np.full((60, 80, 3), 90 + 60 * number, np.uint8))[1].tobytes()
            sha256 = f"{number:064x}"
            path = services.files(slug).image(sha256, "png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            name = f"{number}.png"
            image_id = images.insert(db, NewImage(name, sha256, "png", 80, 60, "train", name, number))
            annotations.insert_many(db, [Annotation(0, image_id, category.id, (4, 10, 24, 40))])
    augmenting.save(services, slug, [])
    return slug


def open_page(page, slug):
    page.goto(f"/augment?project={slug}")
    page.wait_for_selector(f"{IDLE}[data-serial]", timeout=90_000)  # the helper may still be loading torch


def stored(api, slug):
    return api.get(f"/api/projects/{slug}/augmentation").json()["steps"]


def set_slider(page, step, name, value):
    slider = page.locator(f"{WIDGET} .step[data-name={step}] input[name={name}]")
    slider.evaluate("(e, value) => { e.value = value; e.dispatchEvent(new Event('input', {bubbles: true})); }", value)


def wait_saved(page, num_steps):
    page.wait_for_selector(f"{IDLE}[data-steps='{num_steps}'][data-saved='1']")


def test_chain_is_built_shown_and_kept(page, api, slug):
    open_page(page, slug)
    assert page.locator(f"{WIDGET} figure").count() == 6
    assert page.locator(f"{WIDGET} .legend .a-chip").inner_text() == NAME
    page.select_option(f"{WIDGET} .adder", "HorizontalFlip")
    page.select_option(f"{WIDGET} .adder", "Rotate")
    set_slider(page, "Rotate", "limit", 7)
    set_slider(page, "Rotate", "probability", 0.25)
    page.click(f"{WIDGET} [aria-label='Rotate: earlier']")
    page.locator(f"{WIDGET} .step[data-name=HorizontalFlip] input[type=checkbox]").uncheck()
    wait_saved(page, 2)
    assert stored(api, slug) == [
        {"name": "Rotate", "probability": 0.25, "strength": {"limit": 7.0}, "is_enabled": True},
        {"name": "HorizontalFlip", "probability": 0.5, "strength": {}, "is_enabled": False},
    ]
    page.reload()
    page.wait_for_selector(f"{IDLE}[data-steps='2']")
    page.click(f"{WIDGET} [aria-label='Rotate: remove']")
    wait_saved(page, 1)
    page.click(f"{WIDGET} >> text=Undo")
    wait_saved(page, 2)
    assert [step["name"] for step in stored(api, slug)] == ["Rotate", "HorizontalFlip"]


def test_steps_are_reordered_by_dragging(page, api, slug):
    open_page(page, slug)
    page.select_option(f"{WIDGET} select[aria-label=Preset]", "backbones")
    wait_saved(page, 6)
    cards = page.locator(f"{WIDGET} .step")
    cards.nth(3).locator(".handle").drag_to(cards.nth(0), target_position={"x": 30, "y": 4})
    page.wait_for_selector(f"{WIDGET}[data-saved='0'], {WIDGET} .step:first-child[data-name=RandomBrightnessContrast]")
    wait_saved(page, 6)
    assert [step["name"] for step in stored(api, slug)][:3] == [
        "RandomBrightnessContrast",
        "HorizontalFlip",
        "VerticalFlip",
    ]
    assert page.locator(f"{WIDGET} select[aria-label=Preset]").input_value() == ""


def test_moving_slider_asks_one_at_a_time_and_shows_the_newest(page, slug):
    open_page(page, slug)
    page.select_option(f"{WIDGET} .adder", "RandomBrightnessContrast")
    wait_saved(page, 1)
    bodies, answered, most = [], [], []

    def note(request):
        if request.url.endswith("/preview"):
            bodies.append(request.post_data_json)
            most.append(len(bodies) - len(answered))

    page.on("request", note)
    page.on("requestfinished", lambda request: answered.append(1) if request.url.endswith("/preview") else None)
    for value in range(1, 17):
        set_slider(page, "RandomBrightnessContrast", "brightness", value / 20)
    wait_saved(page, 1)
    assert bodies[-1]["steps"][0]["strength"]["brightness"] == 0.8
    assert len(bodies) < 16
    assert max(most) == 1


def test_lost_boxes_are_counted_and_images_and_seeds_change(page, slug):
    open_page(page, slug)
    assert "No box lost" in page.inner_text(f"{WIDGET} .total")
    page.select_option(f"{WIDGET} .adder", "Rotate")
    set_slider(page, "Rotate", "probability", 1)
    set_slider(page, "Rotate", "limit", 180)
    for _ in range(2):
        page.select_option(f"{WIDGET} .adder", "XYMasking")
    for number in range(2):
        for name, value in (("probability", 1), ("masks", 8), ("size", 0.4)):
            slider = page.locator(f"{WIDGET} .step[data-name=XYMasking] input[name={name}]").nth(number)
            slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }", value)
    wait_saved(page, 3)
    lost = int(page.get_attribute(WIDGET, "data-lost"))
    assert lost > 0
    assert f"{lost} of 5 boxes lost" in page.inner_text(f"{WIDGET} .total")
    assert page.locator(f"{WIDGET} figcaption >> text=1 lost").count() == lost
    first = page.get_attribute(WIDGET, "data-image")
    page.click(f"{WIDGET} [aria-label='Next image']")
    page.wait_for_selector(f"{IDLE}:not([data-image='{first}'])")
    assert f"image={page.get_attribute(WIDGET, 'data-image')}" in page.url
    serial = int(page.get_attribute(WIDGET, "data-serial"))
    page.click(f"{WIDGET} .reseed")
    page.wait_for_selector(f"{IDLE}[data-serial='{serial + 1}']")
    assert page.input_value(f"{WIDGET} .seed") != "42"


def test_other_images_are_mixed_in_and_strong_steps_fade_over_the_run(page, api, slug):
    open_page(page, slug)
    assert page.locator(f"{WIDGET} .curve").is_hidden()  # nothing strong in the chain
    page.select_option(f"{WIDGET} .adder", "CopyPaste")
    set_slider(page, "CopyPaste", "probability", 1)
    wait_saved(page, 1)
    assert (
        page.locator(f"{WIDGET} canvas[aria-label*=': 2 boxes'], {WIDGET} canvas[aria-label*=': 1 boxes']").count() == 6
    )
    assert float(page.get_attribute(WIDGET, "data-pace")) > 0
    assert "images/s per core" in page.inner_text(f"{WIDGET} .pace")
    page.fill(f"{WIDGET} .curve input[type=number]", "8")
    page.select_option(f"{WIDGET} .curve select", "linear")
    page.wait_for_selector(f"{WIDGET} .curve[data-shares$='0.000 0.000']")
    curve = api.get(f"/api/projects/{slug}/augmentation/curve").json()
    assert (curve["curve"], curve["off_epochs"]) == ("linear", 8)
    page.check(f"{WIDGET} .curve input[type=checkbox]")
    page.wait_for_selector(f"{WIDGET} figcaption >> text='Epoch {curve['epochs']}'")
    assert page.locator(f"{WIDGET} canvas[aria-label*=': 1 boxes']").count() == 6  # strong steps are off by then


def test_project_without_images_says_what_to_do(page, services):
    slug = projects.create_project(services, "nothing here")
    page.goto(f"/augment?project={slug}")
    page.wait_for_selector(f"{WIDGET}[data-ready='1'] .a-empty")
    assert page.get_attribute(f"{WIDGET} .a-empty a", "href") == f"/data?project={slug}"
