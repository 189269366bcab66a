import re

import pytest
from playwright.sync_api import expect

from app.pipeline.ensemble import FusionOptions
from app.services import review
from app.store import jobs, predictions, runs
from tests.services.review_project import make_review_project
from tests.services.test_comparing import add_run

JOB_MS = 60_000
OUTCOME = re.compile("Gain|Within the noise|Worse")
SWEEP = """customElements.define("anchorage-sweep", class extends HTMLElement {
  set runId(id) { this.dataset.run = id; }
})"""


@pytest.fixture(scope="module")
def project(app_server):
    """With a second run of other classes, and a third for which boxes of valid were mended and test lost an image.

    Predicting with the first took 12 ms an image.
    """
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
    with database.write() as db:
        db.execute("UPDATE annotation SET x1 = x1 / 2 WHERE image_id = ?", [project.image_ids["valid"][0]])
        db.execute("UPDATE image SET split = 'train' WHERE id = ?", [project.image_ids["test"][0]])
    add_run(project, {}, project.set_ids[1], [0.5], name="Mended labels")
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

    # The newest run comes last: what will be fused is in sight.
    assert page.locator(".lab-list [data-run]").first.get_attribute("data-run") == str(project.run_id)
    foreign = page.locator(".lab [data-run] .reason")  # of one run only: other labels are no hindrance
    expect(foreign).to_have_text(
        "Other classes, or other images of valid, than the chosen ones have: their predictions cannot be fused."
    )
    assert page.locator(".lab .foreign input").is_disabled()
    mended = page.locator(".lab [data-run='3'] [data-checkpoints]")
    mended.check()
    page.select_option("[data-pick=lab-split]", "test")
    expect(page.locator(".lab .choice")).to_contain_text(
        "First run has other classes, or other images of test, than Mended labels"
    )
    expect(page.locator("[data-action=run-lab]")).to_be_disabled()
    mended.uncheck()
    expect(mended).to_be_disabled()
    page.select_option("[data-pick=lab-split]", "valid")
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
    return_to_the_former_lab(page, project, number)
    page.locator("[data-use='1']").click()
    title = page.locator("anchorage-ensemble > .ensemble .ensemble-row td").first
    expect(title).to_have_text("Ensemble: NMS of 3, tuned", timeout=JOB_MS)
    page.reload()  # the options are those of the ensemble that is open
    method, hint = page.locator("[data-pick=method]"), page.locator("anchorage-ensemble > .ensemble .go + .note")
    expect(hint).to_have_text("The checkpoints with the best scores, by non-maximum suppression.")
    page.get_by_text("Other members, method and thresholds").click()
    expect(method).to_have_value("nms")
    iou = page.get_by_role("slider", name="Boxes overlapping more are one object")
    expect(page.locator("[data-method=nms] .note")).to_contain_text(f"IoU {float(iou.input_value()):g}")
    method.select_option("soft_nms")
    expect(iou).to_be_hidden()
    expect(hint).to_contain_text("by soft-NMS.")
    threshold = float(page.locator("[data-method=nms] td").nth(7).inner_text())
    page.get_by_role("link", name="Review the ensemble").click()
    page.wait_for_selector("anchorage-review[data-state=ready]")
    assert page.get_by_label("Predictions of").input_value().startswith("set-")
    shown = page.locator("anchorage-review input[type=range]").first.input_value()
    assert float(shown) == pytest.approx(threshold, abs=0.011)


def return_to_the_former_lab(page, project, number):
    """Another lab, a copy of the one that is shown, is a place of its own."""
    with project.services.database(project.slug).write() as db:
        names = ", ".join(name for name in db["job"].columns_dict if name != "id")
        db.execute(f"INSERT INTO job ({names}) SELECT {names} FROM job WHERE id = ?", [number])
    page.reload()
    page.locator("[data-open-lab]").click()
    page.wait_for_selector(f".lab[data-lab]:not([data-lab='{number}'])")
    assert f"lab={number}" not in page.url
    page.evaluate("window.isSamePage = true")
    page.go_back()
    page.wait_for_selector(f".lab[data-lab='{number}']")
    page.go_forward()
    page.wait_for_selector(f".lab[data-lab]:not([data-lab='{number}'])")
    page.go_back()
    page.wait_for_selector(f".lab[data-lab='{number}']")
    assert f"lab={number}" in page.url and page.evaluate("window.isSamePage")


