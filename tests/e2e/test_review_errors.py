"""The Errors and Confusion tabs of the Review page, and the first stage's boxes over an image."""

import pytest

from app.pipeline.evaluate.error_budget import ADVICE, TOTALS
from app.services import diagnosing, truths
from app.services.diagnosing import Thresholds
from app.store import predictions
from tests.e2e.test_review import move
from tests.pipeline.train.test_predict_export import save_random_model
from tests.services.review_project import make_review_project


@pytest.fixture(scope="module")
def project(app_server):
    project = make_review_project(app_server.workspace, num_valid=24)
    categories = truths.load_truth(project.services, project.slug, project.run_id).categories
    folder = project.services.files(project.slug).run(project.run_id)
    save_random_model(folder / "epoch-3.pt", categories, model="fasterrcnn_resnet18_fpn", image_size=64, proposals=120)
    return project


def open_page(page, project, set_id, **query):
    asked = "".join(f"&{name}={value}" for name, value in query.items())
    page.goto(f"/review?project={project.slug}&set={set_id}{asked}")
    page.wait_for_selector("anchorage-review[data-state=ready][data-counted=true]")


VIEW = """() => {
  const { canvas } = document.querySelector("anchorage-review").review.single;
  return [canvas.view.scale, canvas._fitScale()];
}"""
# White pixels in the drawing of a tile: the outline of what is sought, over boxes that are faint.
WHITE = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let at = 0; at < data.length; at += 4) count += Math.min(data[at], data[at + 1], data[at + 2]) > 240;
  return count;
}"""


def shown_title(page):
    return page.locator(".showing .title").get_attribute("title")


def test_bars_and_cells_open_the_images_of_their_errors(page, project):
    set_id, calls = project.set_ids[2], []
    page.on("request", lambda request: calls.append(request.url))
    open_page(page, project, set_id)
    assert not [url for url in calls if "/diagnosis" in url or "/confusion" in url]  # nobody looks at them yet

    page.get_by_role("tab", name="Errors").click()
    page.wait_for_selector("anchorage-review-errors[data-state=ready]")
    budget = diagnosing.diagnose(project.services, project.slug, set_id)["error_budget"]
    rows = {row["kind"]: row for row in budget["kinds"] + budget["totals"]}
    bars = {bar.get_attribute("data-kind"): bar for bar in page.locator(".budget .kind").all()}
    assert bars.keys() == rows.keys()
    for kind, bar in bars.items():
        assert bar.locator(".price").inner_text() == f"{rows[kind]['d_ap50']:.3f}"
        assert bar.locator(".many").inner_text().startswith(f"{rows[kind]['count']} ")
        assert bar.is_disabled() == (rows[kind]["count"] == 0)
    prices = [float(bar.locator(".price").inner_text()) for kind, bar in bars.items() if kind not in TOTALS]
    assert prices == sorted(prices, reverse=True)
    widths = {kind: bar.locator(".amount").bounding_box()["width"] for kind, bar in bars.items()}
    assert widths["background"] / widths["false_positives"] == pytest.approx(
        rows["background"]["d_ap50"] / rows["false_positives"]["d_ap50"], rel=0.05
    )
    advice = page.locator(".budget li", has=page.locator("[data-kind=missed]")).inner_text()
    assert ADVICE["missed"] in advice

    bars["missed"].focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".showing:not([hidden])")
    missed = diagnosing.list_errors(project.services, project.slug, set_id, "missed")["errors"]
    assert shown_title(page) == "Missed"
    assert page.locator("anchorage-review").get_attribute("data-images") == str(len({e["image_id"] for e in missed}))

    # Tiles stand in the order of the list, with what it is about marked; each opens on its box.
    listed = list(dict.fromkeys(str(entry["image_id"]) for entry in missed))
    tiles = page.locator(".review .tile")
    page.wait_for_function("document.querySelector('.tile canvas').width > 0")
    assert [tile.get_attribute("data-image") for tile in tiles.all()] == listed
    marked = tiles.first.locator("canvas").evaluate(WHITE)
    page.get_by_label("Order", exact=True).select_option("name")
    page.wait_for_url("**sort=name**")
    page.get_by_label("Order", exact=True).select_option("list")
    page.wait_for_function("!location.search.includes('sort=')")
    for place in range(3):
        tiles.nth(place).click()
        page.wait_for_selector(f".single[data-image='{listed[place]}']")
        scale, fitting = page.evaluate(VIEW)
        assert scale >= fitting > 0.1
        page.keyboard.press("Escape")
        page.wait_for_selector(".single", state="hidden")
    page.locator(".showing button").click()
    page.wait_for_selector(".showing", state="hidden")
    tile = page.locator(f".tile[data-image='{listed[0]}']")
    tile.scroll_into_view_if_needed()
    page.wait_for_function("tile => tile.querySelector('canvas').width > 0", arg=tile.element_handle())
    plain = tile.locator("canvas").evaluate(WHITE)
    assert marked > plain
    assert page.get_by_label("Order", exact=True).input_value() == "errors"

    page.get_by_role("tab", name="Confusion").click()
    page.wait_for_selector("anchorage-review-confusion[data-state=ready]")
    move(page, "Score threshold", 0.4)
    page.wait_for_selector("anchorage-review-confusion[data-state=ready][data-at='0.40 0.50 1.00']")
    counts = diagnosing.count_confusions(project.services, project.slug, set_id, Thresholds(0.4))["counts"]
    for cell in page.locator(".matrix .cell").all():
        row, column = (int(cell.get_attribute(f"data-{name}")) for name in ("truth", "predicted"))
        assert cell.inner_text() == str(counts[row][column])
    assert page.locator(".matrix .cell").count() == sum(count > 0 for line in counts for count in line)
    assert len([url for url in calls if "/diagnosis" in url]) == 1  # sliders price nothing anew

    found = page.locator(".cell[data-truth='1'][data-predicted='1']")
    found.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('tr').rowIndex") > 1
    page.keyboard.press("ArrowUp")
    assert found.evaluate("node => node === document.activeElement && node.tabIndex === 0")
    page.get_by_role("button", name="Enlarge").click()
    page.locator(".matrix-window .cell[data-truth='0'][data-predicted='2']").click()
    page.wait_for_selector(".matrix-window", state="detached")
    page.wait_for_function("document.querySelector('.showing .title').title.startsWith('White cell')")
    assert shown_title(page) == "White cell that matches no labeled box"
    pairs = diagnosing.list_confused(project.services, project.slug, set_id, 0, 2, Thresholds(0.4))["pairs"]
    expected = {str(pair["image_id"]) for pair in pairs}
    assert {tile.get_attribute("data-image") for tile in page.locator(".review .tile").all()} == expected


def test_proposals_and_anchors_lie_over_an_image_of_a_checkpoint_but_not_of_an_ensemble(page, project):
    image_id = project.image_ids["valid"][0]
    open_page(page, project, project.set_ids[1], image=image_id)
    page.wait_for_selector(f".single[data-image='{image_id}']")
    page.get_by_role("button", name="Proposals").click()
    text = page.locator(".first-stage")
    page.wait_for_function("document.querySelector('.first-stage').innerText.includes('proposals')", timeout=60_000)
    given = (project.run_id, project.checkpoint_ids[1], image_id)
    answer = page.request.get(
        f"/api/projects/{project.slug}/runs/{given[0]}/checkpoints/{given[1]}/proposals?image={given[2]}&top=50"
    ).json()
    assert len(answer["proposals"]) == 50
    assert f"50 of {answer['num_proposals']} proposals" in text.inner_text()
    assert f"they cover {answer['covered']} of {len(answer['objects'])}" in text.inner_text()
    assert "issed" in text.inner_text()
    page.get_by_label("How many proposals").select_option("100")
    page.wait_for_function("document.querySelector('.first-stage').innerText.startsWith('100 of')")
    page.get_by_role("button", name="Anchors").click()
    page.wait_for_function("document.querySelector('.first-stage').innerText.includes('anchor')")
    good = sum(item["anchor_iou"] >= 0.7 for item in answer["objects"])
    assert f"at least .7: {good}" in text.inner_text()

    with page.expect_request(lambda request: "/proposals?" in request.url and f"image={image_id}&" not in request.url):
        page.keyboard.press("ArrowRight")  # the next image shows the same
    page.wait_for_function("id => document.querySelector('.single').dataset.image !== String(id)", arg=image_id)
    page.wait_for_function("document.querySelector('.first-stage').innerText.includes('anchor')")
    page.reload()  # and so does a reload
    page.wait_for_function("document.querySelector('.first-stage')?.innerText.includes('anchor')")
    assert page.get_by_role("button", name="Anchors").get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Anchors").click()
    assert "overlay=" not in page.url
    page.wait_for_selector(".first-stage", state="hidden")

    with project.services.database(project.slug).write() as db:
        set_id = predictions.store_predictions(
            db,
            run_id=project.run_id,
            split="valid",
            detections={},
            snapshot_sha256="a" * 64,
            members=project.set_ids[:2],
            options={"iou_threshold": 0.55},
            name="WBF of 2",
        )
    open_page(page, project, set_id, image=image_id)
    assert "Proposals belong to a checkpoint" in page.locator(".single .tools").inner_text()
    assert page.get_by_role("button", name="Proposals").count() == 0


def test_lost_weights_are_told_over_the_image(page, project):
    image_id = project.image_ids["valid"][0]
    open_page(page, project, project.set_ids[0], image=image_id)
    page.get_by_role("button", name="Anchors").click()
    page.wait_for_selector(".first-stage .a-error")
    assert "weights of Epoch 4 are gone" in page.locator(".first-stage").inner_text()
