"""The Train page in a browser. The run under way is a stand-in: its numbers are written by the test."""

import pytest

from app.jobs.locks import FileLock
from app.records import NewImage
from app.services import preflight, projects
from app.store import images, jobs, runs, settings
from tests.services.review_project import make_review_project

READY = "anchorage-train[data-ready=true]"
POINTS = "[data-chart=loss]"


class LiveRun:
    """A run that looks as if a process were at it."""

    def __init__(self, project, name):
        self.project = project
        self.database = project.services.database(project.slug)
        with self.database.write() as db:
            self.job = jobs.enqueue(db, "train", {})
            self.lock = FileLock(project.services.files(project.slug).job_lock(self.job.id))
            assert self.lock.acquire()
            self.id = runs.create_run(db, self.job.id, name, {"epochs": 10})
            # In one transaction: a worker that lives must not find it queued.
            db.execute("UPDATE job SET state = 'running', attempt = 1 WHERE id = ?", [self.job.id])

    def add_steps(self, first, last):
        with self.database.write() as db:
            points = [(self.id, step, 1, "train", "loss", 2.0 / step, step * 0.1) for step in range(first, last + 1)]
            runs.append_metrics(db, points)

    def end(self, state, error=""):
        jobs.finish(self.database, self.job.id, 1, state, error=error)
        self.lock.release()


@pytest.fixture(scope="module")
def project(app_server):
    return make_review_project(app_server.workspace)


@pytest.fixture
def live(project):
    run = LiveRun(project, "<img src=x onerror=alert(1)>")
    yield run
    if any(job.id == run.job.id for job in jobs.list_jobs(run.database, jobs.ACTIVE_STATES)):
        run.end("cancelled")


def open_page(page, project, query=""):
    page.goto(f"/train?project={project.slug}{query}")
    page.wait_for_selector(READY)


def wait_for_points(page, number):
    page.wait_for_selector(f"{POINTS}[data-points='{number}']")


def test_curve_grows_live_and_is_there_after_a_reload(page, project, live):
    live.add_steps(1, 5)
    open_page(page, project, f"&run={live.id}")
    wait_for_points(page, 10)  # raw and smoothed
    live.add_steps(6, 8)
    wait_for_points(page, 16)
    page.reload()
    wait_for_points(page, 16)
    assert page.locator("anchorage-train").get_attribute("data-state") == "running"


def test_only_newer_points_are_asked_for(page, project, live):
    live.add_steps(1, 5)
    open_page(page, project, f"&run={live.id}")
    wait_for_points(page, 10)
    with page.expect_response(lambda response: f"/runs/{live.id}/metrics" in response.url) as caught:
        pass
    assert caught.value.json()["series"] == {}
    assert "after=0" not in caught.value.url


def test_name_of_a_run_is_text(page, project, live):
    open_page(page, project, f"&run={live.id}")
    assert page.locator(f"[data-run='{live.id}'] .train-name").inner_text() == "<img src=x onerror=alert(1)>"
    assert page.locator("anchorage-train img").count() == 0


def test_two_runs_are_drawn_over_each_other(page, project, live):
    live.add_steps(1, 5)
    open_page(page, project, f"&run={live.id}")
    wait_for_points(page, 10)
    page.locator(f"[data-run='{project.run_id}'] [data-action=show]").check()
    wait_for_points(page, 5)  # the total loss alone, one line a run; the first run has no numbers
    assert f"runs={project.run_id}" in page.url


def test_failure_is_shown_with_its_reason(page, project, live):
    live.add_steps(1, 2)
    open_page(page, project, f"&run={live.id}")
    live.end("failed", "The loss became NaN.\nlast line")
    page.wait_for_selector("anchorage-train[data-state=failed]")
    assert "The loss became NaN." in page.locator(".train-notice").inner_text()


def test_what_to_do_about_a_failure_stands_apart_from_its_reason(page, project, live):
    open_page(page, project, f"&run={live.id}")
    live.end("failed", "No weights. Download https://a.b/c.pth and put it here as /tmp/x/c.pth, or choose none")
    page.wait_for_selector("anchorage-train[data-state=failed]")
    assert page.locator(".train-notice strong").inner_text() == "No weights."
    assert page.locator(".train-notice code").all_inner_texts() == ["https://a.b/c.pth", "/tmp/x/c.pth"]


