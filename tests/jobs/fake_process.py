"""A worker and jobs as real processes whose work is made up: each does one thing that real work can do."""

import os
import signal
import sys
import time
from pathlib import Path

from app.errors import BadRequest
from app.jobs.context import JobContext, Stopped
from app.jobs.main import run_job
from app.jobs.worker import Worker
from app.pipeline.config import ConfigError
from app.store.files import Workspace


def quick(job: JobContext) -> dict:
    job.set_progress(1, 1, "made")
    return {"made": job.payload["value"]}


def patient(job: JobContext) -> dict:
    """Works until told to stop, then leaves a checkpoint."""
    Path(job.payload["folder"], "started").write_text(str(os.getpid()))
    while not job.should_stop():
        time.sleep(0.02)
    Path(job.payload["folder"], "checkpoint").write_text(job.stop_reason)
    raise Stopped({"kept": "checkpoint"})


def stubborn(job: JobContext) -> dict:
    """Hears neither the flag nor SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(job.payload["folder"], "started").write_text(str(os.getpid()))
    time.sleep(600)
    return {}


def crashing(job: JobContext) -> dict:
    raise RuntimeError("the shape is wrong")


def refusing(job: JobContext) -> dict:
    raise BadRequest("The file is empty.", "Choose another.")


def disagreeing(job: JobContext) -> dict:
    raise ConfigError("epochs must be at least 1")


def dying(job: JobContext) -> dict:
    os.write(2, b"last words\n")
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


HANDLERS = {
    name: f"fake_process:{name}"
    for name in ("quick", "patient", "stubborn", "crashing", "refusing", "disagreeing", "dying")
}
HANDLERS["train"] = HANDLERS["patient"]


def main(role: str, root: str, *rest: str) -> int:
    workspace = Workspace(Path(root))
    if role == "job":
        slug, job_id, attempt = rest
        return run_job(workspace, slug, int(job_id), int(attempt), HANDLERS)

    def command(slug: str, job_id: int, attempt: int) -> list[str]:
        return [sys.executable, __file__, "job", root, slug, str(job_id), str(attempt)]

    return 0 if Worker(workspace, command, idle_s=float(rest[0])).run() else 9


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
