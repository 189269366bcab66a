import re

import numpy as np
import orjson
import pytest

from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.matching import count_errors, match_columns
from app.services import projects, review
from app.services.context import Services
from app.store import jobs, predictions, runs
from app.store.files import Workspace
from tests.services.review_project import make_review_project

SET_SLIDER = """(input, value) => {
  input.value = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
}"""
INK = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, index) => index % 4 === 3 && value > 0).length;
}"""


@pytest.fixture(scope="module")
def project(app_server):
    return make_review_project(app_server.workspace, num_valid=24)


@pytest.fixture
def opened(page, project):
    page.goto(f"/review?project={project.slug}&set={project.set_ids[1]}")
    page.wait_for_selector("anchorage-review[data-state=ready][data-counted=true]")
    return page


def expected_counts(project, set_id, iou, score):
    samples = review.load_truth(project.services, project.slug, project.run_id).split("valid")
    snapshot = review.load_truth(project.services, project.slug, project.run_id)
    truth = GroundTruth.from_samples(samples, snapshot.categories)
    found = predictions.read_detections(project.services.database(project.slug), set_id)
    columns = DetectionColumns.from_detections(truth, found)
    counts = count_errors(truth, columns, match_columns(truth, columns, iou), score)
    return {name: str(int(np.sum(getattr(counts, name)))) for name in ("tp", "fp", "fn")}


def shown_counts(page):
    return page.eval_on_selector("anchorage-review", "({ dataset: { tp, fp, fn } }) => ({ tp, fp, fn })")


def move(page, name, value):
    """Move a slider and wait for the frame that shows it."""
    page.eval_on_selector("anchorage-review", "node => delete node.dataset.frameMs")
    page.get_by_role("slider", name=name, exact=True).evaluate(SET_SLIDER, value)
    page.wait_for_selector("anchorage-review[data-frame-ms][data-counted=true]")


def test_page_opens_at_the_best_f1(opened, project):
    best = review.judge(project.services, project.slug, project.set_ids[1]).evaluation.f1_threshold
    assert shown_counts(opened) == expected_counts(project, project.set_ids[1], 0.5, best)
    assert opened.locator(".review .tile").count() == 24
    assert opened.locator("[data-figure=AP50]").inner_text() != "–"


def test_sliders_match_again_in_the_browser_without_the_server(opened, project):
    calls = []
    opened.on("request", lambda request: calls.append(request.url))
    for iou, score in ((0.5, 0.2), (0.5, 0.8), (0.75, 0.8), (0.3, 0.35), (0.95, 0.0)):
        move(opened, "IoU threshold", iou)
        move(opened, "Score threshold", score)
        assert shown_counts(opened) == expected_counts(project, project.set_ids[1], iou, score)
    assert float(opened.locator("anchorage-review").get_attribute("data-frame-ms")) < 100
    assert [url for url in calls if "/prediction-sets" in url] == []


def test_best_f1_button_brings_the_threshold_back(opened):
    before = shown_counts(opened)
    move(opened, "Score threshold", 0.9)
    assert shown_counts(opened) != before
    opened.get_by_role("button", name="Best F1").click()
    opened.wait_for_function(
        "before => { const { tp, fp, fn } = document.querySelector('anchorage-review').dataset;"
        " return tp === before.tp && fp === before.fp && fn === before.fn; }",
        arg=before,
    )


def open_tab(page, name):
    page.get_by_role("tab", name=name).click()
    page.locator(".review .pane:not([hidden])").wait_for()


def shown_score(page):
    return float(page.get_by_role("slider", name="Score threshold", exact=True).input_value())


def test_curves_carry_a_point_that_is_the_score_slider(opened, project):
    set_id = project.set_ids[1]
    open_tab(opened, "Curves")
    found = predictions.read_detections(project.services.database(project.slug), set_id)
    highest = max(float(detections.scores.max()) for detections in found.values() if len(detections.scores))
    over_score, over_recall = opened.locator(".review .curve-chart").all()
    ends = over_score.evaluate(
        "chart => ['precision', 'recall'].map((name) => "
        "Number(chart.querySelector(`[data-line=${name}]`).getAttribute('points').split(' ').at(-1).split(',')[0]))"
    )
    assert ends[0] < ends[1], "precision is drawn as far as there are predictions, recall to the end"
    left, right = over_score.evaluate("chart => [38, 310]")
    assert (ends[0] - left) / (right - left) == pytest.approx(highest, abs=0.01)
    move(opened, "Score threshold", 0.5)
    point = over_score.locator(".point")
    assert point.get_attribute("aria-valuenow") == "0.50"
    point.focus()
    opened.keyboard.press("ArrowRight")
    opened.wait_for_function("document.querySelector('.review .slide input').value === '0.51'")
    frame = over_score.bounding_box()
    at = [frame["x"] + frame["width"] * (left + 0.8 * (right - left)) / 320, frame["y"] + frame["height"] / 2]
    opened.mouse.move(*at)
    opened.mouse.down()
    opened.mouse.move(at[0] - 5, at[1], steps=2)
    opened.mouse.up()
    opened.wait_for_function("Math.abs(document.querySelector('.review .slide input').value - 0.78) < 0.03")
    opened.wait_for_selector("anchorage-review[data-counted=true]")
    assert shown_counts(opened) == expected_counts(project, set_id, 0.5, shown_score(opened))
    over_recall.locator(".point").press("Home")
    opened.wait_for_function("document.querySelector('.review .slide input').value === '0'")
    opened.reload()  # the tab and the slider are kept
    opened.wait_for_selector("anchorage-review[data-state=ready][data-counted=true]")
    assert opened.get_by_role("tab", name="Curves").get_attribute("aria-selected") == "true"


def test_thresholds_by_class_are_used_changed_and_kept(opened, project):
    row = opened.locator(".review .classes tbody tr").first
    opened.get_by_label("Use per-class thresholds").check()
    assert opened.get_by_role("slider", name="Score threshold", exact=True).is_disabled()
    evaluation = review.judge(project.services, project.slug, project.set_ids[1]).evaluation
    usual = f"{evaluation.per_class[0]['threshold']:.2f}"
    assert row.locator("input").input_value() == usual
    row.locator("input").fill("1.7")
    row.locator("input").press("Enter")
    opened.get_by_text(f"A score threshold is a number from 0 to 1: that of Red cell stays {usual}.").wait_for()
    assert row.locator("input").input_value() == usual
    before = shown_counts(opened)
    row.locator("input").fill("1")
    row.locator("input").press("Enter")
    opened.wait_for_function(
        "tp => Number(document.querySelector('anchorage-review').dataset.tp) < tp", arg=int(before["tp"])
    )
    after = shown_counts(opened)
    with opened.expect_download() as download:
        opened.get_by_role("button", name="Download", exact=True).click()
    rows = orjson.loads(download.value.path().read_bytes())["thresholds"]
    assert [(item["category_id"], item["name"]) for item in rows] == [(3, "Red cell"), (13, "White cell")]
    assert rows[0]["threshold"] == 1
    opened.reload()
    opened.wait_for_selector("anchorage-review[data-state=ready][data-counted=true]")
    assert shown_counts(opened) == after
    opened.get_by_label("Class", exact=True).select_option("1")  # now the slider is that of the class
    move(opened, "Score threshold", 0.5)
    assert row.locator("input").input_value() == "0.50"


def wait_for_address(page, **wanted):
    page.wait_for_function(
        "wanted => Object.entries(wanted).every(([name, value]) =>"
        " new URLSearchParams(location.search).get(name) === value)",
        arg=wanted,
    )


def test_filters_narrow_the_images_and_stand_in_the_address(opened):
    tiles = opened.locator(".review .tile")
    opened.get_by_label("Error kind", exact=True).select_option("4")
    opened.wait_for_function("document.querySelector('anchorage-review').dataset.images < 24")
    kind = opened.get_by_label("Error kind", exact=True).locator("option:checked").inner_text()
    assert re.fullmatch(r"Background \(\d+\)", kind)
    opened.get_by_label("Order", exact=True).select_option("surest")
    opened.get_by_label("Size", exact=True).select_option("1")
    wait_for_address(opened, size="medium", kind="background", sort="surest")
    first, count = tiles.first.get_attribute("data-image"), tiles.count()
    move(opened, "NMS threshold", 0.5)
    assert "without the NMS" in opened.locator(".review .note.warn").inner_text()
    wait_for_address(opened, nms="0.5")
    opened.reload()
    opened.wait_for_selector("anchorage-review[data-state=ready][data-counted=true]")
    assert (tiles.first.get_attribute("data-image"), tiles.count()) == (first, count)
    opened.get_by_label("Size", exact=True).select_option("2")  # the largest box has 60 x 60 pixels
    opened.get_by_role("button", name="Show all images").click()
    opened.wait_for_selector("anchorage-review[data-images='24']")


OPEN_TWO = """(node, [first, second]) => {
  const items = [
    { imageId: first, box: [20, 20, 40, 40], kind: "Duplicate" },
    { imageId: second, box: [100, 100, 120, 120], kind: "Duplicate" },
  ];
  node.dispatchEvent(new CustomEvent("review-open", { detail: { title: "2 of a kind", items } }));
}"""


OPEN_MANY = """(node, [imageId, count]) => {
  const box = [20.123, 20.123, 40.123, 40.123];
  const kind = "Wrong class: 宽 0.83";
  const items = Array.from({ length: count }, (_, place) => ({ imageId: imageId + place, box, kind }));
  node.dispatchEvent(new CustomEvent("review-open", { detail: { title: "Wrong class", items } }));
}"""


def test_other_modules_fill_tabs_and_narrow_the_page(opened, project):
    ids = project.image_ids["valid"][3:5]
    opened.get_by_role("tab", name="Errors").click()
    guest = opened.locator("anchorage-review-errors")
    assert guest.evaluate("node => [node.setId, node.view.iou]") == [project.set_ids[1], 0.5]
    guest.evaluate(OPEN_TWO, ids)
    opened.wait_for_selector("anchorage-review[data-images='2']")
    opened.locator(f".review .tile[data-image='{ids[0]}']").click()
    opened.wait_for_selector(f".single[data-image='{ids[0]}']")
    opened.keyboard.press("Escape")
    opened.reload()
    opened.wait_for_selector("anchorage-review[data-state=ready][data-images='2']")
    opened.get_by_role("button", name="Stop showing only 2 of a kind").click()
    opened.wait_for_selector("anchorage-review[data-images='24']")
    opened.get_by_role("tab", name="Figures").click()
    opened.locator(".review .histogram button").first.click()  # a bar narrows the page too
    opened.wait_for_selector("text=Showing:")
    narrowed = opened.locator("anchorage-review").get_attribute("data-images")
    assert int(narrowed) < 24
    opened.locator(".review .tile").first.click()
    opened.wait_for_selector(".single[data-image]")
    opened.go_back()
    opened.wait_for_selector(f"anchorage-review[data-images='{narrowed}'] .single", state="hidden")
    opened.go_back()
    opened.wait_for_selector("anchorage-review[data-images='24']")
    assert "showing=" not in opened.url and not opened.locator(".showing").is_visible()


@pytest.mark.parametrize(("count", "has_images"), [(150, True), (9000, False)])
def test_a_list_too_long_for_the_address_keeps_its_marks(opened, project, count, has_images):
    image_id = project.image_ids["valid"][3]
    opened.get_by_role("tab", name="Errors").click()
    opened.locator("anchorage-review-errors").evaluate(OPEN_MANY, [image_id, count])
    wait = f"review => review.showing.itemsOf({image_id})[0]?.kind === 'Wrong class: 宽 0.83'"
    there = f"({wait})(document.querySelector('anchorage-review').review)"
    opened.wait_for_function(there)
    listed = int(opened.locator("anchorage-review").get_attribute("data-images"))
    assert len(opened.url) < 20_000 and (f"%5B{image_id}%5D" in opened.url) == has_images
    opened.reload()
    opened.wait_for_selector(f"anchorage-review[data-state=ready][data-images='{listed}']")
    assert opened.evaluate(f"{there} && document.querySelector('anchorage-review').review.showing.items.size") > 1
    opened.locator(f".review .tile[data-image='{image_id}']").click()
    opened.wait_for_selector(".single[data-image]")
    opened.go_back()
    opened.wait_for_selector(f"anchorage-review[data-images='{listed}'] .single", state="hidden")
    assert opened.evaluate(there)
    address = opened.url
    opened.goto("about:blank")
    opened.goto(address)  # as somebody else opens it
    opened.wait_for_selector("anchorage-review[data-state=ready]")
    told = opened.locator(".a-notice", has_text="too long for the address").count()
    assert told == (0 if has_images else 1)
    assert opened.locator("anchorage-review").get_attribute("data-images") == str(listed if has_images else 24)


def test_the_browser_s_back_returns_to_the_former_tab_and_set(opened, project):
    def front():
        return opened.locator(".review [role=tab][aria-selected=true]").inner_text()

    opened.evaluate("window.isSamePage = true")
    opened.get_by_role("tab", name="Curves").click()
    opened.get_by_role("tab", name="Errors").click()
    move(opened, "Score threshold", 0.75)  # a slider is no place
    opened.wait_for_function("location.search.includes('score=0.75')")
    opened.go_back()
    opened.wait_for_selector("#review-tab-curves[aria-selected=true]")
    opened.wait_for_function("location.search.includes('panel=curves') && location.search.includes('score=0.75')")
    opened.go_back()
    opened.wait_for_selector("#review-tab-figures[aria-selected=true]")
    opened.go_forward()
    opened.wait_for_selector("#review-tab-curves[aria-selected=true]")
    opened.get_by_label("Predictions of").select_option(f"checkpoint-{project.checkpoint_ids[2]}")
    opened.wait_for_selector(f"anchorage-review[data-state=ready][data-set='{project.set_ids[2]}']")
    opened.go_back()
    opened.wait_for_selector(f"anchorage-review[data-state=ready][data-set='{project.set_ids[1]}']")
    assert front() == "Curves" and opened.evaluate("window.isSamePage")


def test_worst_images_come_first(opened):
    def errors():
        rows = opened.locator(".review .tile .counts").all_inner_texts()
        return [sum(int(part) for part in row.split()[1:]) for row in rows]

    opened.wait_for_function("document.querySelectorAll('.review .tile .counts[data-counts]').length >= 8")
    first = errors()[:8]
    assert first == sorted(first, reverse=True)


def test_outcomes_can_be_hidden_and_a_class_chosen(opened):
    canvas = opened.locator(".review .tile canvas").first
    opened.get_by_label("Class", exact=True).select_option("2")
    opened.wait_for_selector("anchorage-review[data-counted=true]")
    all_classes = int(opened.locator("anchorage-review").get_attribute("data-tp"))
    opened.get_by_label("Class", exact=True).select_option("0")
    opened.wait_for_function(f"Number(document.querySelector('anchorage-review').dataset.tp) > {all_classes}")
    assert canvas.evaluate(INK) > 0
    toggle = opened.get_by_role("button", name="Found")
    toggle.click()
    assert toggle.get_attribute("aria-pressed") == "false"
    opened.reload()
    opened.wait_for_selector("anchorage-review[data-state=ready][data-counted=true]")
    assert toggle.get_attribute("aria-pressed") == "false" and "hidden=tp" in opened.url
    assert opened.get_by_role("button", name="Missed").get_attribute("aria-pressed") == "true"


def test_one_image_opens_large_and_arrows_lead_on(opened):
    tiles = opened.locator(".review .tile")
    ids = [tiles.nth(index).get_attribute("data-image") for index in range(2)]
    tiles.first.click()
    opened.wait_for_selector(f".single[data-image='{ids[0]}']")
    assert f"image={ids[0]}" in opened.url
    opened.keyboard.press("ArrowRight")
    opened.wait_for_selector(f".single[data-image='{ids[1]}']")
    assert opened.locator(".single .a-canvas canvas").nth(1).evaluate(INK) > 0
    places = opened.evaluate("window.isSamePage = true, history.length")
    move(opened, "Score threshold", 0.75)
    opened.wait_for_function("location.search.includes('score=0.75')")
    opened.go_back()  # to the grid: what was set meanwhile stays set, and nothing is loaded anew
    opened.wait_for_selector(".single", state="hidden")
    assert "image=" not in opened.url and "score=0.75" in opened.url
    assert float(opened.get_by_role("slider", name="Score threshold", exact=True).input_value()) == 0.75
    opened.go_forward()
    opened.wait_for_selector(f".single[data-image='{ids[1]}']")
    opened.keyboard.press("Escape")  # the way in and the way out are one place, not two
    opened.keyboard.press("Escape")
    opened.wait_for_function("!location.search.includes('image=')")
    opened.wait_for_selector(".single", state="hidden")
    assert opened.evaluate("[window.isSamePage, history.length]") == [True, places]


def test_predictions_that_are_missing_are_offered_and_followed_after_a_reload(opened, project):
    opened.get_by_label("Images of").select_option("test")
    opened.wait_for_selector("anchorage-review[data-state=missing]")
    assert opened.get_by_role("button", name="Predict test images").is_visible()
    wanted = {"checkpoint_id": project.checkpoint_ids[1], "split": "test"}
    progress = {"done": 1, "total": 3, "message": "predicting", "eta_s": 65}
    job = {"id": 77, "kind": "predict", "state": "running", "payload": wanted, "progress": progress, "error": ""}
    opened.route("**/jobs", lambda route: route.fulfill(json={"jobs": [job]}))
    opened.route("**/jobs/77", lambda route: route.fulfill(json={"job": job}))
    opened.reload()
    opened.wait_for_selector("anchorage-review[data-state=predicting]")
    opened.get_by_text("1 min 5 s left").wait_for()
    assert opened.get_by_label("Images of").input_value() == "test"
    opened.get_by_label("Predictions of").select_option(f"checkpoint-{project.checkpoint_ids[0]}")
    opened.wait_for_selector("anchorage-review[data-state=missing]")


def test_project_without_a_run_says_what_to_do(page, app_server):
    slug = projects.create_project(Services(Workspace(app_server.workspace)), "Untrained")
    page.goto(f"/review?project={slug}")
    page.wait_for_selector("anchorage-review[data-state=empty]")
    assert "/train" in page.get_by_role("link", name="Train", exact=True).last.get_attribute("href")
    page.goto(f"/ensemble?project={slug}")
    page.wait_for_selector("anchorage-ensemble[data-state=empty]")


@pytest.mark.parametrize("path", ["review", "ensemble"])
def test_run_that_kept_no_weights_is_named(page, app_server, path):
    services = Services(Workspace(app_server.workspace))
    slug = projects.create_project(services, "Failed")
    with services.database(slug).write() as db:
        run_id = runs.create_run(db, jobs.enqueue(db, "train", {}).id, "Too bold", {"epochs": 4})
        db.execute("UPDATE job SET state = 'failed', error = 'The loss became NaN.'")
    page.goto(f"/{path}?project={slug}")
    page.wait_for_selector(f"anchorage-{path}[data-state=empty]")
    assert "“Too bold” failed before it kept any weights" in page.locator(f"anchorage-{path}").inner_text()
    assert f"run={run_id}" in page.get_by_role("link", name="Open the run").get_attribute("href")


@pytest.mark.parametrize("path", ["review", "audit", "ensemble"])
def test_run_that_is_not_there_is_told_and_the_address_kept(page, project, path):
    page.goto(f"/{path}?project={project.slug}&run=99")
    page.wait_for_selector(f"anchorage-{path}[data-state=missing]")
    assert "There is no run 99 with weights here" in page.locator(f"anchorage-{path}").inner_text()
    assert "run=99" in page.url
    page.get_by_role("link", name="Open First run").click()
    page.wait_for_url(f"**/{path}?*run={project.run_id}*")


def test_nothing_is_cut_off(opened):
    sizes = opened.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert sizes == [1280, 720]
    opened.set_viewport_size({"width": 820, "height": 720})
    opened.locator(".review .tile").first.click()
    bar = opened.locator(".review .single .bar")
    assert bar.evaluate("bar => bar.scrollWidth - bar.clientWidth") == 0