def test_pace_of_a_run_that_is_over_is_its_last_real_one(page, project, live):
    with live.database.write() as db:
        points = [(live.id, step, 1, "system", "images_per_s", value, step) for step, value in [(1, 12.5), (2, 0.0)]]
        runs.append_metrics(db, points)
    live.end("done")
    open_page(page, project, f"&run={live.id}")
    assert page.locator(".train-figures div", has_text="Images/s").inner_text().split() == ["Images/s", "12.5"]


@pytest.mark.parametrize("num_images", [0, 1])
def test_nothing_can_be_started_without_labels(page, project, num_images):
    slug = projects.create_project(project.services, "Bare")
    with project.services.database(slug).write() as db:
        for number in range(num_images):
            images.insert(db, NewImage(f"{number}.png", f"{number:064x}", "png", 64, 48, "train", str(number), number))
    page.goto(f"/train?project={slug}")
    page.wait_for_selector(READY)
    assert page.locator("h2:visible, h3:visible").all_inner_texts() == ["No labeled images yet"]
    assert page.locator("[data-action=start]").count() == 0
    assert page.locator("anchorage-train a.primary:visible").inner_text() == (
        "Annotate" if num_images else "Import images"
    )


def test_wrong_value_is_told_at_its_field_and_put_back(page, project):
    open_page(page, project)
    page.fill("#option-epochs", "0")
    page.wait_for_selector("form[data-problems='1']")
    row = page.locator("[data-option=epochs]")
    assert "must be a whole number from 1 to 10000, got 0" in row.inner_text()
    assert "changed" in row.get_attribute("class")
    row.locator(".train-reset").click()
    page.wait_for_selector("form[data-problems='0']")
    assert "changed" not in row.get_attribute("class")


def test_checks_are_listed_with_words_and_mended_in_one_click(page, project):
    database = project.services.database(project.slug)
    memory = {
        "check": "memory",
        "title": "Memory",
        "level": "red",
        "text": "<b>Too</b> much.",
        "fix": {"batch_size": 1},
    }
    sizes = {"check": "sizes", "title": "Sizes", "level": "green", "text": "Fine.", "fix": {}, "action": ""}
    anchors = {**sizes, "check": "anchors", "level": "red", "action": "open_data"}
    overfit = {**sizes, "check": "overfit", "level": "amber", "action": "check_again"}
    phases = [{"train": "all", "epochs": 3, "learning_rate": 0.001}]
    time = {**sizes, "check": "time", "level": "amber", "fix": {"epochs": 3, "phases": phases}}
    with database.write() as db:
        job = jobs.enqueue(db, "preflight", {})
        db.execute("UPDATE job SET state = 'done', attempt = 1 WHERE id = ?", [job.id])
        report = {
            **preflight.new_report(job.id, {"batch_size": 4}, 7),
            "verdicts": [sizes, memory, anchors, time, overfit],
        }
        settings.put(db, preflight.REPORT, report)
    open_page(page, project)
    page.locator(".train-preflight summary", has_text="1 good · 2 notes · 2 problems").click()
    row = page.locator("[data-check=memory]")
    assert row.locator(".train-mark").inner_text().split() == ["✕", "problem"]
    assert "<b>Too</b> much." in row.inner_text()
    row.locator("[data-action=apply-fix]", has_text="Use batch size 1").click()
    assert page.input_value("#option-batch_size") == "1"
    assert "check again" in page.locator(".train-preflight").inner_text()
    page.locator("[data-check=time] [data-action=apply-fix]", has_text="Use epochs 3, phases all 3").click()
    assert page.input_value("#option-epochs") == "3"
    assert page.get_attribute("[data-check=anchors] [data-action=open_data]", "href").startswith("/data?project=")
    assert page.locator("[data-check=sizes] :is(button, a)").count() == 0
    before = page.get_attribute(".train-preflight", "data-state")
    page.click("[data-check=overfit] [data-action=check_again]")
    page.wait_for_selector(f".train-preflight:not([data-state={before}])")


