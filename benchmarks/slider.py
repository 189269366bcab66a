"""Milliseconds that a step of the Review page's sliders takes in Chromium: matching, counting and drawing.

    python -m benchmarks.slider [--images 1000] [--predicted 100] [--labelled 20] [--steps 40]

Moves each slider to and fro on a made-up set and reads what the page measures of its own work (data-frame-ms): until
the images in sight and the counts have followed. The second figure is until all images have, out of sight too.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.review_sets import make_project

ROOT = Path(__file__).resolve().parents[1]
# Steps of a slider as a person makes them: the next one when the frame of the last was shown.
STEP = """async ([name, value]) => {
  const page = document.querySelector("anchorage-review");
  const input = page.querySelector(`input[aria-label="${name}"]`);
  delete page.dataset.frameMs;
  page.dataset.counted = "false";
  input.value = value;
  const start = performance.now();
  input.dispatchEvent(new Event("input", { bubbles: true }));
  const until = async (isDone) => { while (!isDone()) await new Promise((next) => setTimeout(next)); };
  await until(() => page.dataset.frameMs !== undefined);
  const frame = Number(page.dataset.frameMs);
  await until(() => page.dataset.counted === "true");
  return [frame, performance.now() - start];
}"""
RANGES = {"Score threshold": (0.05, 0.9), "IoU threshold": (0.05, 0.95), "NMS threshold": (0.05, 1.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--predicted", type=int, default=100, help="boxes on each image")
    parser.add_argument("--labelled", type=int, default=20, help="boxes on each image")
    parser.add_argument("--steps", type=int, default=40)
    values = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _, slug, set_id = make_project(Path(folder), values.images, 3, values.predicted, values.labelled)
        print(f"{values.images} images, {values.predicted} predicted and {values.labelled} labelled boxes on each")  # noqa: T201
        command = [sys.executable, "launch.py", "--projects", folder, "--no-browser"]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        app = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert app.stdout is not None
            link = next(line.split()[-1] for line in app.stdout if "Open http" in line)
            measure(link, f"/review?project={slug}&set={set_id}", values.steps)
        finally:
            app.terminate()
            app.wait(timeout=30)


def measure(link: str, path: str, num_steps: int) -> None:
    """Print a line for each slider that the page has."""
    with sync_playwright() as playwright:
        executable = shutil.which("chromium") or playwright.chromium.executable_path
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(link)
        page.goto(link.partition("/?")[0] + path)
        page.wait_for_selector("anchorage-review[data-state=ready][data-counted=true]")
        page.wait_for_timeout(1000)
        for name, ends in RANGES.items():
            if page.locator(f'input[aria-label="{name}"]').count():
                print(f"{name:<16}{describe(move(page, name, ends, num_steps))}")  # noqa: T201
        browser.close()


def move(page: Page, name: str, ends: tuple[float, float], num_steps: int) -> list[tuple[float, float]]:
    """(milliseconds of the frame, milliseconds until all images have followed) of each step, to and fro."""
    low, high = ends
    there = [low + (high - low) * step / (num_steps // 2) for step in range(num_steps // 2 + 1)]
    positions = [round(value / 0.05) * 0.05 if name != "Score threshold" else value for value in there + there[::-1]]
    measured = [page.evaluate(STEP, [name, value]) for value in positions if value]
    page.evaluate(STEP, [name, 1.0 if name == "NMS threshold" else 0.5])
    return measured[1:]  # the first finds what overlaps


def describe(measured: list[tuple[float, float]]) -> str:
    frames, wholes = zip(*measured, strict=True)
    one = f"{statistics.median(frames):6.1f} ms ({min(frames):.1f}..{max(frames):.1f})"
    return f"{one}   all images after {statistics.median(wholes):.0f} ms ({min(wholes):.0f}..{max(wholes):.0f})"


if __name__ == "__main__":
    main()
