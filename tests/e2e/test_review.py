import numpy as np
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
    page.get_by_role("slider", name=name).evaluate(SET_SLIDER, value)
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


def test_precision_is_drawn_as_far_as_there_are_predictions(opened, project):
    set_id = project.set_ids[1]
    judged = opened.request.get(f"/api/projects/{project.slug}/prediction-sets/{set_id}/evaluation").json()
    found = predictions.read_detections(project.services.database(project.slug), set_id)
    highest = max(float(detections.scores.max()) for detections in found.values() if len(detections.scores))
    precision, recall = opened.locator(".review .side .curve-chart").first.locator("polyline").all()[:2]
    thresholds = judged["curves"]["threshold"]["threshold"]
    assert len(recall.get_attribute("points").split()) == len(thresholds)
    assert len(precision.get_attribute("points").split()) == sum(one <= highest for one in thresholds) < len(thresholds)


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


def test_one_image_opens_large_and_arrows_lead_on(opened):
    tiles = opened.locator(".review .tile")
    ids = [tiles.nth(index).get_attribute("data-image") for index in range(2)]
    tiles.first.click()
    opened.wait_for_selector(f".single[data-image='{ids[0]}']")
    assert f"image={ids[0]}" in opened.url
    opened.keyboard.press("ArrowRight")
    opened.wait_for_selector(f".single[data-image='{ids[1]}']")
    assert opened.locator(".single .a-canvas canvas").nth(1).evaluate(INK) > 0
    opened.keyboard.press("Escape")
    opened.wait_for_selector(".single", state="hidden")
    assert "image=" not in opened.url


def test_a_split_without_predictions_offers_to_make_them(opened):
    opened.get_by_label("Images of").select_option("test")
    opened.wait_for_selector("anchorage-review[data-state=missing]")
    assert opened.get_by_role("button", name="Predict test images").is_visible()


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


def test_nothing_is_cut_off(opened):
    sizes = opened.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert sizes == [1280, 720]