def test_changed_options_outlive_a_visit_to_another_page(page, project):
    open_page(page, project)
    page.fill("#option-epochs", "7")
    page.fill("[aria-label='Name of the run']", "Small boxes")
    page.goto(f"/augment?project={project.slug}")
    open_page(page, project)
    assert page.input_value("#option-epochs") == "7"
    assert page.input_value("[aria-label='Name of the run']") == "Small boxes"


def test_how_curves_are_drawn_outlives_a_reload(page, project, live):
    live.add_steps(1, 5)
    open_page(page, project, f"&run={live.id}")
    page.select_option("[aria-label='Horizontal axis']", "elapsed_s")
    page.uncheck(".train-toolbar input")
    wait_for_points(page, 5)
    page.reload()
    wait_for_points(page, 5)
    assert page.input_value("[aria-label='Horizontal axis']") == "elapsed_s"
    assert not page.is_checked(".train-toolbar input")


def test_waiting_runs_show_their_place_and_what_they_logged_before(page, project, live):
    """Their states are laid over the answers: a worker would take what waits in truth."""
    other = LiveRun(project, "Other")
    log = project.services.files(project.slug).job_log(live.job.id)
    log.parent.mkdir(exist_ok=True)
    log.write_text("line of the first attempt\n")
    ranks = {live.id: 2, other.id: 1}

    def answer(route):
        reply = route.fetch()
        listed = reply.json()["runs"]
        waiting = [
            {**run, "state": "queued", "rank": ranks[run["id"]]} if run["id"] in ranks else run for run in listed
        ]
        route.fulfill(response=reply, json={"runs": waiting})

    def move(route):
        ranks[live.id] = 0
        route.fulfill(json={})

    page.route(f"**/api/projects/{project.slug}/runs", answer)
    page.route(f"**/runs/{live.id}/move", move)
    try:
        open_page(page, project, f"&run={live.id}")
        page.wait_for_function("document.querySelector('.train-log').textContent.includes('first attempt')")
        row = page.locator(f"[data-run='{live.id}']")
        assert row.locator(".a-chip").inner_text() == "queued, 2nd"
        row.locator("[data-action=move-front]").focus()
        page.keyboard.press("Enter")
        row.locator(".a-chip", has_text="queued, 1st").wait_for()
        assert page.evaluate("document.activeElement.closest('[data-run]')?.dataset.run") == str(live.id)
    finally:
        other.end("cancelled")


def test_run_is_deleted_after_asking(page, project, live):
    live.end("cancelled")
    open_page(page, project, f"&run={live.id}")
    page.click(f"[data-run='{live.id}'] [data-action=delete]")
    page.click("dialog [data-action=confirm]")
    page.wait_for_selector(f"[data-run='{live.id}']", state="detached")
    assert live.id not in [run.id for run in runs.list_runs(live.database)]


def test_nothing_is_cut_off(page, project, live):
    live.add_steps(1, 5)
    open_page(page, project, f"&run={live.id}")
    wait_for_points(page, 10)
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow == 0
    assert page.evaluate("document.documentElement.scrollHeight") == 720
    page.set_viewport_size({"width": 1024, "height": 700})
    cell = page.locator(f"[data-run='{live.id}'] .train-epochs > div")
    assert cell.evaluate("cell => cell.clientHeight") <= 28, "epochs take several lines"
    legend = page.locator("[data-chart=loss] .chart-legend")
    assert legend.evaluate("legend => legend.scrollHeight - legend.clientHeight") == 0
    page.set_viewport_size({"width": 1280, "height": 720})
    model, pretrained = (page.locator(f"#option-{name}").bounding_box() for name in ("model", "pretrained"))
    assert model["x"] + model["width"] == pytest.approx(pretrained["x"] + pretrained["width"], abs=1)
    start = page.locator("[data-action=start]").bounding_box()
    assert start["y"] + start["height"] <= 720


