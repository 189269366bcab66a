"""The Compare page: figures with their noise, the same images twice, notes that lose nothing, missing predictions."""

import re

import pytest

from app.services import run_notes
from tests.services.review_project import make_review_project
from tests.services.test_comparing import add_ensemble, add_run

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
    return make_review_project(app_server.workspace, num_valid=12)


@pytest.fixture(scope="module")
def second(project):
    return add_run(project, {"epochs": 3}, project.set_ids[2], [0.1, 0.6], name="<i>Second</i> ${1} run")


def open_page(page, project, **params):
    query = "&".join(f"{name}={value}" for name, value in {"project": project.slug, **params}.items())
    page.goto(f"/compare?{query}")
    page.wait_for_selector("anchorage-compare[data-state=ready]")


def test_figures_sides_curves_and_reports(page, project, second):
    page.goto(f"/train?project={project.slug}&run={second}")
    page.locator(".train-toolbar").get_by_role("link", name="Compare").click()
    page.wait_for_selector("anchorage-compare[data-state=ready]")
    assert f"sides=run-{project.run_id}%2Crun-{second}" in page.url  # the older run first
    row = page.locator("[data-figure=map75]")
    assert row.locator("svg .range").count() == 1
    is_clear = row.get_attribute("data-clear") == "true"
    assert ("is better" if is_clear else "within the noise") in row.inner_text()
    option = page.locator("[data-option=epochs] td")
    assert option.all_inner_texts() == ["Epochs", "4", "3"] and "training image" in option.first.get_attribute("title")
    for name in ("html", "md"):
        with page.expect_download() as download:
            page.click(f"[data-report={name}]")
        assert download.value.suggested_filename.endswith(f"-valid.{name}")
    set_id = add_ensemble(project)
    open_page(page, project, sides=f"run-{second},set-{set_id},run-{project.run_id}", pair="2-1")
    assert page.locator(".sides .side").count() == 3
    assert page.locator("[data-figure=map] .difference").inner_text() == "+0.000"  # the ensemble is the best checkpoint
    report = page.request.get(page.locator("[data-report=html]").get_attribute("href")).text()
    assert "A: &lt;i&gt;Second&lt;/i&gt; ${1} run (in options, curves and notes)" in report and "B less C" in report
    page.select_option("[data-pick=pair-0]", "0")
    page.wait_for_function("document.querySelector('[data-figure=map] .difference')?.textContent.startsWith('+0.')")
    page.wait_for_selector("anchorage-compare[data-state=ready]")
    assert "pair=0-1" in page.url
    page.set_viewport_size({"width": 1024, "height": 700})
    hidden = "scroller => scroller.scrollWidth - scroller.clientWidth"
    assert page.locator(".figures .scroll").evaluate(hidden) == 0, "the last column is cut off"
    page.click("[data-tab=classes]")
    assert page.locator(".classes .scroll").evaluate(hidden) == 0, "the last column is cut off"
    page.set_viewport_size({"width": 1280, "height": 720})
    page.click("[data-tab=curves]")
    page.wait_for_selector(".curves[data-loaded=true]")
    legend = page.locator("[data-chart=map50] .chart-legend button .label")
    assert legend.all_inner_texts() == ["A <i>Second</i> ${1} run"]  # the first run was never validated
    page.click("[data-axis=time]")
    page.reload()
    page.wait_for_selector(".curves[data-axis=time][data-loaded=true]")
    plots = "document.querySelector('anchorage-compare').view.charts.flatMap(({ plot }) => plot.plot ?? [])"
    ends = page.evaluate(f"{plots}.map(({{ scales }}) => [scales.x.min, scales.x.max])")
    assert ends == [[0, 20]] * 2  # mAP50 and F1 end at the last validation, and begin with the run
    page.evaluate(f"{plots}[0].setScale('x', {{ min: 12, max: 18 }})")
    page.wait_for_function(f"{plots}[0].scales.x.min === 12")  # a zoom stays one
    assert page.evaluate(
        "import('/widgets/chart.js').then(({ TIME }) => [0, 30, 60, 90, 3600, 5400].map(TIME.formatX))"
    ) == ["0 s", "30 s", "1 min", "1 min 30 s", "1 h", "1 h 30 min"]
    page.click("[data-tab=classes]")
    page.evaluate("window.isSamePage = true")
    page.go_back()  # a tab is a place to come back from
    page.wait_for_selector("anchorage-compare[data-tab=curves] .curves[data-axis=time]")
    page.go_forward()
    page.wait_for_selector("anchorage-compare[data-tab=classes] [data-class]")
    assert page.evaluate("window.isSamePage")
    assert page.locator("[data-class] .name").all_inner_texts() == ["Red cell", "White cell"]
    for row in page.locator("[data-class]").all():
        outcome = row.get_attribute("data-outcome")
        words = {"gain": "B is better", "noise": "within the noise", "worse": "A is better"}[outcome]
        assert row.locator(".words").inner_text() == words
        assert (row.locator(".words.a-muted").count() == 1) == (outcome == "noise")
        assert re.fullmatch(r"[−+]0\.\d{3} to [−+]0\.\d{3}", row.locator("td").nth(5).inner_text())
    assert page.locator("anchorage-compare i").count() == 0


