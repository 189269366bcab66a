import re

import pytest
from playwright.sync_api import expect

from app.pipeline.ensemble import FusionOptions
from app.store import jobs, predictions, runs
from tests.services.review_project import make_review_project

JOB_MS = 60_000
OUTCOME = re.compile("Gain|Within the noise|Worse")
SWEEP = """customElements.define("anchorage-sweep", class extends HTMLElement {
  set runId(id) { this.dataset.run = id; }
})"""


@pytest.fixture(scope="module")
def project(app_server):
    """With a second run, whose images have other labels; predicting with the first took 12 ms an image."""
    project = make_review_project(app_server.workspace, num_valid=24)
    files, database = project.services.files(project.slug), project.services.database(project.slug)
    with database.write() as db:
        other = runs.create_run(db, jobs.enqueue(db, "train", {}).id, "Other labels", {})
        db.execute("UPDATE job SET state = 'done'")
        db.execute("UPDATE prediction_set SET ms_per_image = 12, device = 'a small machine'")
        runs.put_checkpoint(
            db, other, epoch=1, step=1, file_name="a.pt", sha256="b" * 64, map50=0.1, f1=0.1, score=0.1, is_last=False
        )
    labels = (files.run(project.run_id) / "dataset.json").read_bytes().replace(b'"Red cell"', b'"Blue cell"')
    files.run(other).mkdir(parents=True)
    (files.run(other) / "dataset.json").write_bytes(labels)
    return project


def test_one_click_fuses_the_best_three_and_the_lab_finds_out_more(page, project):
    page.add_init_script(SWEEP)
    page.goto(f"/ensemble?project={project.slug}&run={project.run_id}")
    page.wait_for_selector("anchorage-ensemble[data-state=ready][data-chosen='3']")
    page.get_by_text("Other members, method and thresholds").click()
    assert page.get_by_role("slider", name="Boxes overlapping more are one object").is_visible()
    for number in project.checkpoint_ids[1:3]:
        page.locator(f"[data-checkpoint='{number}']").uncheck()
    expect(page.get_by_role("button", name="Fuse checkpoints")).to_be_disabled()
    for number in project.checkpoint_ids[1:3]:
        page.locator(f"[data-checkpoint='{number}']").check()
    page.get_by_role("button", name="Fuse the best three").click()
    page.wait_for_selector("anchorage-ensemble[data-state=ready][data-set]", timeout=JOB_MS)
    rows = page.locator("anchorage-ensemble > .ensemble .judged tbody tr")
    assert rows.count() == 4
    assert rows.last.inner_text().startswith("Ensemble: WBF of 3")
    assert page.locator("[data-figure=cost]").all_inner_texts() == ["12", "12", "12", "36"]
    expect(page.locator("anchorage-ensemble > .ensemble")).to_contain_text("while predicting on a small machine.")
    assert page.locator("anchorage-ensemble > .ensemble .judged .best").count() >= 4
    chip = page.locator("anchorage-ensemble > .ensemble .verdict .a-chip")
    expect(chip).to_have_text(OUTCOME, timeout=JOB_MS)  # once the noise is measured
    assert page.get_attribute("anchorage-ensemble", "data-outcome") == chip.get_attribute("data-outcome")
    assert "95 % interval" in page.locator("anchorage-ensemble > .ensemble .verdict").inner_text()
    link = page.get_by_role("link", name="Compare with its best member").get_attribute("href")
    shown = page.get_attribute("anchorage-ensemble", "data-set")
    assert re.search(rf"sides=checkpoint-\d+%2Cset-{shown}&split=valid$", link)
    assert page.get_attribute("anchorage-sweep", "data-run") == str(project.run_id)

    foreign = page.locator(".lab [data-run] .reason")
    expect(foreign).to_contain_text("cannot be fused")
    assert page.locator(".lab .foreign input").is_disabled()
    for number in project.checkpoint_ids[1:3]:
        page.locator(f".lab [data-checkpoints='{number}']").uncheck()
    expect(page.locator("[data-action=run-lab]")).to_be_disabled()
    assert "two members or more" in page.locator(".lab .choice").inner_text()
    for number in project.checkpoint_ids[1:3]:
        page.locator(f".lab [data-checkpoints='{number}']").check()
    page.locator("[data-views=flip]").check()
    expect(page.locator(".lab .choice")).to_contain_text("Not predicted yet: 3 × flip")
    page.locator("[data-views=flip]").uncheck()
    page.locator("[data-action=run-lab]").click()
    page.wait_for_selector("[data-lab-state=running]")
    page.reload()  # the lab goes on, and so does looking at it
    page.wait_for_selector(".lab[data-lab-state=ready][data-lab]", timeout=JOB_MS)
    read_the_lab(page)

    number = page.get_attribute(".lab", "data-lab")
    assert f"lab={number}" in page.url
    page.locator("[data-use='1']").click()
    title = page.locator("anchorage-ensemble > .ensemble .ensemble-row td").first
    expect(title).to_have_text("Ensemble: NMS of 3, tuned", timeout=JOB_MS)
    threshold = float(page.locator("[data-method=nms] td").nth(7).inner_text())
    page.get_by_role("link", name="Review the ensemble").click()
    page.wait_for_selector("anchorage-review[data-state=ready]")
    assert page.get_by_label("Predictions of").input_value().startswith("set-")
    shown = page.locator("anchorage-review input[type=range]").first.input_value()
    assert float(shown) == pytest.approx(threshold, abs=0.011)


def read_the_lab(page):
    assert page.locator(".lab-methods [data-method]").count() == 4
    assert page.locator(".lab-methods [data-best=true] .a-chip").inner_text() == "Best"
    assert OUTCOME.fullmatch(page.locator(".lab-result > .verdict .a-chip").inner_text())
    halves = page.get_attribute(".lab [data-halves]", "data-halves").split("/")
    assert sum(map(int, halves)) == 24
    assert page.locator("[data-contribution]").count() == 3
    assert page.locator(".smallest").inner_text() != ""
    assert "while predicting on a small machine." in page.locator(".lab-result").inner_text()
    assert page.locator(".lab [data-action=measure]").count() == 0


def test_ensemble_page_shows_the_split_that_is_chosen(page, project):
    """Beside a result on one split the control never names another."""
    database = project.services.database(project.slug)
    with database.write() as db:
        common = {"run_id": project.run_id, "detections": {}, "snapshot_sha256": "a" * 64, "name": "WBF of 2"}
        options = FusionOptions(iou_threshold=0.6).model_dump(mode="json")
        ids = {
            split: predictions.store_predictions(
                db, **common, split=split, members=project.set_ids[:2], options=options
            )
            for split in ("valid", "test")
        }
    shown = "anchorage-ensemble[data-state=ready][data-set='{}']"
    page.goto(f"/ensemble?project={project.slug}&set={ids['test']}")
    page.wait_for_selector(shown.format(ids["test"]))
    split = page.locator("[data-pick=split]")
    assert split.input_value() == "test"
    split.select_option("valid")
    page.wait_for_selector(shown.format(ids["valid"]))
    page.get_by_role("button", name="IoU 0.6, test").click()
    page.wait_for_selector(shown.format(ids["test"]))
    assert split.input_value() == "test"
    split.select_option("train")
    page.wait_for_selector("anchorage-ensemble:not([data-set])")
    assert "No ensemble judged on train yet" in page.locator("anchorage-ensemble").inner_text()
