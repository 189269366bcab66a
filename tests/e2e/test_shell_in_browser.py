"""The bar on top, light and dark, and that no page asks anything of the outside."""

import pytest

from app.services import projects
from app.services.context import Services
from app.store.files import Workspace

PAGES = ["/", "/data", "/annotate", "/augment", "/train", "/review", "/compare", "/audit", "/ensemble", "/export"]


@pytest.fixture(scope="module")
def project(app_server):
    import httpx

    headers = {"Authorization": f"Bearer {app_server.token}"}
    answer = httpx.post(f"{app_server.url}/api/projects", json={"name": "Frame ${1} <b>x</b>"}, headers=headers)
    answer.raise_for_status()
    slugs = [
        project["slug"] for project in httpx.get(f"{app_server.url}/api/projects", headers=headers).json()["projects"]
    ]
    return next(slug for slug in slugs if slug.startswith("frame"))


@pytest.mark.parametrize(("path", "mode"), [*((path, "light") for path in PAGES), ("/train", "dark")])
def test_every_page_opens_without_script_errors_or_foreign_requests(page, project, path, mode):
    page.emulate_media(color_scheme=mode)
    page.goto(f"{path}?project={project}")
    page.wait_for_selector(f"anchorage-nav[data-ready][data-mode={mode}]")
    page.wait_for_selector("gradio-app main")
    assert page.get_attribute("anchorage-nav nav a[aria-current]", "data-path") == path
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "cut off at 1280 px"
    is_dark = page.evaluate("document.body.classList.contains('dark')")
    assert is_dark == (mode == "dark")


def test_links_keep_the_project_and_names_stay_text(page, project):
    page.goto(f"/data?project={project}")
    page.wait_for_selector("anchorage-nav[data-ready]")
    page.click("anchorage-nav nav a[data-path='/annotate']")
    page.wait_for_url(f"**/annotate?project={project}")
    page.wait_for_selector("anchorage-nav[data-ready]")
    assert page.locator("anchorage-nav option:checked").inner_text() == "Frame ${1} <b>x</b>"
    assert page.locator("anchorage-nav select b").count() == 0


def test_switching_the_project_stays_on_the_page(page, api, project):
    api.post("/api/projects", json={"name": "Second frame"}).raise_for_status()
    page.goto(f"/augment?project={project}")
    page.wait_for_selector("anchorage-nav[data-ready]")
    with page.expect_response("**/api/projects/second-frame/open"):
        page.select_option("anchorage-nav select", label="Second frame")
    page.wait_for_url("**/augment?project=second-frame*")
    assert api.get("/api/projects").json()["projects"][0]["slug"] == "second-frame"


def test_without_a_project_the_bar_names_the_one_its_links_open(page, api, project):
    with page.expect_response(f"**/api/projects/{project}/open"):
        page.goto(f"/data?project={project}")  # reached by its address alone: it is the last opened one now
    page.goto("/")
    page.wait_for_selector("anchorage-nav[data-ready]")
    assert page.input_value("anchorage-nav select") == project
    assert page.get_attribute("anchorage-nav a[data-path='/train']", "href") == f"/train?project={project}"
    page.click("anchorage-nav a[data-path='/train']")
    page.wait_for_url(f"**/train?project={project}")
    page.wait_for_function("document.title === 'Train · Anchorage'")


def test_chosen_mode_is_remembered_until_it_is_the_system_s(page, project):
    page.emulate_media(color_scheme="light")
    page.goto(f"/data?project={project}")
    page.click("anchorage-nav[data-ready] .mode")
    page.wait_for_selector("anchorage-nav[data-mode=dark]")
    page.reload()
    page.wait_for_selector("anchorage-nav[data-ready][data-mode=dark]")
    page.wait_for_selector("body.dark")
    page.click("anchorage-nav .mode")
    page.wait_for_selector("anchorage-nav[data-mode=light]")
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("anchorage-nav[data-mode=dark]")


def test_gone_project_is_told_on_the_front_page(page):
    page.goto("/train?project=gone")
    page.wait_for_selector(".a-notice.error")
    assert "gone" in page.inner_text(".a-notice.error")
    page.wait_for_url(lambda url: "missing" not in url)


def test_gradio_s_own_bar_and_footer_are_not_shown(page, project):
    page.goto(f"/data?project={project}")
    page.wait_for_selector("anchorage-nav[data-ready]")
    for selector in ("gradio-app footer", "gradio-app .nav-holder"):
        assert page.locator(f"{selector} >> visible=true").count() == 0


def test_long_name_is_told_whole_where_it_is_cut_off(page, app_server):
    name = "Smears of peripheral blood, magnification 100, second campaign, stained, hospital north"
    slug = projects.create_project(Services(Workspace(app_server.workspace)), name)
    page.goto(f"/export?project={slug}")
    page.wait_for_selector("anchorage-nav[data-ready]")
    select = page.locator("anchorage-nav select")
    select.hover()
    assert select.get_attribute("title") == name
    page.locator("anchorage-nav .brand").hover()
    assert not page.locator("anchorage-nav .brand").get_attribute("title")
    overhang = "nav => nav.lastChild.getBoundingClientRect().right - nav.getBoundingClientRect().right"
    page.set_viewport_size({"width": 1100, "height": 600})
    assert page.locator("anchorage-nav nav").evaluate(overhang) <= 1, "the name pushes pages out of the bar"
    hidden = "nav => nav.scrollWidth - nav.clientWidth"
    for width in (1279, 1024, 800):
        page.set_viewport_size({"width": width, "height": 600})
        assert page.locator("anchorage-nav nav").evaluate(hidden) == 0, f"not all pages are seen at {width} px"
    page.set_viewport_size({"width": 640, "height": 600})
    page.reload()
    page.wait_for_selector("anchorage-nav[data-ready]")
    assert page.locator("anchorage-nav nav").evaluate(overhang) <= 1, "the open page, here the last, is out of sight"