# Elements of the form whose text, or longest choice, is wider than their place.
CUT_OFF = """() => [...document.querySelectorAll(".train-form :is(label, button, a, span, select)")].filter((node) => {
  if (!node.offsetWidth || getComputedStyle(node).display === "inline") return false;
  const style = getComputedStyle(node);
  const pen = Object.assign(document.createElement("canvas").getContext("2d"), { font: style.font });
  const room = node.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  const wanted = Math.max(0, ...[...(node.options ?? [])].map((option) => pen.measureText(option.text).width));
  return node.scrollWidth > node.clientWidth + 1 || wanted > room;
}).map((node) => node.id || node.textContent)"""


def test_no_word_of_the_form_is_cut_off(page, project):
    open_page(page, project)
    page.wait_for_selector("form[data-problems='0'][data-steps]")
    page.evaluate("for (const part of document.querySelectorAll('.train-form details')) part.open = true")
    assert page.evaluate(CUT_OFF) == []
    assert page.locator("#option-model").inner_text().split("\n") == ["ResNet-18 FPN v1", "28.3 M"]


def test_transformer_takes_a_lower_rate_and_a_higher_one_is_warned_of(page, project):
    open_page(page, project)
    page.wait_for_selector("form[data-problems='0'][data-steps]")
    usual = page.input_value("#option-learning_rate")
    page.click("#option-model")
    page.click(".model-picker-dialog [data-model=fasterrcnn_swin_t_fpn]")
    page.click("[data-action=done]")
    page.wait_for_function("document.querySelector('#option-learning_rate').value === '0.0001'")
    page.fill("#option-learning_rate", usual)
    page.wait_for_selector("form[data-problems='0'][data-warnings='1']")
    assert "high for a transformer" in page.locator("[data-option=learning_rate] .a-warning").inner_text()
    page.reload()
    page.wait_for_selector("form[data-warnings='1']")
    assert page.input_value("#option-learning_rate") == usual
    page.locator("[data-option=learning_rate] .train-reset").click()
    page.wait_for_selector("form[data-warnings='0']")
    assert page.input_value("#option-learning_rate") == "0.0001"


def test_weights_that_are_not_published_are_refused_at_their_field(page, project):
    open_page(page, project)
    page.select_option("#option-pretrained", "network")
    page.wait_for_selector("form[data-problems='1']")
    assert "not published" in page.locator("[data-option=pretrained] .a-error").inner_text()
    assert page.locator(".train-form-foot .a-error").inner_text() == ""


def choose_preset(page, name):
    page.select_option("[aria-label=Preset]", name)
    page.wait_for_selector("form[data-problems='0'][data-steps]")


def test_preset_is_shown_as_differences_from_the_suggested(page, project):
    open_page(page, project)
    assert page.locator(".train-differences").is_hidden()
    choose_preset(page, "mask_rcnn_by_hand")
    count = int(page.get_attribute("form", "data-differences"))
    assert count > 4
    page.click(".train-differences > summary")
    assert f"{count} options differ from the suggested" in page.locator(".train-differences").inner_text()
    page.click(".train-difference:has-text('Phases')")
    assert page.locator("[data-option=phases]").is_visible()


def test_preset_whose_weights_are_missing_starts_from_scratch_with_one_click(page, project):
    open_page(page, project)
    choose_preset(page, "nuclei")
    assert "resnext101_32x8d" in page.locator(".train-needs").inner_text()
    page.click("[data-action=from-scratch]")
    assert page.input_value("#option-pretrained") == "none"
    assert page.locator(".train-needs").is_hidden()


def test_phases_are_edited_in_rows_and_make_up_the_epochs(page, project):
    open_page(page, project)
    page.fill("#option-epochs", "9")
    page.click("[data-group=Schedule] details > summary")
    page.click("[data-action=add-phase]")
    page.wait_for_selector("form[data-problems='0']")
    page.fill("[aria-label='Phase 2: epochs']", "12")
    assert page.input_value("#option-epochs") == "16"
    assert page.locator("#option-learning_rate").is_disabled()
    page.click("[aria-label='Remove phase 2']")
    page.click("[aria-label='Remove phase 1']")
    assert page.locator("#option-learning_rate").is_enabled()


def checked_options(request):
    """The options that a request asks the server about; {} for any other request. An earlier change may still come."""
    return request.post_data_json["config"] if request.url.endswith("/config/check") else {}


