"""How much more memory judging stored predictions takes with ten times the images (goal: 1.1x at most, to 5,000).

    python -m benchmarks.evaluation_memory [--images 500 5000] [--boxes 30] [--classes 3] [--uses evaluate audit …]

Each use case runs in a process of its own, as the command line runs it, and the web process on its threads. MB before
it opens the project and at its highest, the ratio of that to the first size's, and the growth in bytes a predicted box.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LABELLED = 4  # boxes of an image, on average
USES = ("evaluate", "diagnose", "images", "audit", "results", "compare")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--boxes", type=int, default=30, help="predicted on an image, on average")
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--uses", nargs="+", choices=USES, default=USES)
    parser.add_argument("--folder", type=Path, help="keep the made-up projects here, for another time")
    parser.add_argument("--one", nargs=3, metavar=("USE", "FOLDER", "PROJECT"), help="run one in this process")
    values = parser.parse_args()
    if values.one:
        return run(*values.one)
    with tempfile.TemporaryDirectory() as scratch:
        made = [make(values.folder or Path(scratch), count, values.classes, values.boxes) for count in values.images]
        print(
            f"{'':<10}{'images':>8}{'started':>9}{'highest':>9}{'ratio':>7}{'bytes a box':>13}{'seconds':>9}",
            flush=True,
        )
        for use in values.uses:
            measure(use, made, values.images, values.boxes)
    return None


def measure(use: str, made: list[tuple[str, str]], counts: list[int], num_boxes: int) -> None:
    """Run a use case on each project, and print a line for each."""
    lowest = 0.0
    for project, count in zip(made, counts, strict=True):
        command = [sys.executable, "-m", "benchmarks.evaluation_memory", "--one", use, *project]
        answer = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        highest = answer["highest"]
        lowest = lowest or highest
        growth = (highest - lowest) * 1e6 / max(count - counts[0], 1) / num_boxes
        line = f"{use:<10}{count:>8}{answer['started']:>9.0f}{highest:>9.0f}{highest / lowest:>7.2f}{growth:>13.0f}"
        print(f"{line}{answer['seconds']:>9.2f}", flush=True)


def make(folder: Path, count: int, num_classes: int, num_boxes: int) -> tuple[str, str]:
    """A project with two stored sets, unless it is there already: its workspace, and its name there."""
    from app.store import predictions
    from benchmarks.review_sets import make_project

    place = folder / f"{count} images, {num_classes} classes, {num_boxes} boxes"
    if not place.exists():
        services, slug, set_id = make_project(place, count, num_classes, num_boxes, LABELLED)
        database = services.database(slug)
        record = predictions.get_set(database, set_id)
        found = predictions.read_detections(database, set_id)
        fewer = {image_id: one.select(slice(0, None, 2)) for image_id, one in found.items()}
        with database.write() as db:
            values = {"run_id": record.run_id, "split": record.split, "snapshot_sha256": record.snapshot_sha256}
            predictions.store_predictions(db, detections=fewer, members=[set_id], **values)
    return str(place), "made-up"


def run(use: str, folder: str, slug: str) -> None:
    """Do it here, and print JSON: MB when started and at the highest, and seconds."""
    from app import cli  # noqa: F401 (what the command line loads)
    from app.services import auditing, diagnosing, pair_figures, review
    from app.services.context import Services
    from app.store import predictions
    from app.store.files import Workspace

    services = Services(Workspace(Path(folder)))
    database = services.database(slug)
    second, first = predictions.list_sets(database)
    if use == "compare":
        from app.pipeline.evaluate import bootstrap

        bootstrap.warm_up()  # compiled code takes the same for any number of images
        for path in Path(folder).rglob("compared/*.json"):
            path.unlink()  # of an earlier round
    started, began = highest_mb(), time.monotonic()
    if use == "evaluate":
        review.evaluation(services, slug, first.id)
    elif use == "diagnose":
        diagnosing.diagnose(services, slug, first.id)
    elif use == "images":
        review.images(services, slug, first.id)
    elif use == "audit":
        auditing.audit_sets(services, slug, [first.id])
        auditing.judge_again(services, slug, [first.id])
    elif use == "results":
        review.export_results(services, slug, first.id, Path(folder) / "results.json")
    else:
        pair_figures.judge_pair(services, slug, first, second)
    print(json.dumps({"started": started, "highest": highest_mb(), "seconds": time.monotonic() - began}))


def highest_mb() -> float:
    """The most memory that this process has had, in MB."""
    if sys.platform == "linux":  # there what getrusage tells includes the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
