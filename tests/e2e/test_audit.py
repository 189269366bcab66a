"""Suspects in a real browser: what is decided on a card or in the editor is what the database holds."""

import pytest

from app.services import annotate, auditing
from app.services.annotate import BoxEdit
from app.services.auditing import AuditFilter
from app.store import annotations, ignored_suspects, images
from tests.services.review_project import make_review_project

MIN_SCORE = 0.3
PIXELS = """canvas => new Set(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data).size"""


class Lab:
    """A project with one box deleted, and a sure model that has found it."""

    def __init__(self, page, workspace) -> None:
        self.page = page
        project = make_review_project(workspace)
        self.services, self.slug, self.set_id = project.services, project.slug, project.set_ids[0]
        self.database = self.services.database(self.slug)
        self.image_id = project.image_ids["valid"][0]
        with self.database.write() as db:
            annotations.replace(db, self.image_id, 0, annotations.of_image(db, self.image_id)[:-1])
        self.suspect = next(item for item in self.suspects("missing_box") if item["image_id"] == self.image_id)
        self.address = f"project={self.slug}&set={self.set_id}&min_score={MIN_SCORE}&kind=missing_box"
        self.card = page.locator(f"[data-key='{self.suspect['key']}']")

    def suspects(self, kind=None):
        chosen = AuditFilter(kind, min_score=MIN_SCORE)
        return auditing.audit_sets(self.services, self.slug, [self.set_id], chosen)["suspects"]

    def boxes(self):
        with self.database.read() as db:
            return [item.bbox for item in annotations.of_image(db, self.image_id)]

    def save_elsewhere(self) -> None:
        """Another tab moves the first box."""
        with self.database.read() as db:
            image, (first, *others) = images.get(db, self.image_id), annotations.of_image(db, self.image_id)
        edits = [BoxEdit(first.id, first.category_id, (1, 1, 30, 30))]
        edits += [BoxEdit(item.id, item.category_id, item.bbox) for item in others]
        annotate.save(self.services, self.slug, self.image_id, image.revision, edits)

    def ready(self) -> None:
        self.page.wait_for_selector("anchorage-audit[data-state=ready]")

    def do(self, action: str, state: str) -> None:
        self.card.locator(f"[data-action={action}]").click()
        self.page.wait_for_selector(f"[data-key='{self.suspect['key']}'][data-state='{state}']")

    def count(self, kind: str) -> int:
        return int(self.page.locator(f".kind[data-kind='{kind}'] .count").inner_text())


@pytest.fixture
def lab(page, app_server) -> Lab:
    return Lab(page, app_server.workspace)


def test_suspects_are_accepted_and_ignored_on_their_cards_and_that_is_undone(lab, page):
    page.goto(f"/audit?{lab.address}")
    lab.ready()
    assert lab.count("") == len(lab.suspects()) and lab.count("missing_box") == len(lab.suspects("missing_box"))
    assert "never saw them" in page.locator(".sample").inner_text()
    page.wait_for_function(f"({PIXELS})(document.querySelector('.suspect canvas')) > 3")
    before, listed = lab.boxes(), lab.count("missing_box")

    lab.do("accept", "accepted")
    assert lab.boxes()[:-1] == before and lab.boxes()[-1] == pytest.approx(lab.suspect["box"], abs=0.01)
    assert lab.count("missing_box") == listed - 1
    lab.do("undo", "open")
    assert lab.boxes() == before
    lab.save_elsewhere()  # the card began from an older revision: both changes stay
    lab.do("accept", "accepted")
    assert lab.boxes()[0] == (1, 1, 30, 30) and len(lab.boxes()) == len(before) + 1
    page.get_by_role("button", name="Judge again").click()
    assert "→" in page.locator(".judged [data-figure=map50]").inner_text()
    lab.do("undo", "open")

    lab.do("ignore", "ignored")
    assert lab.count("ignored") == 1
    page.reload()
    lab.ready()
    assert lab.card.count() == 0 and lab.count("missing_box") == len(lab.suspects("missing_box"))
    page.locator(".kind[data-kind=ignored]").click()
    page.wait_for_selector(".suspect [data-action=undo], .suspect [data-action=take-back]")
    page.locator("[data-action=take-back]").click()
    page.wait_for_selector(".suspect[data-state='taken back']")
    with lab.database.read() as db:
        assert ignored_suspects.count(db) == 0
    page.locator(".kind[data-kind=missing_box]").click()
    page.wait_for_selector(f"[data-key='{lab.suspect['key']}']")


def test_a_suspect_is_a_suggestion_in_the_editor_and_leads_to_the_next(lab, page):
    page.goto(f"/audit?{lab.address}")
    lab.ready()
    before = lab.boxes()
    lab.card.locator(".crop").click()
    page.wait_for_selector(".suggestion[data-status=open]")
    page.wait_for_selector(f"anchorage-editor[data-image='{lab.image_id}'][data-count='{len(before)}']")
    page.keyboard.press("Enter")
    page.wait_for_selector(
        ".suggestion[data-status=accepted] >> xpath=//ancestor::anchorage-editor[@data-dirty='false']"
    )
    page.wait_for_selector(f"anchorage-editor[data-count='{len(before) + 1}'][data-dirty=false]")
    assert lab.boxes()[-1] == pytest.approx(lab.suspect["box"], abs=0.01)
    page.keyboard.press("Control+z")
    page.wait_for_selector(".suggestion[data-status=open]")
    page.wait_for_selector("anchorage-editor[data-dirty=false]")
    assert lab.boxes() == before

    page.locator("[data-suggestion=edit]").click()
    page.wait_for_selector("anchorage-editor[data-selected^=n][data-dirty=false]")
    assert "change it as you like" in page.locator(".suggestion .text").inner_text()
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_function("document.querySelector('anchorage-editor').dataset.dirty === 'true'")
    page.wait_for_selector("anchorage-editor[data-dirty=false]")
    x1, y1, x2, y2 = lab.suspect["box"]
    assert lab.boxes()[-1] == pytest.approx((x1 + 1, y1, x2 + 1, y2), abs=0.011)
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    page.wait_for_selector(".suggestion[data-status=open]")

    page.locator("[data-suggestion=ignore]").click()
    page.wait_for_selector(".suggestion[data-status=ignored]")
    assert lab.suspect["key"] not in {item["key"] for item in lab.suspects()}
    page.locator("[data-suggestion=take-back]").click()
    page.wait_for_selector(".suggestion[data-status=open]")
    page.wait_for_selector("anchorage-editor[data-dirty=false]")
    following = lab.suspects("missing_box")
    place = [item["key"] for item in following].index(lab.suspect["key"])
    if place + 1 < len(following):
        page.locator("[data-suggestion=next]").click()
        page.wait_for_selector(f"anchorage-editor[data-image='{following[place + 1]['image_id']}']")
        page.wait_for_selector(".suggestion[data-status=open]")
    page.get_by_role("link", name="Back to the audit").click()
    lab.ready()
    assert page.locator(".kind[data-kind=missing_box]").get_attribute("aria-pressed") == "true"
