"""Kill a training, its worker or both again and again, and see whether it ends with the weights of an undisturbed one.

    python -m benchmarks.chaos [--kills 30] [--seed 1]

Real processes and SIGKILL at seeded random moments, of a tiny detector that saves after every step, so that many of
the kills fall into the writing of a checkpoint. Nobody helps: the run must go on by itself after each of them. Prints a
line per kill; at the end how often steps were repeated.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from app.jobs.locks import is_held  # noqa: E402
from app.pipeline.config import parse_config  # noqa: E402
from app.records import Job  # noqa: E402
from app.store import jobs, runs  # noqa: E402
from app.store.database import ProjectDatabase  # noqa: E402
from app.store.files import ProjectFiles, Workspace  # noqa: E402
from tests.pipeline.train.tiny_dataset import TINY, write_tiny_dataset  # noqa: E402

STEPS_TO_LIVE = 6  # an attempt is killed within the time of so many
OPTIONS = {**TINY, "ema_decay": 0.9, "augmentation": [{"name": "HorizontalFlip"}, {"name": "MixUp"}]}


def main() -> int:
    """Run both trainings and compare them; the exit code is 0 when they end alike."""
    if sys.argv[1:2] in (["worker"], ["job"]):
        return work(*sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=160)
    values = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        whole, disturbed = (make_run(workspace, name, values.epochs) for name in ("whole", "disturbed"))
        print(f"an undisturbed run of {values.epochs} epochs ...", flush=True)
        with Worker(workspace) as worker:
            wait_until(lambda: is_over(whole), 1800, worker)
            longest_s = STEPS_TO_LIVE * seconds_per_step(whole)
            jobs.start_again(database_of(disturbed), 1, ["paused"])
            num_kills = kill_around(disturbed, random.Random(values.seed), values.kills, longest_s, worker)
            wait_until(lambda: is_over(disturbed), 1800, worker)
        return compare(whole, disturbed) if num_kills == values.kills else 1


class Worker:
    """The workspace's worker as a process, started again where it is gone."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> "Worker":
        self.keep()
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()

    def keep(self) -> None:
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, __file__, "worker", str(self.workspace.root)]
            self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)


def work(role: str, root: str, *rest: str) -> int:
    """A worker, or a job that trains the tiny detector, saves after every step, and tells each of its steps."""
    from app.jobs.main import run_job
    from app.jobs.worker import Worker as QueueWorker

    workspace = Workspace(Path(root))
    if role == "worker":
        command = [sys.executable, __file__, "job", root]
        QueueWorker(workspace, lambda *where: [*command, *map(str, where)]).run()
        return 0
    from app.jobs.context import JobContext
    from app.pipeline.models import build
    from app.pipeline.train import run
    from tests.pipeline.train.tiny_dataset import construct_tiny

    build.construct = construct_tiny
    run.SAVE_EVERY_S, run.MAX_SAVE_SHARE = 0.0, float("inf")
    slug, job_id, attempt = rest
    steps = os.open(steps_path(workspace.project(slug)), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    note = JobContext.note_step

    def tell(job: JobContext, step: int) -> None:
        os.write(steps, f"{os.getpid()} {step}\n".encode())
        note(job, step)

    JobContext.note_step = tell
    return run_job(workspace, slug, int(job_id), int(attempt), {"train": "app.jobs.handlers:train"})


def make_run(workspace: Workspace, slug: str, epochs: int) -> ProjectFiles:
    """A project with one run; that of the second project waits until the first is over."""
    files = workspace.new_project(slug)
    database = ProjectDatabase.create(files.database)
    with database.write() as db:
        job = jobs.enqueue(db, "train", {"run_id": 1})
        runs.create_run(db, job.id, "", {})
    files.run(1).mkdir(parents=True)
    write_tiny_dataset(files.run(1), num_train=8)
    (files.run(1) / "config.json").write_text(parse_config({**OPTIONS, "epochs": epochs}).model_dump_json())
    if slug == "disturbed":
        jobs.request_stop(database, job.id, "paused")
    return files


def kill_around(files: ProjectFiles, dice: random.Random, num_kills: int, longest_s: float, worker: Worker) -> int:
    """Kill ``num_kills`` times, each up to ``longest_s`` after an attempt got further than the one before was.

    Twice at the same step would be taken for a fault of that step, rightly. Returns how many kills hit the run.
    """
    reached = 0
    for number in range(1, num_kills + 1):
        wait_until(lambda reached=reached: newest_step(files)[1] > reached or is_over(files), 600, worker)
        time.sleep(dice.uniform(0.0, longest_s))
        if is_over(files):
            print(f"the run was over before kill {number}: give it more --epochs", flush=True)
            return number - 1
        victim = dice.choice(["job", "worker", "both"])
        pid, attempt = newest_step(files)[0], job_of(files).attempt
        if victim != "job":
            worker.process.kill()
            worker.process.wait()
        if victim != "worker":
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_held(files.job_lock(1)), 60)
        reached = newest_step(files)[1]
        print(f"{number:3d}  killed {victim:<7} at step {reached:4d} of attempt {attempt:3d}", flush=True)
    return num_kills


