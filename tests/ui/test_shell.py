"""The frame of the screen: pages, head, theme, and where a page without a project goes."""

import asyncio
import json
import re
from html import unescape

import gradio as gr
import httpx
import pytest

from app.api.access import Access
from app.api.addresses import own_hosts
from app.api.app import build_app
from app.services import projects
from app.services.context import Services
from app.store.files import Workspace
from app.ui import shell
from app.ui.theme import build_theme

PORT = 7860


@pytest.fixture(scope="module")
def services(tmp_path_factory) -> Services:
    return Services(Workspace(tmp_path_factory.mktemp("shell")))


@pytest.fixture(scope="module")
def get(services):
    access = Access(services.workspace)
    app = build_app(services, access=access, hosts=own_hosts("127.0.0.1", PORT), port=PORT)

    def get(path: str) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=app)
            headers = {"Authorization": f"Bearer {access.token}"}
            async with httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{PORT}") as client:
                return await client.get(path, headers=headers)

        return asyncio.run(send())

    return get


def test_page_without_any_project_goes_to_the_front_page(get, services):
    assert services.workspace.slugs() == []
    for page in shell.PAGES[1:]:
        response = get(page.path)
        assert (response.status_code, response.headers["location"]) == (303, "/")


def test_page_without_a_project_goes_to_the_last_opened_one(get, services):
    older, newer = projects.create_project(services, "Older"), projects.create_project(services, "Newer")
    projects.open_project(services, older)
    response = get("/train?run=3")
    assert response.status_code == 303
    assert response.headers["location"] == f"/train?project={older}&run=3"
    projects.open_project(services, newer)
    assert get("/train/").headers["location"].endswith(f"?project={newer}")


@pytest.mark.parametrize("slug", ["gone", "../etc", "<b>"])
def test_page_of_a_project_that_is_gone_says_so_on_the_front_page(get, slug):
    response = get(f"/data?project={slug}")
    assert response.status_code == 303
    assert response.headers["location"].startswith("/?missing=")
    assert "<" not in response.headers["location"]


def test_every_page_is_served_for_a_project(get, services):
    slug = projects.create_project(services, "Served")
    for page in shell.PAGES:
        response = get(f"{page.path}?project={slug}")
        assert response.status_code == 200
        assert "gradio_config" in response.text


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/monitoring", "/monitoring/summary"])
def test_what_nobody_asked_for_is_not_served(get, path):
    assert get(path).status_code in (403, 404)


def test_unknown_route_answers_in_the_one_form(get):
    response = get("/widgets/none.js")
    assert response.status_code == 404
    assert set(response.json()) == {"error", "hint"}


def test_gradio_keeps_to_the_settings(services):
    demo = shell.create_demo(services)
    assert demo.analytics_enabled is False
    assert demo._queue.default_concurrency_limit == shell.CONCURRENCY
    assert not [block for block in demo.blocks.values() if isinstance(block, gr.State)]
    assert [event for event in demo.fns.values() if event.api_visibility != "private"] == []


def test_markup_of_widgets_is_left_to_our_style_sheets(services):
    """Gradio's prose rules repaint buttons and tables inside gr.HTML."""
    blocks = shell.create_demo(services).blocks.values()
    markup = [block for block in blocks if isinstance(block, gr.HTML)]
    assert len(markup) >= len(shell.PAGES)
    assert [block.value for block in markup if block.apply_default_css] == []


def test_head_names_the_pages_and_every_widget():
    head = shell.head("/widgets/v1")
    pages = json.loads(unescape(head.partition('content="')[2].partition('"')[0]))
    assert [page["path"] for page in pages][:2] == ["/", "/data"]
    assert len({page["path"] for page in pages}) == len(pages) == len(shell.PAGES)
    for path in shell.WIDGETS.glob("*.js"):
        assert f'src="/widgets/v1/{path.name}"' in head
    assert head.index("theme.css") < head.index("nav.css")  # variables and classes first: widgets refine them


def test_nothing_is_fetched_from_elsewhere():
    theme = build_theme()
    assert theme._stylesheets == []
    texts = [theme._get_theme_css(), shell.head("/widgets/v1")]
    texts += [path.read_text(encoding="utf-8") for path in shell.WIDGETS.glob("*.css")]
    foreign = re.compile(r"""@import|(?:url\(|src=|href=)['"]?(?:https?:)?//""")
    assert [found.group() for text in texts for found in foreign.finditer(text)] == []


def test_widgets_of_a_page_are_kept_by_the_browser_with_all_that_they_import(get, services):
    """Imports go by "./name.js": the version of the page's address carries over to them."""
    page = get(f"/data?project={projects.create_project(services, 'Kept')}").text
    (address,) = set(re.findall(r"/widgets/[0-9a-f]+/gallery\.js", unescape(page)))
    response = get(address)
    assert "immutable" in response.headers["cache-control"]
    imported = re.findall(r'from "\./([a-z_]+\.js)"', response.text)
    assert imported
    for name in imported:
        assert "immutable" in get(address.replace("gallery.js", name)).headers["cache-control"]
    texts = {path.name: path.read_text(encoding="utf-8") for path in shell.WIDGETS.glob("*.js")}
    elsewhere = re.compile(r"""\bfrom\s+["'](?!\./[a-z_]+\.js["'])|\bimport\(["'`]""")
    assert [name for name, text in texts.items() if elsewhere.search(text)] == []
