"""A training in several processes: the job's own starts them and waits; the first of them does what a job does."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from app.jobs.gpus import list_gpus, resolve_processes
from app.jobs.main import LEFT, PEER_DIED
from app.pipeline.config import load_config
from app.records import Job
from app.store.database import ProjectDatabase
from app.store.files import Workspace
from app.store.jobs import get_job

logger = logging.getLogger(__name__)


def rank_of_this_process() -> int | None:
    """Its number among the processes that torch.distributed.run started; None where it did not start it."""
    return int(os.environ["RANK"]) if "RANK" in os.environ else None


def count_processes(workspace: Workspace, slug: str, job_id: int) -> int:
    """How many processes a job wants; 1 for all but trainings."""
    files, job = workspace.project(slug), _job(workspace, slug, job_id)
    if job.kind != "train":
        return 1
    try:
        config = load_config(files.run(int(job.payload["run_id"])) / "config.json")
    except (OSError, ValueError):
        return 1  # which will say why
    return resolve_processes(config, len(list_gpus()))


def run_ranks(workspace: Workspace, slug: str, job_id: int, count: int, module: str, arguments: Sequence[str]) -> int:
    """Run a job as ``module`` with these arguments in ``count`` processes.

    Returns 0 when how it ended is written down, LEFT when it is queued to go on. One that dies takes the others along;
    the queue begins the job again, from where it was saved.
    """
    # The processes leave by themselves when they are asked to stop; this one has to wait for them.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threads = max(1, (os.cpu_count() or 1) // count)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    code = subprocess.run([*command, "-m", module, *arguments], env=environment, check=False).returncode
    return LEFT if not code and _job(workspace, slug, job_id).state == "queued" else code


def follow_training(workspace: Workspace, slug: str, job_id: int) -> int:
    """Take part in a training as another rank than the first; what ends it is told by the first."""
    from app.pipeline.data.snapshot import load_snapshot
    from app.pipeline.train.loop import train
    from app.pipeline.train.ranks import PeerLost

    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the first rank decides when to stop
    files = workspace.project(slug)
    folder = files.run(int(_job(workspace, slug, job_id).payload["run_id"]))
    config, snapshot = load_config(folder / "config.json"), load_snapshot(folder / "dataset.json")
    try:
        train(config, snapshot, folder, None, files.pixels)
    except PeerLost as error:
        logger.error("%s", error)
        return PEER_DIED
    except Exception as error:  # raised in all ranks alike, and the first writes it down
        logger.info("ended by: %s", error)
    return 0


def _job(workspace: Workspace, slug: str, job_id: int) -> Job:
    return get_job(ProjectDatabase(workspace.project(slug).database), job_id)
