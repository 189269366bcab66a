"""One job in a process of its own: take its lock, run its handler, write how it ended.

The handlers are named by the caller as "module:function" and imported only for the job at hand, so that this floor
need not know the use cases above it and only a job that needs torch loads it.
"""

import importlib
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from app.errors import Cancelled, UserError
from app.jobs.context import JobContext, PeerDied, Stopped
from app.jobs.locks import FileLock
from app.jobs.logs import LINE_FORMAT, TIME_FORMAT
from app.pipeline.faults import is_out_of_memory
from app.pipeline.types import RunPaused
from app.store.database import ProjectDatabase
from app.store.files import Workspace
from app.store.jobs import JobLost, get_job
from app.store.reserve import lay_in

logger = logging.getLogger(__name__)

Handler = Callable[[JobContext], dict[str, Any]]

LOG_BYTES = 4_000_000
NUM_OLD_LOGS = 2
LOST = 3  # exit code: another attempt owns the job
PEER_DIED = 5  # exit code: another process of the job has died
LEFT = 4  # exit code: stopped at a safe point, and queued to go on
GOES_ON = frozenset(("train",))  # kinds of work whose next attempt begins where the last one was saved


def run_job(workspace: Workspace, slug: str, job_id: int, attempt: int, handlers: Mapping[str, str]) -> int:
    """Run one claimed job to its end and return the exit code of this process.

    handlers: job kind to "module:function"; the function takes a JobContext and returns the job's result.
    """
    files = workspace.project(slug)
    with FileLock(files.job_lock(job_id)) as lock:
        if not lock.acquire():
            logger.error("job %d of %s is held by another process", job_id, slug)
            return LOST
        _log_to(files.job_log(job_id))
        lay_in(files.reserve)
        context = JobContext(workspace, slug, get_job(ProjectDatabase(files.database), job_id))
        if context.job.attempt != attempt or context.job.state not in ("running", "stopping"):
            logger.error("attempt %d of job %d is over", attempt, job_id)
            return LOST
        try:
            return _run(context, handlers)
        except JobLost:
            logger.warning("attempt %d of job %d was ended by others", attempt, job_id)
            return LOST
        except PeerDied as death:
            logger.error("%s", death)
            return PEER_DIED


def _run(context: JobContext, handlers: Mapping[str, str]) -> int:
    logger.info("job %d (%s), attempt %d", context.job.id, context.job.kind, context.job.attempt)
    context.start()
    # A machine that shuts down asks with SIGTERM; without this the work since the last checkpoint would be lost.
    signal.signal(signal.SIGTERM, lambda *_: context.request_stop("interrupted"))
    try:
        result = _load(handlers, context.job.kind)(context)
    except (JobLost, PeerDied):
        raise
    except (Stopped, Cancelled) as stop:
        return _leave(context, getattr(stop, "result", None))
    except RunPaused as pause:
        logger.warning("%s", _explain(pause))
        context.finish("paused", error=_explain(pause))
        return 0
    except UserError as error:
        logger.error("%s", error)
        context.finish("failed", error=str(error))
        return 1
    except BaseException as error:
        text = _explain(error)
        if _is_refusal(error):  # expected: where in the code it was raised helps nobody
            logger.error("%s", text)
        else:
            logger.exception("failed")
        context.finish("failed", error=text)
        return 1
    context.finish("done", result)
    logger.info("done")
    return 0


def _load(handlers: Mapping[str, str], kind: str) -> Handler:
    if kind not in handlers:
        raise UserError(f"There is no work of the kind {kind!r} (known: {', '.join(sorted(handlers))}).")
    module, _, name = handlers[kind].partition(":")
    return getattr(importlib.import_module(module), name)


def _leave(context: JobContext, result: dict[str, Any] | None) -> int:
    """End an attempt that was asked to stop; what the machine interrupted goes on by itself where it can."""
    if context.stop_reason != "interrupted":
        context.finish("paused" if context.stop_reason == "paused" else "cancelled", result)
    elif context.job.kind in GOES_ON:
        context.requeue()
        return LEFT
    else:
        context.finish("interrupted", result, "The worker process ended; this job stopped at a safe point.")
    return 0


def _is_refusal(error: BaseException) -> bool:
    """Whether it is one of the pipeline's own errors, whose messages speak to the user."""
    return type(error).__module__.partition(".")[0] == "app"


def _explain(error: BaseException) -> str:
    if _is_refusal(error):
        text = str(error)
        return text[:1].upper() + text[1:]
    if is_out_of_memory(error):
        return f"Out of memory: {error}. Take a smaller batch or image size."
    return "".join(traceback.format_exception_only(error)).strip()


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=NUM_OLD_LOGS, encoding="utf-8")
    handler.setFormatter(logging.Formatter(LINE_FORMAT, TIME_FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = lambda kind, error, trace: logger.critical("died", exc_info=(kind, error, trace))
