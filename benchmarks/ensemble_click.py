"""Seconds of the first and of later clicks on "Fuse the best three" in an app that was just installed and started.

    python -m benchmarks.ensemble_click [--images 200] [--clicks 3]

Nothing compiled is kept from before (a cache folder of its own), so that the app has all of it to do; one
app is clicked as soon as it answers, another when it has compiled. A click is what the page sends, until it
has the table of the ensemble beside its members. Files of Python and its libraries are in the machine's cache.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.services.context import Services
from app.store.files import Workspace
from benchmarks.ensemble_memory import make_project

LAST_COMPILED = "*judge_rows*.nbc"  # what is compiled last
PATIENCE_S = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--clicks", type=int, default=3)
    values = parser.parse_args()
    print(f"{'':<34}" + "".join(f"{f'click {n + 1}':>9}" for n in range(values.clicks)) + f"{'1st : 2nd':>11}")
    for title, waits, is_kept in (
        ("started anew, when it has compiled", True, False),
        ("started anew, at once", False, False),
        ("started again, at once", False, True),
    ):
        with tempfile.TemporaryDirectory() as folder, _app(Path(folder), values.images, is_kept) as client:
            if waits:
                wait_for(lambda folder=folder: is_compiled(Path(folder)))
            took = [click(client) for _ in range(values.clicks)]
            print(f"{title:<34}" + "".join(f"{s:>9.2f}" for s in took) + f"{took[0] / took[1]:>11.2f}", flush=True)


@contextmanager
def _app(folder: Path, num_images: int, is_kept: bool) -> Iterator[httpx.Client]:
    """An app on a project of its own; ``is_kept``: one has run before, and what it compiled is there."""
    workspace = folder / "projects"
    slug, _ = make_project(Services(Workspace(workspace)), num_images, 3, 100)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "compiled"), "PYTHONUNBUFFERED": "1"}
    for is_last in (False, True) if is_kept else (True,):
        log = folder / f"log {is_last}"
        with log.open("wb") as output:
            command = [sys.executable, "launch.py", "--projects", str(workspace), "--no-browser"]
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            wait_for(lambda log=log: "token=" in log.read_text())
            if not is_last:
                wait_for(lambda: is_compiled(folder))
                continue
            url = re.search(r"(http://[^/]+)/\?token=", log.read_text()).group(1)
            token = (workspace / ".anchorage" / "secret").read_text()
            headers = {"Authorization": f"Bearer {token}"}
            with httpx.Client(base_url=f"{url}/api/projects/{slug}/", headers=headers, timeout=60) as client:
                yield client
        finally:
            process.terminate()
            process.wait(timeout=30)


def is_compiled(folder: Path) -> bool:
    """Whether the app has compiled what fusing needs."""
    return any((folder / "compiled").rglob(LAST_COMPILED))


def click(client: httpx.Client) -> float:
    """Seconds until the table is there."""
    began = time.monotonic()
    run = client.get("review").json()["runs"][0]["id"]
    job = client.post("ensembles", json={"run_id": run}).raise_for_status().json()["job"]
    wait_for(lambda: client.get(f"jobs/{job['id']}").json()["job"]["state"] == "done")
    job = client.get(f"jobs/{job['id']}").json()["job"]
    client.get(f"ensembles/{job['result']['set']}").raise_for_status()
    return time.monotonic() - began


def wait_for(is_true: object) -> None:
    began = time.monotonic()
    while not is_true():
        if time.monotonic() - began > PATIENCE_S:
            raise SystemExit(f"waited for {PATIENCE_S} s in vain")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
