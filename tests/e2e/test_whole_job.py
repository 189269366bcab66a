"""The whole job of a newcomer in one sitting: import, look, label, preview, train, review, fuse, take away."""

import json
import zipfile

import pytest
from playwright.sync_api import expect

from app.pipeline.data.demo import CLASS_NAMES, write_demo_export
from app.pipeline.evaluate.difference import OUTCOMES

NAME = "Smears"
SLUG = "smears"
JOB_MS = 240_000  # loading torch and two short epochs, on two busy cores
OPTIONS = {"epochs": 2, "image_size": 96, "roi_batch_size": 32}


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return write_demo_export(tmp_path_factory.mktemp("export") / "smears", num_images=20)


def test_a_newcomer_gets_from_an_export_to_weights(page, api, export, tmp_path):
    import_dataset(page, export)
    look_at_the_data(page)
    edit_a_box(page, api)
    preview_augmentation(page, api)
    train(page)
    page.reload()
    page.wait_for_selector("anchorage-train[data-ready=true]")
    expect(page.locator("[data-chart=loss]")).not_to_have_attribute("data-points", "0")
    page.wait_for_selector("anchorage-train[data-state=done]", timeout=JOB_MS)
    review(page)
    fuse(page)
    take_away(page, tmp_path)


def import_dataset(page, export):
    page.goto("/")
    page.wait_for_selector("anchorage-projects[data-ready]")
    page.click("[data-action=import]:visible")
    page.fill("input[name=path]", str(export))
    page.fill("input[name=name]", NAME)
    page.click("[data-action=look]")
    expect(page.locator(".import-dialog .facts")).to_contain_text("20 images")
    page.click("[data-action=start]")
    page.wait_for_selector(".import-dialog[data-step=done]", timeout=JOB_MS)
    page.click("[data-action=open]")
    page.wait_for_url(f"**/data?project={SLUG}")


def look_at_the_data(page):
    page.wait_for_selector("anchorage-gallery[data-ready=true][data-total='20']")
    for name in CLASS_NAMES:
        expect(page.locator("anchorage-gallery").get_by_text(name, exact=True).first).to_be_attached()


def edit_a_box(page, api):
    """Draw one box on the first training image and see it in the database."""
    image = api.get(f"/api/projects/{SLUG}/images", params={"split": "train"}).json()["images"][0]
    page.goto(f"/annotate?project={SLUG}&image={image['id']}")
    page.wait_for_selector("anchorage-editor[data-ready=true][data-status=saved]")
    frame = page.locator("anchorage-editor .a-canvas").bounding_box()
    scale, left, top = (float(page.get_attribute("anchorage-editor", f"data-{name}")) for name in ("scale", "x", "y"))

    def at(x, y):
        return frame["x"] + left + x * scale, frame["y"] + top + y * scale

    page.keyboard.press("1")
    page.keyboard.down("Shift")  # draws even where a box lies already
    page.mouse.move(*at(100, 80))
    page.mouse.down()
    page.mouse.move(*at(120, 95), steps=4)
    page.mouse.move(*at(140, 110), steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    page.wait_for_selector(f"anchorage-editor[data-status=saved][data-revision='{image['revision'] + 1}']")
    stored = api.get(f"/api/projects/{SLUG}/images/{image['id']}").json()["annotations"]
    drawn = [item["bbox"] for item in stored if item["bbox"] == pytest.approx([100, 80, 140, 110], abs=0.02)]
    assert len(stored) == image["num_annotations"] + 1
    assert len(drawn) == 1


def preview_augmentation(page, api):
    page.goto(f"/augment?project={SLUG}")
    page.wait_for_selector("anchorage-augment[data-ready='1'][data-busy='0'][data-serial]", timeout=JOB_MS)
    page.get_by_label("Preset").select_option("flips")
    page.wait_for_selector("anchorage-augment[data-saved='1'][data-busy='0']:not([data-steps='0'])")
    steps = api.get(f"/api/projects/{SLUG}/augmentation").json()["steps"]
    assert "HorizontalFlip" in [step["name"] for step in steps]


def train(page):
    page.goto(f"/train?project={SLUG}")
    page.wait_for_selector("anchorage-train[data-ready=true]")
    page.evaluate("document.querySelectorAll('anchorage-train details').forEach(node => { node.open = true; })")
    for name, value in OPTIONS.items():
        page.fill(f"#option-{name}", str(value))
    page.wait_for_selector("form[data-problems='0']")
    page.click("[data-action=start]")
    page.wait_for_selector("anchorage-train[data-state=running]", timeout=JOB_MS)
    page.wait_for_function(
        "Number(document.querySelector('[data-chart=loss]')?.dataset.points) > 0", timeout=JOB_MS
    )  # the curve is live


def review(page):
    page.goto(f"/review?project={SLUG}")
    page.wait_for_selector("anchorage-review[data-state=ready][data-counted=true]", timeout=JOB_MS)
    counts = page.eval_on_selector("anchorage-review", "({ dataset: { tp, fn } }) => Number(tp) + Number(fn)")
    assert counts > 0
    assert page.locator("[data-figure=AP50]").inner_text() != ""


def fuse(page):
    page.goto(f"/ensemble?project={SLUG}")
    page.wait_for_selector("anchorage-ensemble[data-state=ready]")
    page.locator("anchorage-ensemble button.go").click()
    page.wait_for_selector("anchorage-ensemble[data-set][data-outcome]:not([data-outcome=''])", timeout=JOB_MS)
    assert page.get_attribute("anchorage-ensemble", "data-outcome") in OUTCOMES


def take_away(page, tmp_path):
    """Make weights and labels, download both, and look inside."""
    page.goto(f"/export?project={SLUG}")
    page.wait_for_selector("anchorage-export[data-ready]")
    page.click("[data-action=pth]")
    page.wait_for_selector("anchorage-export[data-count='1'][data-active='0']", timeout=JOB_MS)
    page.click("[data-action=labels]")
    page.wait_for_selector("anchorage-export[data-count='2'][data-active='0']", timeout=JOB_MS)
    for link in page.get_by_role("link", name="Download").all():
        with page.expect_download() as caught:
            link.click()
        caught.value.save_as(tmp_path / caught.value.suggested_filename)
    weights = next(tmp_path.glob("run-*-pth.zip"))
    with zipfile.ZipFile(weights) as archive:
        assert set(archive.namelist()) == {"model.pth", "classes.json", "README.txt"}
        classes = json.loads(archive.read("classes.json"))["classes"]
    assert [item["name"] for item in classes] == list(CLASS_NAMES)
    with zipfile.ZipFile(tmp_path / f"{SLUG}-labels.zip") as archive:
        names = archive.namelist()
    assert "train/_annotations.coco.json" in names
    assert len([name for name in names if name.endswith(".jpg")]) == 20
