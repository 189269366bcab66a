"""Anchor recall in the form of a new run."""

import pytest

from tests.services.review_project import make_review_project

READY = ".anchor-panel[data-state=ready]"


@pytest.fixture(scope="module")
def project(app_server):
    return make_review_project(app_server.workspace)


def open_panel(page, project):
    page.goto(f"/train?project={project.slug}")
    page.wait_for_selector("anchorage-train[data-ready=true]")
    page.click("[data-group=Anchors] summary")
    page.wait_for_selector(READY)


def test_recall_of_stock_and_proposed_anchors_is_shown_and_the_proposal_can_be_taken(page, project):
    open_panel(page, project)
    assert page.locator(".anchor-panel thead .chosen").inner_text() == "Stock"
    proposed = page.locator("[data-recall=kmeans-all-at_50]").inner_text()
    assert proposed.endswith("%")
    page.click("[data-action=use-kmeans]")
    page.wait_for_selector(".anchor-panel thead .chosen:has-text('KMeans')")
    assert page.input_value("#option-anchors") == "kmeans"
    assert page.locator("[data-recall=kmeans-all-at_50]").inner_text() == proposed


def set_image_size(page, value):
    """Scrolls to the option, and back: the panel asks only while it is seen."""
    page.fill("#option-image_size", str(value))
    page.locator(".anchor-panel").scroll_into_view_if_needed()


def test_recall_follows_the_image_size_and_waits_while_it_is_wrong(page, project):
    open_panel(page, project)
    set_image_size(page, 33)
    page.wait_for_selector(".anchor-panel[data-state=problem]")
    assert "multiple of 32" in page.locator(".anchor-panel").inner_text()
    set_image_size(page, 640)
    page.wait_for_selector(READY)
    assert "at 640 px" in page.locator(".anchor-panel").inner_text()


def test_nothing_is_measured_before_the_panel_is_seen(page, project):
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/config/anchors") else None)
    page.goto(f"/train?project={project.slug}")
    page.wait_for_selector("anchorage-train[data-ready=true]")
    with page.expect_response(lambda response: response.url.endswith("/config/check")):
        page.fill("#option-epochs", "7")
    assert asked == []
