"""The app as a person starts it, and a browser in front of it.

Wait for the ``data-*`` attributes that the widgets set on their root elements; never for time to pass.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.running_app import end_job_processes, start_app, wait_for_link


@dataclass(frozen=True)
class AppServer:
    """A running app: where it listens, the secret that lets in, and the folder of its projects."""

    url: str
    port: int
    token: str
    workspace: Path

    @property
    def cookie(self) -> dict[str, str]:
        """The cookie that a link would set."""
        return {"name": f"anchorage-{self.port}", "value": self.token, "url": self.url}


@pytest.fixture(scope="session")
def app_server(tmp_path_factory) -> Iterator[AppServer]:
    """``launch.py`` on an empty workspace; its job processes end with the session."""
    workspace = tmp_path_factory.mktemp("e2e") / "projects"
    process = start_app(workspace)
    try:
        url = wait_for_link(process).partition("?")[0].rstrip("/")
        token = (workspace / ".anchorage" / "secret").read_text()
        yield AppServer(url, int(url.rpartition(":")[2]), token, workspace)
    finally:
        process.terminate()
        process.wait(timeout=30)
        end_job_processes(workspace)


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """Headless Chromium; without one the tests are skipped, but in continuous integration that is a failure."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        path = chromium_path(playwright.chromium.executable_path)
        if path is None:
            message = "no Chromium found (install one, or set ANCHORAGE_CHROMIUM to its path)"
            pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
        has_root = hasattr(os, "geteuid") and os.geteuid() == 0
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if has_root else [])
        yield browser
        browser.close()


def chromium_path(bundled: str) -> str | None:
    """The browser to test with: the one named, one of the system, or Playwright's own."""
    named = os.environ.get("ANCHORAGE_CHROMIUM")
    if named:
        return named
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome", "chrome"))
    return next((path for path in found if path), bundled if Path(bundled).exists() else None)


@pytest.fixture(scope="session")
def visitor(browser, app_server) -> Iterator[tuple]:
    """A browser that was let in, with lists of its script errors and of its requests to anywhere else.

    One for all tests: compiled scripts stay in its cache, and a page of Gradio's costs a quarter less.
    """
    context = browser.new_context(base_url=app_server.url, viewport={"width": 1280, "height": 720})
    context.set_default_timeout(20_000)
    context.add_cookies([app_server.cookie])
    yield context, *watch(context, app_server.url)
    context.close()


@pytest.fixture
def page(visitor) -> Iterator:
    """A new page, 1280x720, that remembers nothing; fails on a script error and on a request to anywhere else.

    Addresses are relative: ``page.goto("/data?project=…")``.
    """
    context, errors, foreign = visitor
    page = context.new_page()
    page.goto("/widgets/theme.css")
    page.evaluate("localStorage.clear()")
    errors.clear()
    foreign.clear()
    yield page
    for opened in context.pages:
        opened.close()
    assert not errors, f"script errors: {errors}"
    assert not foreign, f"requests that left this machine: {foreign}"


def watch(context, url: str) -> tuple[list[str], list[str]]:
    """Lists that fill with the script errors and the foreign requests of all pages of a context."""
    errors: list[str] = []
    foreign: list[str] = []
    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.on("request", lambda request: None if is_own(request.url, url) else foreign.append(request.url))
    context.on("console", lambda message: foreign.append(message.text) if is_blocked(message) else None)
    return errors, foreign


def is_own(address: str, url: str) -> bool:
    return address.startswith((f"{url}/", "data:", "blob:"))


def is_blocked(message) -> bool:
    """The browser stopped a request that the content policy forbids: it would have left this machine."""
    return message.type == "error" and "Content Security Policy" in message.text


@pytest.fixture
def api(app_server) -> Iterator[httpx.Client]:
    """A script's way in, to prepare and to look: ``api.post("/api/projects", json=…)``."""
    headers = {"Authorization": f"Bearer {app_server.token}"}
    with httpx.Client(base_url=app_server.url, headers=headers, timeout=60) as client:
        yield client
