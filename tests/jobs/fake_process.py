"""A worker and jobs as real processes whose work is made up: each does one thing that real work can do."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from app.errors import BadRequest
from app.jobs import hangs
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


def counting(job: JobContext) -> dict:
    """A training that goes on from its file, and dies of SIGKILL after the steps in ``dies_after``, once each.

    With a ``run_id`` it tells of every saved state.
    """
    path, died = (Path(job.payload["folder"], f"{name}-{job.job.id}") for name in ("count", "died"))
    count = int(path.read_text()) if path.exists() else 0
    if job.payload.get("dies_at_start") and job.job.attempt == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    tell_saved = _teller(job) if "run_id" in job.payload else lambda count: None
    Path(job.payload["folder"], "started").write_text(str(os.getpid()))
    Path(job.payload["folder"], f"gpu-{job.job.id}").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
    while count < job.payload["steps"]:
        if job.should_stop():
            raise Stopped({"count": count})
        count += 1
        job.note_step(count)
        deaths = died.read_text().split() if died.exists() else []
        if job.payload.get("dies_after", []).count(count) > deaths.count(str(count)):
            died.write_text(" ".join([*deaths, str(count)]))
            os.kill(os.getpid(), signal.SIGKILL)
        path.write_text(str(count))
        tell_saved(count)
        time.sleep(job.payload.get("pause_s", 0.0))
    return {"count": count}


def _teller(job: JobContext) -> Callable[[int], None]:
    """Tells of a saved state by its step, as a real training does; imported here, because numpy takes a while."""
    from app.jobs.recorder import RunRecorder
    from app.pipeline.types import CheckpointSaved

    recorder = RunRecorder(job, job.payload["run_id"], "")
    return lambda step: recorder.emit(CheckpointSaved("last.pt", "", 0, step, None, None, None, is_last=True))


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
HANDLERS["train"] = "fake_process:counting"


def main(role: str, root: str, *rest: str) -> int:
    workspace = Workspace(Path(root))
    if "TEST_HUNG_AFTER_S" in os.environ:  # whatever the gaps between heartbeats are on this machine now
        hangs.HUNG_AFTER_S, hangs.HUNG_AFTER_BEATS = float(os.environ["TEST_HUNG_AFTER_S"]), 0
    if role == "job":
        slug, job_id, attempt = rest
        return run_job(workspace, slug, int(job_id), int(attempt), HANDLERS)

    def command(slug: str, job_id: int, attempt: int) -> list[str]:
        return [sys.executable, __file__, "job", root, slug, str(job_id), str(attempt)]

    return 0 if Worker(workspace, command, float(rest[0]), rest[1:]).run() else 9


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