def is_over(files: ProjectFiles) -> bool:
    """Whether the run is done; one that failed ends the program."""
    job = job_of(files)
    if job.state == "failed":
        sys.exit(f"the run failed: {job.error}")
    return job.state == "done"


def compare(whole: ProjectFiles, disturbed: ProjectFiles) -> int:
    """Print what came out of both; 0 when weights, checkpoints and numbers are the same."""
    lines = [line.split() for line in steps_path(disturbed).read_text().splitlines()]
    trained = [step for (pid, step), before in zip(lines[1:], lines, strict=False) if pid == before[0]]
    same = {
        "final weights": weights_digest(whole) == weights_digest(disturbed),
        "kept checkpoints": kept_rows(whole) == kept_rows(disturbed),
        "files and rows agree": {row[0] for row in kept_rows(disturbed)} == kept_files(disturbed),
        "numbers (steps, values)": metrics_of(whole) == metrics_of(disturbed),
    }
    for name, is_same in same.items():
        print(f"{name:<25}{'bit-identical' if is_same else 'DIFFERENT'}")
    repeated = len(trained) - len(set(trained))
    share = repeated / max(1, len(set(trained)))
    print(f"{job_of(disturbed).attempt} attempts; {repeated} steps of {len(trained)} repeated ({100 * share:.1f} %)")
    return 0 if all(same.values()) else 1


def weights_digest(files: ProjectFiles) -> str:
    import torch

    document = torch.load(files.run(1) / "last.pt", weights_only=True)
    digest = hashlib.sha256()
    for part in ("model", "trained_model"):
        for name in sorted(document[part]):
            digest.update(document[part][name].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    optimizer = document["optimizer"]["state"]
    digest.update(
        json.dumps({key: float(value["exp_avg"].double().sum()) for key, value in optimizer.items()}).encode()
    )
    return digest.hexdigest()


def kept_rows(files: ProjectFiles) -> list[tuple]:
    rows = runs.list_checkpoints(database_of(files), 1)
    return [(row.file_name, row.epoch, row.step, row.map50, row.f1, row.score) for row in rows]


def kept_files(files: ProjectFiles) -> set[str]:
    return {path.name for path in files.run(1).glob("*.pt")} - {"previous.pt"}


def metrics_of(files: ProjectFiles) -> list[tuple]:
    points = runs.metrics_after(database_of(files), 1, limit=10**7)
    return [(p.step, p.epoch, p.split, p.name, p.value) for p in points if p.split != "system"]


def seconds_per_step(files: ProjectFiles) -> float:
    points = [p for p in runs.metrics_after(database_of(files), 1, limit=10**7) if p.name == "loss"]
    return (points[-1].elapsed_s - points[0].elapsed_s) / len(points)


def steps_path(files: ProjectFiles) -> Path:
    return files.folder / "steps.txt"


def newest_step(files: ProjectFiles) -> tuple[int, int]:
    """The process that told a step last, and the step."""
    lines = steps_path(files).read_text().splitlines() if steps_path(files).exists() else []
    pid, step = lines[-1].split() if lines else (0, 0)
    return int(pid), int(step)


def database_of(files: ProjectFiles) -> ProjectDatabase:
    return ProjectDatabase(files.database)


def job_of(files: ProjectFiles) -> Job:
    return jobs.get_job(database_of(files), 1)


def wait_until(is_true: Callable[[], bool], timeout_s: float, worker: Worker | None = None) -> None:
    """Poll until true, with a worker alive meanwhile; leaves the program after the time."""
    deadline = time.monotonic() + timeout_s
    while True:
        if worker is not None:
            worker.keep()
        try:
            if is_true():
                return
        except sqlite3.OperationalError as error:
            print(f"     {error}", flush=True)
        if time.monotonic() > deadline:
            sys.exit(f"nothing happened for {timeout_s:.0f} s")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
