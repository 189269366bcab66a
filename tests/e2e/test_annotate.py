"""Labelling in a real browser: what is drawn is what the database holds, whatever goes wrong on the way."""

import itertools
import time

import pytest
from PIL import Image as Picture

from app.records import Annotation, NewImage
from app.services import annotate, projects
from app.services.annotate import BoxEdit
from app.services.context import Services
from app.store import annotations, categories, images
from app.store.files import Workspace

WIDTH, HEIGHT = 400, 300
CLASSES = ("red", "green", "blue")
EDITOR = "anchorage-editor"
POLYGON = [[40.0, 40.0, 80.0, 40.0, 80.0, 90.0]]


class Lab:
    """A project made straight in the store, and the editor open on it."""

    def __init__(self, page, workspace) -> None:
        self.page = page
        self.services = Services(Workspace(workspace))
        self.slug = projects.create_project(self.services, "Labelling")
        with self.services.database(self.slug).write() as db:
            for name in CLASSES:
                categories.insert(db, name)
        for number in range(1, 5):
            self.add_image(number)

    def add_image(self, number: int, problem: str = "") -> int:
        sha256 = f"{number:064x}"
        path = self.services.files(self.slug).image(sha256, "png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Picture.new("RGB", (WIDTH, HEIGHT), (40 * number % 256, 90, 120)).save(path)
        split = "valid" if number == 4 else "train"
        with self.services.database(self.slug).write() as db:
            image = NewImage(f"{number}.png", sha256, "png", WIDTH, HEIGHT, split, str(number), number, problem=problem)
            return images.insert(db, image)

    def add_box(self, bbox, category_id=1, image_id=1, **more) -> None:
        with self.services.database(self.slug).write() as db:
            annotations.insert_many(db, [Annotation(0, image_id, category_id, bbox, **more)])

    def open(self, query: str = "") -> None:
        self.page.goto(f"/annotate?project={self.slug}{query}")
        self.wait("ready", "true")

    def wait(self, name: str, value) -> None:
        """Wait until a data-* attribute of the editor has this value."""
        try:
            self.page.wait_for_selector(f'{EDITOR}[data-{name}="{value}"]')
        except Exception as error:
            state = self.page.evaluate(f"JSON.stringify({{...document.querySelector('{EDITOR}')?.dataset}})")
            raise AssertionError(f"data-{name} did not become {value!r}: {state}") from error

    def data(self, name: str) -> str:
        return self.page.get_attribute(EDITOR, f"data-{name}")

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Page coordinates of an image point."""
        frame = self.page.locator(f"{EDITOR} .a-canvas").bounding_box()
        scale, left, top = (float(self.data(name)) for name in ("scale", "x", "y"))
        return frame["x"] + left + x * scale, frame["y"] + top + y * scale

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        mouse = self.page.mouse
        mouse.move(*self.at(*start))
        mouse.down()
        mouse.move(*self.at((start[0] + end[0]) / 2, (start[1] + end[1]) / 2))
        mouse.move(*self.at(*end))
        mouse.up()

    def draw(self, x1: float, y1: float, x2: float, y2: float) -> None:
        self.drag((x1, y1), (x2, y2))

    def click(self, x: float, y: float) -> None:
        self.page.mouse.click(*self.at(x, y))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def saved(self, count: int) -> None:
        """Wait until this image has ``count`` boxes and the server has them."""
        self.wait("count", count)
        self.wait("dirty", "false")

    def stored(self, image_id: int = 1) -> list[Annotation]:
        return annotate.load(self.services, self.slug, image_id).annotations

    def boxes(self, image_id: int = 1) -> list[tuple[float, ...]]:
        return [item.bbox for item in self.stored(image_id)]

    def save_elsewhere(self, *edits: BoxEdit, image_id: int = 1) -> None:
        revision = annotate.load(self.services, self.slug, image_id).image.revision
        annotate.save(self.services, self.slug, image_id, revision, edits)


@pytest.fixture
def lab(page, app_server) -> Lab:
    return Lab(page, app_server.workspace)


def near(bbox, tolerance: float = 0.011):
    return pytest.approx(bbox, abs=tolerance)


def eventually(check) -> None:
    """Wait for something that happens in the server after the page is gone."""
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline, "it did not happen within 10 s"
        time.sleep(0.02)


def test_a_drawn_box_is_stored_to_the_pixel(lab):
    lab.open()
    lab.draw(10.25, 20.5, 110.75, 90.25)
    lab.saved(1)
    assert lab.boxes() == [near((10.25, 20.5, 110.75, 90.25))]
    assert lab.stored()[0].category_id == 1


def test_a_box_drawn_beyond_the_picture_ends_at_its_edge(lab):
    lab.open()
    lab.draw(350, 250, 405, 303)
    lab.saved(1)
    assert lab.boxes() == [near((350, 250, 400, 300))]


def test_boxes_are_exact_after_zooming_and_panning(lab):
    lab.open()
    lab.page.mouse.move(*lab.at(200, 150))
    before = lab.at(200, 150)
    scale = float(lab.data("scale"))
    lab.page.mouse.wheel(0, -240)
    lab.page.wait_for_function(f"Number(document.querySelector('{EDITOR}').dataset.scale) > {scale * 1.2}")
    assert lab.at(200, 150) == pytest.approx(before, abs=0.01)  # the point under the pointer stays
    moved = lab.data("x")
    lab.page.keyboard.down("Space")
    lab.drag((200, 150), (190, 140))
    lab.page.keyboard.up("Space")
    assert lab.data("x") != moved
    lab.draw(150.5, 120.25, 230.75, 180.5)
    lab.saved(1)
    assert lab.boxes() == [near((150.5, 120.25, 230.75, 180.5))]


def test_a_box_is_moved_resized_deleted_and_brought_back(lab):
    lab.add_box((50, 50, 150, 120))
    lab.open()
    lab.click(100, 85)
    lab.drag((100, 85), (120.5, 95.25))
    lab.saved(1)
    assert lab.boxes() == [near((70.5, 60.25, 170.5, 130.25))]
    lab.drag((170.5, 130.25), (200, 200))  # the south-east handle
    lab.wait("dirty", "false")
    assert lab.boxes() == [near((70.5, 60.25, 200, 200))]
    lab.drag((70.5, 130.125), (40, 130))  # the west handle leaves the other edges alone
    lab.wait("dirty", "false")
    assert lab.boxes() == [near((40, 60.25, 200, 200))]
    lab.press("Delete")
    lab.saved(0)
    assert lab.boxes() == []
    lab.press("Control+z")
    lab.saved(1)
    assert lab.boxes() == [near((40, 60.25, 200, 200))]
    lab.press("Control+z", "Control+z", "Control+z")
    lab.wait("dirty", "false")
    assert lab.boxes() == [(50, 50, 150, 120)]
    lab.press("Control+Shift+z", "Control+y")
    lab.wait("dirty", "false")
    assert lab.boxes() == [near((70.5, 60.25, 200, 200))]


def test_undoing_a_deletion_brings_the_outline_and_the_ids_back(lab):
    lab.add_box((40, 40, 80, 90), segmentation=POLYGON, coco_id=901, is_crowd=True)
    lab.open()
    lab.click(60, 60)
    lab.press("Delete")
    lab.saved(0)
    lab.press("Control+z")
    lab.saved(1)
    (box,) = lab.stored()
    assert (box.segmentation, box.coco_id, box.is_crowd) == (POLYGON, 901, True)
    lab.click(60, 60)
    lab.press("Shift+ArrowRight")
    lab.wait("dirty", "false")
    assert lab.stored()[0].segmentation is None  # an outline that no longer fits its box
    lab.press("Control+z")
    lab.wait("dirty", "false")
    assert lab.stored()[0].segmentation == POLYGON


def test_number_keys_choose_the_class_of_the_next_box(lab):
    lab.open()
    lab.press("2")
    lab.draw(10, 10, 60, 60)
    lab.press("Escape", "3")
    lab.draw(100, 10, 160, 60)
    lab.saved(2)
    assert [item.category_id for item in lab.stored()] == [2, 3]


def test_a_box_just_drawn_is_selected_so_keys_and_drags_go_to_it(lab):
    lab.open()
    lab.draw(100, 100, 200, 200)
    lab.wait("count", 1)
    lab.press("2")
    lab.drag((150, 150), (160, 155))
    lab.draw(250, 100, 300, 150)  # begun outside of it: another box
    lab.saved(2)
    assert [item.category_id for item in lab.stored()] == [2, 2]
    assert lab.boxes() == [near((110, 105, 210, 205)), near((250, 100, 300, 150))]
    lab.press("Escape")
    lab.draw(130, 130, 160, 160)  # with nothing selected a drag inside a box draws
    lab.saved(3)
    assert lab.boxes()[2] == near((130, 130, 160, 160))


HAS_DRAWING = """() => {
  const canvas = document.querySelectorAll('anchorage-editor .a-canvas canvas')[1];
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  return data.some((value, index) => index % 4 === 3 && value > 0);
}"""


def test_number_keys_relabel_only_a_selected_box(lab):
    lab.add_box((50, 50, 150, 120))
    lab.add_box((200, 50, 250, 120))
    lab.open()
    lab.press("2")
    assert lab.data("class") == "2"
    lab.click(100, 85)
    lab.press("3")
    lab.wait("dirty", "false")
    assert [item.category_id for item in lab.stored()] == [3, 1]


def test_a_box_can_be_drawn_inside_another_and_clicked_through(lab):
    lab.add_box((50, 50, 350, 250))
    lab.open()
    lab.draw(100, 100, 160, 160)
    lab.saved(2)
    assert lab.boxes() == [(50, 50, 350, 250), near((100, 100, 160, 160))]
    lab.click(130, 130)
    inner = lab.data("selected")
    lab.click(130, 130)
    assert lab.data("selected") not in ("", inner)


def test_going_on_at_once_loses_nothing(lab):
    lab.open()
    for number in (1, 2, 3, 4):
        lab.wait("position", number)
        lab.wait("ready", "true")
        lab.draw(10 * number, 10, 10 * number + 50, 60)
        lab.press("ArrowRight")
    lab.wait("dirty", "false")
    for number in (1, 2, 3, 4):
        assert lab.boxes(number) == [near((10 * number, 10, 10 * number + 50, 60))]


def test_arrow_presses_are_queued_and_boxes_stay_with_their_image(lab):
    lab.open()
    lab.press("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft")
    lab.wait("position", 3)
    lab.wait("ready", "true")
    lab.draw(10, 10, 60, 60)
    lab.saved(1)
    assert [len(lab.boxes(number)) for number in (1, 2, 3, 4)] == [0, 0, 1, 0]
    assert "image=3" in lab.page.url


def test_the_next_picture_is_there_before_it_is_asked_for(lab):
    lab.open()
    lab.page.wait_for_function(
        "slug => [2, 3].every(id => performance.getEntriesByType('resource')"
        ".some(entry => entry.name.includes(`/img/${slug}/${id}?`) && entry.responseEnd))",
        arg=lab.slug,
    )
    asked = []
    lab.page.on("request", lambda request: asked.append(request.url) if f"/img/{lab.slug}/2?" in request.url else None)
    lab.press("ArrowRight")
    lab.wait("image", 2)
    lab.wait("ready", "true")
    assert asked == []


def test_filters_hold_for_next_and_jump(lab):
    lab.add_box((10, 10, 50, 50), category_id=3, image_id=2)
    lab.add_box((10, 10, 50, 50), category_id=3, image_id=4)
    lab.open()
    lab.page.get_by_label("Show images with this class").select_option("3")
    lab.wait("image", 2)
    assert (lab.data("position"), lab.data("total")) == ("1", "2")
    lab.press("ArrowRight")
    lab.wait("image", 4)
    number = lab.page.get_by_label("Number of the image")
    number.fill("1")
    number.press("Enter")
    lab.wait("image", 2)
    assert "category=3" in lab.page.url


def test_a_failed_save_stays_dirty_and_is_tried_again(lab):
    lab.open()
    lab.page.route("**/annotations", lambda route: route.fulfill(status=500, json={"error": "broken", "hint": ""}))
    lab.draw(10, 10, 60, 60)
    lab.wait("status", "failed")
    assert lab.data("dirty") == "true"
    assert "Not saved" in lab.page.inner_text(f"{EDITOR} .status")
    assert lab.boxes() == []
    lab.page.unroute("**/annotations")
    lab.saved(1)
    assert len(lab.boxes()) == 1


def test_a_save_whose_answer_got_lost_is_no_conflict(lab):
    lab.open()
    fates = itertools.chain(["lost"], itertools.repeat("fine"))

    def lose_first(route):
        if next(fates) == "lost":
            route.fetch()
            route.abort()
        else:
            route.continue_()

    lab.page.route("**/annotations", lose_first)
    lab.draw(10, 10, 60, 60)
    lab.saved(1)
    assert len(lab.boxes()) == 1
    assert lab.page.locator("dialog[open]").count() == 0


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        ("mine", [(10, 10, 60, 60)]),
        ("theirs", [(200, 200, 250, 250)]),
        ("merge", [(10, 10, 60, 60), (200, 200, 250, 250)]),
    ],
)
def test_a_stale_save_offers_the_choice(lab, choice, kept):
    lab.open()
    lab.save_elsewhere(BoxEdit(None, 2, (200, 200, 250, 250)))
    lab.draw(10, 10, 60, 60)
    lab.wait("status", "conflict")
    assert lab.boxes() == [(200, 200, 250, 250)]
    lab.page.click(f"[data-choice={choice}]")
    lab.saved(len(kept))
    assert sorted(lab.boxes()) == [near(box) for box in kept]
    lab.press("Control+z")  # whatever was chosen, the other boxes are one undo away
    lab.wait("dirty", "false")
    if choice == "theirs":
        assert lab.boxes() == [near((10, 10, 60, 60))]


def test_merging_keeps_both_changes_of_one_box(lab):
    lab.add_box((50, 50, 150, 120))
    lab.add_box((200, 200, 250, 250), category_id=2)
    lab.open()
    first, second = lab.stored()
    lab.save_elsewhere(BoxEdit(first.id, 1, (50, 50, 160, 130)))  # changes the first, deletes the second
    lab.click(100, 85)
    lab.press("Shift+ArrowRight")
    lab.page.click("[data-choice=merge]")
    lab.saved(2)
    assert sorted(lab.boxes()) == [(50, 50, 160, 130), (51, 50, 151, 120)]


# A save sent while a page goes away passes by `page.route`: this breaks saves inside the page itself.
BREAK_SAVES = """
  const send = window.fetch;
  window.fetch = (url, init) => init?.method === "PUT" && sessionStorage.getItem("broken")
    ? Promise.reject(new TypeError("broken")) : send(url, init);
"""


def break_saves(lab, is_broken: bool = True) -> None:
    lab.page.evaluate("on => sessionStorage.setItem('broken', on)", "1" if is_broken else "")


def test_unsaved_boxes_survive_a_reload(lab):
    lab.page.add_init_script(BREAK_SAVES)
    lab.open()
    break_saves(lab)
    lab.draw(10, 10, 60, 60)
    lab.wait("status", "failed")
    lab.press("ArrowRight")
    lab.wait("image", 2)
    lab.draw(100, 100, 160, 160)
    lab.wait("count", 1)
    lab.page.reload()
    lab.wait("ready", "true")
    lab.wait("count", 1)
    assert lab.boxes(1) == lab.boxes(2) == []
    break_saves(lab, False)
    lab.page.reload()
    lab.wait("ready", "true")
    eventually(lambda: lab.boxes(1) and lab.boxes(2))
    lab.saved(1)
    assert lab.boxes(1) == [near((10, 10, 60, 60))]
    assert lab.boxes(2) == [near((100, 100, 160, 160))]
    assert lab.page.evaluate("Object.keys(localStorage).filter(key => key.startsWith('anchorage:draft')).length") == 0


def test_a_draft_that_met_another_version_asks(lab):
    lab.page.add_init_script(BREAK_SAVES)
    lab.open()
    break_saves(lab)
    lab.draw(10, 10, 60, 60)
    lab.wait("status", "failed")
    lab.save_elsewhere(BoxEdit(None, 2, (200, 200, 250, 250)))
    lab.page.reload()
    lab.wait("count", 1)
    break_saves(lab, False)
    lab.wait("status", "conflict")
    lab.page.click("[data-choice=merge]")
    lab.saved(2)
    assert sorted(lab.boxes()) == [near((10, 10, 60, 60)), (200, 200, 250, 250)]


def test_leaving_the_page_at_once_still_saves(lab):
    lab.open()
    lab.draw(10, 10, 60, 60)
    lab.page.goto("about:blank")
    eventually(lambda: len(lab.boxes()) == 1)


def test_user_text_is_text(lab):
    hostile = ["<img src=x onerror=window.hacked=1>", "${window.hacked=1}", "{{7*7}}"]
    with lab.services.database(lab.slug).write() as db:
        added = [categories.insert(db, name).id for name in hostile]
    for category_id in added:
        lab.add_box((50 * category_id, 50, 50 * category_id + 40, 90), category_id=category_id)
    lab.open()
    for name in hostile:
        assert lab.page.locator(f"{EDITOR} .class-choice .name").get_by_text(name, exact=True).count() == 1
        assert lab.page.locator(f"{EDITOR} .box-row .name").get_by_text(name, exact=True).count() == 1
    assert lab.page.evaluate("window.hacked") is None
    assert lab.page.locator(f"{EDITOR} img").count() == 0


def test_long_names_and_many_classes_push_nothing_off_the_screen(lab):
    with lab.services.database(lab.slug).write() as db:
        for number in range(25):
            categories.insert(db, f"{number} " + "a rather long class name " * 6)
    lab.add_box((10, 10, 50, 50), category_id=8)
    lab.open()
    for part in (".editor", ".side", ".bar", ".classes", ".boxes"):
        size = "node => [node.scrollWidth - node.clientWidth, innerWidth - node.getBoundingClientRect().right]"
        overflow, room = lab.page.locator(f"{EDITOR} {part}").evaluate(size)
        assert overflow <= 1 and room >= 0, part
    assert lab.page.evaluate("document.documentElement.scrollHeight - innerHeight") <= 0
    lab.press("Shift+9")  # the eighteenth class
    assert lab.data("class") == "18"


def test_classes_are_added_and_renamed_in_the_palette(lab):
    lab.open()
    lab.press("/")
    lab.page.keyboard.type("4th <b>class</b>")  # the 4 goes into the field, not to a class
    lab.press("Enter")
    lab.wait("class", 4)
    lab.draw(10, 10, 60, 60)
    lab.saved(1)
    assert lab.stored()[0].category_id == 4
    lab.page.hover(f"{EDITOR} [data-category='4']")
    lab.page.get_by_label("Rename 4th <b>class</b>").click()
    lab.page.keyboard.type("violet")
    lab.press("Enter")
    lab.page.wait_for_selector(f"{EDITOR} .box-row:has-text('violet')")
    with lab.services.database(lab.slug).read() as db:
        assert [item.name for item in categories.all_of(db)] == [*CLASSES, "violet"]


def test_a_box_drawn_before_there_is_any_class_waits_for_its_name(lab):
    with lab.services.database(lab.slug).write() as db:
        db.execute("DELETE FROM category")
    lab.open()
    lab.draw(10, 10, 60, 60)
    lab.page.mouse.move(5, 5)  # off the canvas, which then draws no crosshair
    lab.page.evaluate("new Promise(requestAnimationFrame)")
    assert lab.page.evaluate(HAS_DRAWING)
    lab.page.keyboard.type("cell")
    lab.press("Enter")
    lab.saved(1)
    assert len(lab.boxes()) == 1


def test_empty_on_purpose_is_kept(lab):
    lab.open()
    lab.press("e")
    lab.wait("dirty", "false")
    assert annotate.load(lab.services, lab.slug, 1).image.is_empty_on_purpose
    lab.page.reload()
    lab.wait("ready", "true")
    assert lab.page.locator(f"{EDITOR} .empty-choice input").is_checked()
    lab.draw(10, 10, 60, 60)
    lab.saved(1)
    assert not annotate.load(lab.services, lab.slug, 1).image.is_empty_on_purpose


def test_boxes_are_copied_to_another_image(lab):
    lab.add_box((50, 50, 150, 120))
    lab.add_box((200, 50, 250, 120), category_id=2)
    lab.open()
    lab.press("Control+c", "ArrowRight")
    lab.wait("image", 2)
    lab.wait("ready", "true")
    lab.press("Control+v")
    lab.saved(2)
    assert lab.boxes(2) == [(50, 50, 150, 120), (200, 50, 250, 120)]
    assert [item.category_id for item in lab.stored(2)] == [1, 2]


def test_boxes_can_be_chosen_moved_and_deleted_by_keyboard_alone(lab):
    lab.add_box((50, 50, 150, 120))
    lab.add_box((200, 50, 250, 120))
    lab.open()
    lab.page.focus(f"{EDITOR} .boxes")
    lab.press("ArrowDown", "ArrowDown", "Shift+ArrowDown", "Control+Shift+ArrowRight")
    lab.wait("dirty", "false")
    assert lab.boxes() == [(50, 50, 150, 120), (200, 51, 251, 121)]
    lab.press("Delete")
    lab.saved(1)
    assert lab.boxes() == [(50, 50, 150, 120)]


def test_a_quarantined_image_says_why_and_can_be_turned(lab):
    image_id = lab.add_image(9, problem="the labels fit a picture turned by 90 degrees")
    lab.open(f"&image={image_id}")
    assert "turned by 90 degrees" in lab.page.inner_text(f"{EDITOR} .problem")
    lab.page.click(f"{EDITOR} [data-turn='90']")
    lab.page.wait_for_selector(f"{EDITOR}[data-ready=true] .problem", state="attached")
    eventually(lambda: annotate.load(lab.services, lab.slug, image_id).image.rotation == 90)


def test_an_empty_project_says_what_to_do(lab):
    with lab.services.database(lab.slug).write() as db:
        db.execute("DELETE FROM image")
    lab.page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    complaints = []
    lab.page.goto(f"/annotate?project={lab.slug}")
    lab.wait("ready", "empty")
    assert complaints == []
    assert lab.page.get_by_role("link", name="Import images").is_visible()
