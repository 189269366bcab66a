"""What the version in the widgets' addresses saves: pages of the app in Chromium, with it and without, in turns.

    python -m benchmarks.page_load [--rounds 5]

Two apps on one empty project each; a browser that has seen each page once opens them again. Prints requests that
reached the app and milliseconds until the page's own widget was there: the median and the range of all pages.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("data", "annotate", "augment", "train", "review", "ensemble", "export")
UNVERSIONED = "from app.ui import shell; head = shell.head; shell.head = lambda address: head('/widgets'); "
START = "import sys, launch; sys.exit(launch.main(sys.argv[1:]))"
# Elements with a tag of their own are there once their module ran; what they then ask for is the same for both.
IS_THERE = "(tag) => customElements.get(tag) && document.querySelector(tag)?.childElementCount > 0"
TAGS = {"data": "anchorage-gallery", "annotate": "anchorage-editor"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        apps = {kind: App(Path(folder) / kind, code) for kind, code in (("versioned", ""), ("asked", UNVERSIONED))}
        path = shutil.which("chromium") or playwright.chromium.executable_path
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        try:
            pages = {kind: app.open(browser) for kind, app in apps.items()}
            results: dict[str, list[tuple[int, float]]] = {kind: [] for kind in apps}
            for number in range(rounds + 1):
                for name in PAGES:
                    for kind, app in apps.items():
                        measured = load(pages[kind], f"{app.url}/{name}?project={app.slug}", name)
                        if number:  # the first round fills the browser's cache
                            results[kind].append(measured)
        finally:
            browser.close()
            for app in apps.values():
                app.end()
    for kind, measured in results.items():
        requests, times = zip(*measured, strict=True)
        print(  # noqa: T201
            f"{kind:<10} {statistics.median(requests):4.0f} requests ({min(requests)}..{max(requests)})  "
            f"{statistics.median(times):6.0f} ms ({min(times):.0f}..{max(times):.0f})"
        )


class App:
    """``launch.py`` on a workspace of its own, with a project in it."""

    def __init__(self, folder: Path, patch: str) -> None:
        command = [sys.executable, "-c", patch + START, "--projects", str(folder), "--no-browser"]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        link = next(line.split()[-1] for line in self.process.stdout if "Open http" in line)
        self.url = link.partition("/?")[0]
        self.token = (folder / ".anchorage" / "secret").read_text()
        entry = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.post(f"{self.url}/api/projects", json={"name": "Empty"}, headers=entry)
        self.slug = answer.json()["project"]["slug"]

    def open(self, browser: Browser) -> Page:
        """A page of a browser with a cache of its own that was let in."""
        context = browser.new_context(viewport={"width": 1280, "height": 720})
        name = f"anchorage-{self.url.rpartition(':')[2]}"
        context.add_cookies([{"name": name, "value": self.token, "url": self.url}])
        return context.new_page()

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


def load(page: Page, address: str, name: str) -> tuple[int, float]:
    """(requests that reached the app, milliseconds) of one page."""
    started = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_function(IS_THERE, arg=TAGS.get(name, f"anchorage-{name}"))
    elapsed_ms = (time.perf_counter() - started) * 1000
    page.wait_for_load_state("load")
    # A file out of the browser's cache moved no byte; one that was asked for moved its headers at least.
    sizes = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.transferSize)")
    return sum(size > 0 for size in sizes) + 1, elapsed_ms


if __name__ == "__main__":
    main()
