"""Make the pictures of the user guide: `python docs/make_screenshots.py LINK PROJECT` on a running app.

LINK is the address launch.py printed; PROJECT is the short name of a project with a finished run and an ensemble.
"""

import argparse
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
SIZE = {"width": 1280, "height": 720}
PAGES = ("projects", "data", "annotate", "augment", "train", "review", "compare", "audit", "ensemble", "export")
HIDDEN = ".place { visibility: hidden; }"  # the path of somebody's machine
SETTLE_MS = 2500  # pictures, previews and charts come after the page is ready


def main() -> None:
    """Visit every page in light and dark and save what is seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("link")
    parser.add_argument("project")
    parser.add_argument("--out", type=Path, default=IMAGES)
    parser.add_argument("--schemes", nargs="+", default=["light"], choices=["light", "dark"])
    values = parser.parse_args()
    values.out.mkdir(parents=True, exist_ok=True)
    parts = urlsplit(values.link)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("ANCHORAGE_CHROMIUM") or shutil.which("chromium"), args=["--no-sandbox"]
        )
        context = browser.new_context(viewport=SIZE)
        page = context.new_page()
        page.goto(values.link)
        page.wait_for_url(lambda url: "token=" not in url)
        for scheme in values.schemes:
            page.emulate_media(color_scheme=scheme)
            for name in PAGES:
                path = "/" if name == "projects" else f"/{name}"
                page.goto(f"{parts.scheme}://{parts.netloc}{path}?project={values.project}")
                page.locator("[data-ready]").first.wait_for(timeout=30_000)
                page.wait_for_timeout(SETTLE_MS)
                page.add_style_tag(content=HIDDEN)
                page.screenshot(path=values.out / f"{name}-{scheme}.png")
        browser.close()


if __name__ == "__main__":
    main()