def test_the_same_image_twice_moves_together(page, project, second):
    open_page(page, project, tab="images")
    page.wait_for_selector(".pairs[data-loaded=true][data-image]")
    differences = [0 if text == "same" else int(text) for text in page.locator(".item .a-number").all_inner_texts()]
    assert len(differences) == 12 and differences == sorted(differences, reverse=True) and differences[0] > 0
    first = page.get_attribute(".pairs", "data-image")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("before => document.querySelector('.pairs').dataset.image !== before", arg=first)
    assert f"image={page.get_attribute('.pairs', 'data-image')}" in page.url
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("before => document.querySelector('.pairs').dataset.image === before", arg=first)
    views = "document.querySelector('anchorage-compare').view.panes.map(({ canvas }) => canvas.view)"
    page.locator(".pane .stage").nth(1).hover()
    page.mouse.wheel(0, -240)
    page.wait_for_selector(".pairs[data-scale]")
    left, right = page.evaluate(views)
    assert left == pytest.approx(right) and left["scale"] > 2
    ink = page.locator(".pane canvas + canvas").first.evaluate(INK)
    page.locator(".pairs .slide select").select_option("common")
    page.get_by_role("slider").evaluate(SET_SLIDER, 1)
    page.wait_for_selector(".pane[data-tp='0'][data-fp='0']")
    assert page.locator(".pane[data-tp='0'][data-fp='0']").count() == 2
    page.get_by_role("button", name="Missed").click()
    page.wait_for_function(f"(({INK})(document.querySelector('.pane canvas + canvas'))) < {ink}")


def test_notes_are_saved_kept_and_not_written_over(page, project, second):
    at = (project.services, project.slug, second)
    open_page(page, project, tab="notes")
    sheet = page.locator(f".sheet[data-run='{second}']")
    area = sheet.locator("[data-part=hypothesis] textarea")
    page.wait_for_selector(f".sheet[data-run='{second}'][data-status=saved]")
    area.fill("Larger images help. <b>${1}</b>")
    page.wait_for_selector(f".sheet[data-run='{second}'][data-status=saving]")
    page.wait_for_selector(f".sheet[data-run='{second}'][data-status=saved]")
    assert run_notes.get_notes(*at)["hypothesis"] == "Larger images help. <b>${1}</b>"
    page.route("**/notes", lambda route: route.abort() if route.request.method == "PUT" else route.continue_())
    area.fill("Unsaved.")
    page.wait_for_selector(f".sheet[data-run='{second}'][data-status=failed]")
    run_notes.set_notes(*at, {"hypothesis": "Theirs.", "setup": "Elsewhere."})
    page.unroute("**/notes")
    page.reload()  # the unsaved text is kept, and another one is there by now
    page.wait_for_selector(f".sheet[data-run='{second}'][data-status=conflict]")
    assert area.input_value() == "Unsaved." and "Theirs." in sheet.locator(".conflict blockquote").first.inner_text()
    assert sheet.locator("[data-part=setup] textarea").input_value() == "Elsewhere."
    sheet.get_by_role("button", name="Keep mine").click()
    page.wait_for_selector(f".sheet[data-run='{second}'][data-status=saved]")
    assert run_notes.get_notes(*at) == {
        "hypothesis": "Unsaved.", "setup": "Elsewhere.", "results": "", "conclusion": ""
    }  # fmt: skip
    area.fill("On the way out.")
    page.goto(f"/review?project={project.slug}")
    page.wait_for_selector("anchorage-review[data-state]")
    assert run_notes.get_notes(*at)["hypothesis"] == "On the way out."


def test_a_single_checkpoint_is_told_what_a_comparison_needs(page, project):
    def keep_one(route):
        (run, *_) = route.fetch().json()["runs"]
        route.fulfill(json={"runs": [{**run, "checkpoints": run["checkpoints"][:1], "sets": []}]})

    page.route(f"**/api/projects/{project.slug}/review", keep_one)
    page.goto(f"/compare?project={project.slug}")
    page.wait_for_selector("anchorage-compare[data-state=single]")
    text = page.locator(".wait").inner_text()
    assert "Train another run" in text and "choose" not in text
    assert page.locator("[data-pick=add]").is_disabled()


def test_missing_predictions_are_offered_followed_and_stopped(page, project, second):
    page.goto(f"/compare?project={project.slug}&split=test")
    page.wait_for_selector("anchorage-compare[data-state=missing]")
    job = {"id": 77, "kind": "predict", "state": "running", "error": "", "is_finished": False}
    jobs = iter([{"done": 0, "total": 0}, {"done": 1, "total": 3, "message": "predicting", "eta_s": 65}])
    stops = []

    def answer(route):
        if route.request.method == "POST":
            stops.append(route.request.url)
            job.update(state="cancelled", is_finished=True)
        route.fulfill(json={"job": {**job, "progress": next(jobs, {"done": 2, "total": 3, "eta_s": 20})}})

    page.route("**/jobs/77**", answer)
    page.route("**/prediction-sets", lambda route: route.fulfill(json={"job": job}))
    page.get_by_role("button", name="Predict test images").click()
    page.wait_for_selector("anchorage-compare[data-state=predicting]")
    page.get_by_text("1 min 5 s left").first.wait_for()
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector("anchorage-compare[data-state=missing]")
    assert stops and stops[0].endswith("/jobs/77/cancel")


def test_figures_that_take_long_are_followed_and_stopped(page, project, second):
    progress = {"done": 300, "total": 1000, "message": "Measuring the noise", "eta_s": 7}
    stops = []

    def answer(route):
        if route.request.method == "DELETE":
            stops.append(1)
            return route.fulfill(status=204)
        return route.fulfill(status=202, json={"state": "working", "progress": progress})

    page.route("**/compare/figures?**", answer)
    page.goto(f"/compare?project={project.slug}")
    page.get_by_text("Measuring the noise: 300 of 1000").wait_for()
    page.get_by_text("About 7 s left").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector("anchorage-compare[data-state=stopped]")
    assert stops == [1]
    page.unroute("**/compare/figures?**")
    page.get_by_role("button", name="Go on").click()
    page.wait_for_selector("anchorage-compare[data-state=ready]")
