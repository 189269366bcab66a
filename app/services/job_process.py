"""The processes beside the app: `python -m app.services.job_process worker|job …`.

This module puts jobs together with what they do. It lies above the jobs floor because some work (imports, fusing) is
a use case; the names below are imported only in the job's own process, so nothing here loads torch.
"""

import argparse
import logging
import sys
from pathlib import Path

from app.jobs.gpus import list_gpus
from app.jobs.main import LEFT, PEER_DIED, run_job
from app.jobs.process import module_command
from app.jobs.ranks import count_processes, follow_training, rank_of_this_process, run_ranks
from app.jobs.worker import IDLE_S, Worker
from app.services.context import Services
from app.services.jobs import JOB_PROCESS, ensure_worker
from app.store.files import Workspace

HANDLERS = {
    "train": "app.jobs.handlers:train",
    "predict": "app.jobs.handlers:predict",
    "import": "app.services.job_handlers:import_dataset",
    "ensemble": "app.services.job_handlers:ensemble",
    "ensemble_lab": "app.services.job_handlers:run_ensemble_lab",
    "measure": "app.services.job_handlers:measure",
    "preflight": "app.services.preflight_handler:check",
    "export": "app.services.export_handlers:export",
    "sweep": "app.services.sweep_handler:sweep",
    "predict_files": "app.services.export_handlers:predict_files",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a worker or one job, and return the process's exit code."""
    values = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    workspace = Workspace(values.projects)
    if values.role == "job":
        return _run_job(workspace, values, sys.argv[1:] if arguments is None else arguments)

    def job_command(slug: str, job_id: int, attempt: int) -> list[str]:
        where = ("--projects", str(workspace.root), "--project", slug)
        return module_command(JOB_PROCESS, "job", *where, "--job", str(job_id), "--attempt", str(attempt))

    Worker(workspace, job_command, values.idle, list_gpus()).run()
    return 0


def _run_job(workspace: Workspace, values: argparse.Namespace, arguments: list[str]) -> int:
    """One job: in this process, or as one of the processes that the first call of it starts."""
    job = (workspace, values.project, values.job)
    rank = rank_of_this_process()
    if rank is not None:
        code = run_job(*job, values.attempt, HANDLERS) if rank == 0 else follow_training(*job)
        return code if code == PEER_DIED else 0  # an end that is written down is no death
    count = count_processes(*job)
    code = run_ranks(*job, count, JOB_PROCESS, arguments) if count > 1 else run_job(*job, values.attempt, HANDLERS)
    if code == LEFT:  # the worker died: what goes on needs another
        ensure_worker(Services(workspace))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The processes that do the long work of a workspace.")
    roles = parser.add_subparsers(dest="role", required=True)
    worker = roles.add_parser("worker", help="run the queue of all projects until it is empty")
    worker.add_argument("--idle", type=float, default=IDLE_S, help="seconds without work before it leaves")
    job = roles.add_parser("job", help="run one claimed job")
    job.add_argument("--project", required=True)
    job.add_argument("--job", type=int, required=True)
    job.add_argument("--attempt", type=int, required=True)
    for role in (worker, job):
        role.add_argument("--projects", type=Path, required=True, help="the workspace")
    return parser


if __name__ == "__main__":
    sys.exit(main())
