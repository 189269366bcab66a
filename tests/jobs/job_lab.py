"""A workspace with one project, and real workers on it."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.records import Job
from app.store import jobs, runs
from app.store.database import ProjectDatabase
from app.store.files import Workspace

ROOT = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).with_name("fake_process.py")


class Lab:
    """A workspace under test."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root)
        self.files = self.workspace.new_project("demo")
        self.database = ProjectDatabase.create(self.files.database)
        self.workers: list[subprocess.Popen] = []

    def enqueue(self, kind: str, **payload: object) -> Job:
        return jobs.enqueue(self.database, kind, {"folder": str(self.workspace.root), **payload})

    def enqueue_run(self, **payload: object) -> Job:
        """A training with the run that it belongs to."""
        job = self.enqueue("train")
        with self.database.write() as db:
            run_id = runs.create_run(db, job.id, "", {})
            jobs.set_payload(db, job.id, {**job.payload, "run_id": run_id, **payload})
        return self.job(job)

    def start_worker(self, idle_s: float = 30, gpus: tuple[str, ...] = ()) -> subprocess.Popen:
        command = [sys.executable, str(FAKE), "worker", str(self.workspace.root), str(idle_s), *gpus]
        self.workers.append(subprocess.Popen(command, start_new_session=True))
        return self.workers[-1]

    def job(self, job: Job) -> Job:
        return jobs.get_job(self.database, job.id)

    def wait_for_end(self, job: Job, timeout_s: float = 25) -> Job:
        wait_until(lambda: self.job(job).is_finished, f"job {job.id} to end", timeout_s)
        return self.job(job)

    def pid_of_started(self) -> int:
        path = self.workspace.root / "started"
        wait_until(lambda: path.exists() and path.read_text(), "the job to start")
        return int(path.read_text())


def wait_until(is_true: Callable[[], object], what: str, timeout_s: float = 25) -> None:
    """Poll until true; fails the test after the deadline."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s} s for {what}")
        time.sleep(0.03)