def read_the_lab(page):
    assert page.locator(".lab-methods [data-method]").count() == 4
    assert page.locator(".lab-methods [data-best=true] .a-chip").inner_text() == "Best"
    assert OUTCOME.fullmatch(page.locator(".lab-result > .verdict .a-chip").inner_text())
    halves = page.get_attribute(".lab [data-halves]", "data-halves").split("/")
    assert sum(map(int, halves)) == 24
    assert page.locator("[data-contribution]").count() == 3
    smallest = """async (outcome) => {
      const number = document.querySelector(".lab").dataset.lab;
      const { labResult } = await import("/widgets/ensemble_lab_result.js");
      const { getJSON, projectURL } = await import("/widgets/api.js");
      const { lab } = await getJSON(projectURL(`/ensemble-labs/${number}`));
      const found = { ...lab, outcome, smallest: { ...lab.smallest, members: [0, 1, 2] } };
      return labResult(found, {}).querySelector(".smallest").textContent;
    }"""
    assert page.evaluate(smallest, "gain").startswith("All 3 members are needed: ")
    assert page.evaluate(smallest, "noise").startswith("To fuse all the same, all 3 members are needed: ")
    assert "while predicting on a small machine." in page.locator(".lab-result").inner_text()
    assert page.locator(".lab [data-action=measure]").count() == 0


def test_an_ensemble_of_runs_with_other_labels_tells_whose_count(page, project):
    mended = review.overview(project.services, project.slug)[0]
    with project.services.database(project.slug).write() as db:
        number = predictions.store_predictions(
            db,
            run_id=mended["id"],
            split="valid",
            detections={},
            snapshot_sha256="a" * 64,
            name="WBF of 2",
            members=[project.set_ids[0], mended["sets"][0]["id"]],
            options=FusionOptions(iou_threshold=0.6).model_dump(mode="json"),
        )
    page.goto(f"/ensemble?project={project.slug}&set={number}")
    page.wait_for_selector(f"anchorage-ensemble[data-state=ready][data-set='{number}']")
    told = "Judged on the labels of run 3 (Mended labels); 1 image of valid was relabeled since run 1 (First run)."
    note = page.locator("anchorage-ensemble > .ensemble .truth")
    expect(note).to_have_text(told)
    assert note.get_attribute("data-labels-of") == "3"
    page.wait_for_selector(".lab[data-lab]")  # its members are of the first run
    runs_listed = page.locator(".lab-list [data-run]")
    assert [item.get_attribute("data-run") for item in runs_listed.all()] == ["3", str(project.run_id), "2"]
    page.get_by_role("link", name="Compare with its best member").click()
    page.wait_for_selector("anchorage-compare[data-state=ready]", timeout=JOB_MS)
    expect(page.locator("anchorage-compare .figures")).to_contain_text(told)


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
    page.reload()
    page.get_by_text("No ensemble judged on train yet").wait_for()
    page.evaluate("window.isSamePage = true")
    for name in ("test", "valid", "test"):  # each set that was chosen is a place to come back to
        page.go_back()
        page.wait_for_selector(shown.format(ids[name]))
        assert split.input_value() == name and f"set={ids[name]}" in page.url
    for _ in range(3):
        page.go_forward()
    page.get_by_text("No ensemble judged on train yet").wait_for()
    assert split.input_value() == "train"
    page.go_back()
    page.wait_for_selector(shown.format(ids["test"]))
    page.locator("[data-pick=run]").select_option(label="Other labels")
    page.wait_for_selector("anchorage-ensemble:not([data-set])")
    page.go_back()
    page.wait_for_selector(shown.format(ids["test"]))
    assert page.evaluate("window.isSamePage")
