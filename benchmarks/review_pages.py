"""Seconds and memory of opening a set on the Review page, page by page, with few images and with ten times as many.

    python -m benchmarks.review_pages [--images 500 5000] [--predicted 100] [--labelled 20]

Each size in a process of its own. All pages of 200 images, worst first, as the browser asks for them; "whole" is the
same when each page reads all predictions of the set, as it once did. MB are what the process grew by at its highest,
above what it held once the ground truth was read (Linux only).
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson

from app.pipeline.evaluate.columns import DetectionColumns, GroundTruth
from app.pipeline.evaluate.matching import count_errors, match_columns
from app.services import review, truths
from app.services.context import Services
from app.store import predictions
from app.store.files import Workspace
from benchmarks.review_sets import make_project

PAGE_SIZE = 200
SCORE, IOU = 0.5, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--predicted", type=int, default=100, help="boxes on each image")
    parser.add_argument("--labelled", type=int, default=20, help="boxes on each image")
    parser.add_argument("--one", nargs=4, help="workspace, project, set and way to measure in this process")
    values = parser.parse_args()
    if values.one:
        return measure(*values.one)
    print(f"{'images':>7}{'way':>7}{'first page':>12}{'later pages':>13}{'all':>9}{'grew by':>10}", flush=True)  # noqa: T201
    for count in values.images:
        with tempfile.TemporaryDirectory() as folder:
            _, slug, set_id = make_project(Path(folder), count, 3, values.predicted, values.labelled)
            for way in ("pages", "whole"):
                command = [sys.executable, "-m", "benchmarks.review_pages", "--one", folder, slug, str(set_id), way]
                answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                first, later, whole, grown = json.loads(answer.stdout)
                print(  # noqa: T201
                    f"{count:>7}{way:>7}{first:>10.2f} s{later * 1000:>10.0f} ms{whole:>7.2f} s{grown:>7.0f} MB",
                    flush=True,
                )
    return None


def measure(folder: str, slug: str, set_id: str, way: str) -> None:
    """Print [seconds of the first page, mean of the others, of all, MB grown by] as JSON."""
    services = Services(Workspace(Path(folder)))
    record = predictions.get_set(services.database(slug), int(set_id))
    truths.load_truth(services, slug, record.run_id)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far: reading the truth took more
    held_mb = memory_mb("VmRSS")
    seconds: list[float] = []
    after: int | None = 0
    while after is not None:
        start = time.perf_counter()
        if way == "whole":
            read_whole_set(services, slug, int(set_id))
        thresholds = {"score_threshold": SCORE, "iou_threshold": IOU}
        page = review.images(services, slug, int(set_id), after=after, limit=PAGE_SIZE, **thresholds)
        orjson.dumps(page, option=orjson.OPT_SERIALIZE_NUMPY)
        seconds.append(time.perf_counter() - start)
        after = page["next"]
    grown_mb = memory_mb("VmHWM") - held_mb
    later = float(np.mean(seconds[1:])) if len(seconds) > 1 else 0.0
    print(json.dumps([seconds[0], later, sum(seconds), grown_mb]))  # noqa: T201


def memory_mb(name: str) -> float:
    """VmRSS (held now) or VmHWM (the highest) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def read_whole_set(services: Services, slug: str, set_id: int) -> None:
    """What a page did before the order was remembered: match and count all images of the set."""
    record = predictions.get_set(services.database(slug), set_id)
    snapshot = truths.load_truth(services, slug, record.run_id)
    truth = GroundTruth.from_samples(snapshot.split(record.split), snapshot.categories)
    columns = DetectionColumns.from_detections(truth, predictions.read_detections(services.database(slug), set_id))
    np.argsort(-count_errors(truth, columns, match_columns(truth, columns, IOU), SCORE).errors, kind="stable")


if __name__ == "__main__":
    main()