def test_lists_and_numbered_choices_reach_the_server_as_numbers(page, project):
    open_page(page, project)
    page.click("[data-group=Anchors] details > summary")
    page.select_option("#option-anchors", "custom")
    page.fill("#option-anchor_sizes", "16, 32; 64")
    page.click("[data-group=Model] details > summary")
    with page.expect_request(lambda request: checked_options(request).get("channels") == 1) as caught:
        page.select_option("#option-channels", "1")
    config = checked_options(caught.value)
    assert config["anchor_sizes"] == [16, 32, 64]
    assert config["channels"] == 1
    page.wait_for_selector("form[data-problems='0']")
    page.fill("#option-anchor_sizes", "16, x")
    page.wait_for_selector("form[data-problems='1']")


def test_options_without_effect_are_out_of_sight(page, project):
    open_page(page, project)
    page.click("[data-group=Schedule] details > summary")
    assert page.locator("[data-option=milestones]").is_hidden()
    page.select_option("#option-schedule", "multistep")
    assert page.locator("[data-option=milestones]").is_visible()
    assert page.locator("[data-option=final_learning_rate]").is_hidden()


def test_run_that_goes_on_is_drawn_from_its_saved_step(page, project, live):
    """Numbers that were taken back must not stay in the curve, nor be missed because their ids come again."""
    live.add_steps(1, 8)
    open_page(page, project, f"&run={live.id}")
    wait_for_points(page, 16)
    with live.database.write() as db:
        runs.cut_back(db, live.id, step=5, judged_step=0, epoch=0)
    live.add_steps(6, 6)
    wait_for_points(page, 12)
    live.add_steps(7, 9)
    wait_for_points(page, 18)


def test_run_is_paused_and_its_way_back_is_offered(page, project, live):
    open_page(page, project, f"&run={live.id}")
    row = page.locator(f"[data-run='{live.id}']")
    row.locator("[data-action=pause]").click()
    page.wait_for_selector("anchorage-train[data-state=stopping]")
    assert row.locator("[data-action=stop]").inner_text() == "Pausing…"
    live.end("paused")
    page.wait_for_selector("anchorage-train[data-state=paused]")
    assert row.locator("[data-action=resume]").is_visible()
    assert "Paused." in page.locator(".train-notice").inner_text()


def test_hung_run_says_what_to_do_and_can_be_stopped(page, project, live):
    sentence = "No sign of life for 2 minutes: it may hang. Look at the log, or stop it."
    live.add_steps(1, 5)
    jobs.set_hung(live.database, live.job.id, 1, sentence)
    open_page(page, project, f"&run={live.id}")
    page.wait_for_selector(".train-notice.warn")
    assert sentence in page.locator(".train-notice").inner_text()
    row = page.locator(f"[data-run='{live.id}']")
    assert row.locator(".a-chip").inner_text() == "hung"
    row.locator("[data-action=stop]").click()
    page.click("dialog [data-action=confirm]")
    page.wait_for_selector("anchorage-train[data-state=stopping]")
    assert jobs.get_job(live.database, live.job.id).stop_as == "cancelled"


def test_time_that_the_model_waits_for_images_is_told_with_what_helps(page, project, live):
    def report(step, waiting):
        shares = {
            "data": waiting,
            "forward": 0.4,
            "backward": 0.5 - waiting,
            "optimizer": 0.1,
            "evaluation": 0,
            "other": 0,
        }
        points = [(live.id, step, 1, "system", f"share_{part}", share, step * 10.0) for part, share in shares.items()]
        with live.database.write() as db:
            runs.append_metrics(db, points)

    live.add_steps(1, 5)
    for step, waiting in ((1, 0.4), (2, 0.01)):  # the first report is about loading
        report(step, waiting)
    open_page(page, project, f"&run={live.id}")
    page.wait_for_selector(".train-time")
    assert "waiting for images 1 %" in page.locator(".train-time-bar").get_attribute("aria-label")
    assert page.locator(".train-time-advice").is_hidden()
    assert "The backward pass takes 49 %" in page.locator(".train-time-hint").inner_text()
    report(3, 0.3)
    page.wait_for_selector(".train-time-advice")
    assert (
        "The model waits for images 16 % of the time: more workers" in page.locator(".train-time-advice").inner_text()
    )
