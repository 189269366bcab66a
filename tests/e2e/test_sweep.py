"""The checkpoint sweep in a real browser; its job is played by the test, as the project's weights are made up."""

import json

from app.services import sweeping
from app.store import predictions, runs
from tests.services.review_project import make_review_project


def add_soups(project):
    """Both soups as a sweep leaves them, with the predictions of the first two checkpoints."""
    database, folder = project.services.database(project.slug), project.services.files(project.slug).run(project.run_id)
    steps = sweeping.missing_steps(project.services, project.slug, project.run_id, "valid")
    for step, set_id in zip((step for step in steps if step.recipe), project.set_ids, strict=False):
        found = predictions.read_detections(database, set_id)
        with database.write() as db:
            values = {"epoch": 4, "step": 1, "sha256": "b" * 64, "map50": None, "f1": None, "score": None}
            soup = runs.put_checkpoint(db, project.run_id, file_name=step.file_name, is_last=False, **values)
            predictions.store_predictions(
                db,
                run_id=project.run_id,
                split="valid",
                detections=found,
                snapshot_sha256="a" * 64,
                checkpoint_id=soup,
            )
        sweeping.write_members(folder / step.file_name, step.members[:2])


def test_sweep_is_followed_stopped_and_shown_with_its_soups(page, app_server):
    project = make_review_project(app_server.workspace)
    with project.services.database(project.slug).write() as db:
        runs.remove_checkpoints(db, project.run_id, [last_name(project)])
    job = {"id": 77, "kind": "sweep", "state": "running", "payload": {"run_id": project.run_id, "split": "valid"}}
    job |= {"progress": {"done": 5, "total": 20, "message": "Mixing the greedy soup", "eta_s": 75}, "error": ""}
    answer = json.dumps({"job": job})
    page.route(
        "**/api/projects/*/runs/*/sweep", lambda route: route.fulfill(body=answer, content_type="application/json")
    )
    page.route("**/api/projects/*/jobs/77", lambda route: route.fulfill(json={"job": job}))
    page.route(
        "**/api/projects/*/jobs/77/cancel", lambda route: (job.update(state="cancelled"), route.fulfill(json={}))
    )

    page.goto(f"/ensemble?project={project.slug}&run={project.run_id}")
    page.wait_for_selector("anchorage-sweep[data-state=partial][data-rows='3']")
    page.get_by_role("button", name="Judge the rest").click()
    page.wait_for_selector("anchorage-sweep[data-state=sweeping]")
    page.get_by_text("Mixing the greedy soup: 5 of 20").wait_for()
    page.get_by_text("About 1 min 15 s left").wait_for()
    assert page.get_by_role("progressbar", name="Judging on valid").get_attribute("aria-valuenow") == "25"
    assert page.locator(".a-job [role=status]").inner_text() == "Mixing the greedy soup"  # what is read out
    add_soups(project)
    page.locator("anchorage-sweep").get_by_role("button", name="Stop").click()
    page.wait_for_selector("anchorage-sweep[data-state=ready][data-rows='5']")
    page.wait_for_selector("anchorage-sweep[data-noise=ready]")
    table = sweeping.sweep_table(project.services, project.slug, project.run_id)
    assert table["is_measured"]
    told = page.locator(".sweep .judged .words")
    assert told.all_inner_texts() == [row["noise"]["words"] for row in table["rows"][1:]]
    assert [("a-muted" in cell.get_attribute("class")) for cell in told.all()] == [
        row["noise"]["outcome"] == "noise" for row in table["rows"][1:]
    ]
    assert page.locator(".sweep .verdict").inner_text() == table["verdict"].replace("-0", "−0")
    names = page.locator(".sweep tbody td:first-child a")
    assert names.all_inner_texts() == [row["name"] for row in table["rows"]]
    assert names.first.get_attribute("href").endswith(f"set={table['rows'][0]['set']}")
    # Three epochs and two soups, for each of two classes and for all of them.
    assert page.locator(".sweep .curves").get_attribute("data-points") == str(3 * (3 + 2))
    # Of more classes than lines can be told apart the others are drawn when their name is pressed; the table has all.
    given = [{"name": f"class {number}", "ap50": 0.5} for number in range(12)]
    many = table | {"rows": [row | {"per_class": given} for row in table["rows"]]}
    page.route("**/sweep?split=*", lambda route: route.fulfill(json=many))
    page.eval_on_selector("anchorage-sweep", "sweep => { sweep.runId = sweep.runId; }")
    page.get_by_text("The first 10 classes are drawn").wait_for()
    assert page.locator(".sweep .judged th").all_inner_texts()[8:] == [entry["name"] for entry in given]
    legend = page.locator(".sweep .chart-legend button")
    assert [entry.get_attribute("aria-pressed") for entry in legend.all()] == ["true"] * 11 + ["false"] * 2
    legend.last.click()
    assert legend.last.get_attribute("aria-pressed") == "true"
    shown = "document.querySelector('anchorage-sweep').chart.plot.series.filter(({ show }) => show).length"
    assert page.evaluate(shown) == 1 + 12 * 3  # the axis; all classes and eleven of them, each with its two soups
    page.unroute("**/sweep?split=*")

    page.get_by_label("Images to judge on").select_option("test")
    page.wait_for_selector("anchorage-sweep[data-state=partial][data-split=test][data-rows='0']")
    assert "sweep=test" in page.url
    # A run without test images offers nothing that it cannot be judged on.
    page.eval_on_selector(
        "anchorage-sweep", "sweep => { sweep.splits = { valid: 12, test: 0 }; sweep.runId = sweep.runId; }"
    )
    page.wait_for_selector("anchorage-sweep[data-state=ready][data-split=valid]")
    assert page.get_by_label("Images to judge on").locator("option").all_inner_texts() == ["valid"]


def last_name(project):
    """The file of the last checkpoint, which nobody has judged."""
    known = runs.list_checkpoints(project.services.database(project.slug), project.run_id)
    return next(item.file_name for item in known if item.is_last)
