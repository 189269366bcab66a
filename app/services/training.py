"""Training runs as the user sees them: what to start with, start, follow, stop, rename, delete."""

import logging
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from app.errors import BadRequest, Conflict
from app.jobs.logs import remove_logs
from app.pipeline.config import RunConfig, parse_config
from app.pipeline.train.files import DIGESTS_NAME, LAST_NAME
from app.records import Checkpoint, Job, MetricPoint, Run, state_word
from app.services import jobs as job_service
from app.services.context import Services
from app.services.dataset import write_snapshot
from app.services.models import resolve_start
from app.services.run_checks import require_runnable
from app.services.suggestions import starting_values
from app.store import images as image_store
from app.store import jobs as job_store
from app.store import runs
from app.store.files import ProjectFiles, replacing, sync_folder

logger = logging.getLogger(__name__)

MAX_NAME_LENGTH = 100
RESUMED = ("paused", "interrupted")  # the states that each way to go on is meant for
RETRIED = ("failed", "cancelled", "interrupted")


def start_run(
    services: Services, slug: str, values: dict[str, Any] | None = None, preset: str = "", name: str = ""
) -> Run:
    """Freeze the dataset and the configuration into a run's folder and queue the run.

    Options come from what suits this machine and project, then ``preset``, then ``values`` (option name to value).
    Raises NotFound, BadRequest when the dataset cannot be trained on, ConfigError naming the options that do not fit
    each other, this machine or this project.
    """
    config = build_config(services, slug, values or {}, preset)
    require_runnable(services, slug, config)
    config = resolve_start(services, slug, config)
    require_training_images(services, slug)
    run = _create(services, slug, config, _checked_name(name, may_be_empty=True))
    job_service.ensure_worker(services)
    return run


def build_config(services: Services, slug: str, values: dict[str, Any], preset: str = "") -> RunConfig:
    """The configuration a run would get; raises ConfigError, and BadRequest for an unknown preset."""
    return parse_config(starting_values(services, slug, values, preset))


def list_runs(services: Services, slug: str) -> list[Run]:
    """All runs of a project, newest first."""
    return runs.list_runs(services.database(slug))


def get_run(services: Services, slug: str, run_id: int) -> Run:
    """One run; raises NotFound."""
    return runs.get_run(services.database(slug), run_id)


def checkpoints(services: Services, slug: str, run_id: int) -> list[Checkpoint]:
    """Kept checkpoints of a run, the best first, the last one at the end; raises NotFound."""
    return runs.list_checkpoints(services.database(slug), get_run(services, slug, run_id).id)


def metrics_after(
    services: Services, slug: str, run_id: int, after: int = 0, names: Sequence[str] | None = None, limit: int = 20_000
) -> tuple[list[MetricPoint], int]:
    """A run's numbers that are newer than the one with id ``after``, oldest first; raises NotFound.

    Also which attempt at telling them this is: when it is another than at the last call, ask again from the beginning,
    because what is told twice, before and after a death or a remedy, was taken back in between.
    """
    attempt = runs.numbers_attempt(services.database(slug), run_id)  # before the numbers: a new one shows next time
    run = get_run(services, slug, run_id)
    return runs.metrics_after(services.database(slug), run.id, after, names, limit), attempt


def log_tail(services: Services, slug: str, run_id: int) -> str:
    """The last 64 KB of a run's log."""
    return job_service.log_tail(services, slug, get_run(services, slug, run_id).job_id)


def stop_run(services: Services, slug: str, run_id: int) -> Run:
    """Stop a run; it keeps its checkpoints. Raises NotFound, BadRequest when it has ended."""
    job_service.cancel(services, slug, get_run(services, slug, run_id).job_id)
    return get_run(services, slug, run_id)


def pause_run(services: Services, slug: str, run_id: int) -> Run:
    """Let a run save where it stands and leave. Raises NotFound, BadRequest when it neither waits nor runs."""
    job_service.pause(services, slug, get_run(services, slug, run_id).job_id)
    return get_run(services, slug, run_id)


def resume_run(services: Services, slug: str, run_id: int) -> Run:
    """Let a paused or interrupted run go on from its last checkpoint. Raises NotFound, BadRequest."""
    return _start_again(services, slug, run_id, RESUMED)


def retry_run(services: Services, slug: str, run_id: int) -> Run:
    """Let a run that failed or was stopped go on from its last checkpoint, or begin again where there is none.

    Raises NotFound, BadRequest.
    """
    return _start_again(services, slug, run_id, RETRIED)


def move_run(services: Services, slug: str, run_id: int, to: str) -> Run:
    """Move a waiting run 'up' by one place or to the 'front'. Raises NotFound, BadRequest when it does not wait."""
    job_service.move(services, slug, get_run(services, slug, run_id).job_id, to)
    return get_run(services, slug, run_id)


def rename_run(services: Services, slug: str, run_id: int, name: str) -> Run:
    """Give a run another name; raises NotFound, BadRequest."""
    runs.rename_run(services.database(slug), run_id, _checked_name(name))
    return get_run(services, slug, run_id)


def delete_run(services: Services, slug: str, run_id: int) -> None:
    """Delete a run with its numbers, checkpoints, predictions and log. Raises NotFound, Conflict while it runs."""
    run = get_run(services, slug, run_id)
    if run.state in job_store.ACTIVE_STATES:
        raise Conflict(f"{run.name!r} is {run.state}.", "Stop it first.")
    files = services.files(slug)
    runs.delete_run(services.database(slug), run_id)
    shutil.rmtree(files.run(run_id), ignore_errors=True)
    remove_logs(files, run.job_id)


def wait_for(
    services: Services,
    slug: str,
    run_id: int,
    on_change: Callable[[Job], None] | None = None,
    timeout_s: float | None = None,
) -> Run:
    """Block until a run has ended and return it; ``on_change`` hears each new state and progress of its job."""
    job_service.wait_for(services, slug, get_run(services, slug, run_id).job_id, on_change, timeout_s)
    return get_run(services, slug, run_id)


def describe_result(services: Services, slug: str, run_id: int) -> dict[str, Any]:
    """A run for machines: run (id), state, attempt, pid, error, hung (with a sentence in warning), epoch (finished
    ones; also as epochs), best (figures and file, or None) and the kept checkpoints (id, path and figures; the
    best first, the last one at the end).
    """
    run = get_run(services, slug, run_id)
    kept = [item for item in checkpoints(services, slug, run_id) if item.score is not None]
    best: dict[str, Any] | None = None
    if kept:
        top = max(kept, key=lambda item: (item.score, -item.epoch))
        path = services.files(slug).run(run_id) / top.file_name
        best = {name: asdict(top)[name] for name in ("map50", "f1", "score", "epoch")} | {"checkpoint": str(path)}
    return {
        "run": run.id,
        "state": run.state,
        "attempt": run.attempt,
        "pid": run.pid,
        "error": run.error,
        "hung": bool(run.hung),
        "warning": run.hung,
        "epochs": run.epoch,
        "epoch": run.epoch,
        "best": best,
        "checkpoints": [_describe_checkpoint(services, slug, item) for item in checkpoints(services, slug, run_id)],
    }


def _describe_checkpoint(services: Services, slug: str, item: Checkpoint) -> dict[str, Any]:
    path = services.files(slug).run(item.run_id) / item.file_name
    figures = {name: getattr(item, name) for name in ("epoch", "map50", "f1", "score", "is_last")}
    return {"id": item.id, "path": str(path), **figures}


def _start_again(services: Services, slug: str, run_id: int, states: tuple[str, ...]) -> Run:
    run = get_run(services, slug, run_id)
    if run.state not in states and run.state in (*RESUMED, *RETRIED):
        way = "resume" if run.state in RESUMED else "retry"
        raise BadRequest(f"Run {run_id} is {state_word(run.state)}.", f"It goes on with {way}.")
    folder = services.files(slug).run(run_id)
    if run.state in states and (folder / LAST_NAME).is_file() and not (folder / DIGESTS_NAME).is_file():
        raise BadRequest(
            f"Run {run_id} was made by an earlier version of Anchorage, which did not save all that going on needs.",
            f"Start a new run from its weights: pretrained 'file', weights_file 'run:{run_id}'.",
        )
    job_service.start_again(services, slug, run.job_id, states)
    return get_run(services, slug, run_id)


def _create(services: Services, slug: str, config: RunConfig, name: str) -> Run:
    """Write the folder aside, then move it into place in the transaction that queues the run: all of it or nothing."""
    files, database = services.files(slug), services.database(slug)
    aside = files.runs / f".new-{secrets.token_hex(6)}"  # beside the runs: the snapshot's image paths are relative
    placed: Path | None = None
    try:
        with database.read() as db:  # before the snapshot: what changes in between is told of rather than missed
            version = image_store.labels_version(db)
        write_snapshot(services, slug, aside / "dataset.json")
        with replacing(aside / "config.json") as path:
            path.write_bytes(orjson.dumps(config.model_dump(mode="json"), option=orjson.OPT_INDENT_2))
        with database.write() as db:
            job = job_store.enqueue(db, "train", {})
            run_id = runs.create_run(db, job.id, name, config.model_dump(mode="json"))
            job_store.set_payload(db, job.id, {"run_id": run_id, "labels_version": version, **_for_the_worker(config)})
            placed = _place(files, aside, run_id)
    except BaseException:
        for leftover in (aside, placed):
            if leftover is not None:
                shutil.rmtree(leftover, ignore_errors=True)
        raise
    logger.info("queued run %d of %s", run_id, slug)
    return get_run(services, slug, run_id)


def _for_the_worker(config: RunConfig) -> dict[str, Any]:
    """The options that the worker looks at, where they are not as usual: it does not read the run's folder."""
    usual = {"processes": 1, "flag_when_hung": True}
    return {name: getattr(config, name) for name, value in usual.items() if getattr(config, name) != value}


def _place(files: ProjectFiles, aside: Path, run_id: int) -> Path:
    target = files.run(run_id)
    shutil.rmtree(target, ignore_errors=True)  # of a deleted run whose number is used again
    aside.rename(target)
    sync_folder(files.runs)
    return target


def require_training_images(services: Services, slug: str) -> None:
    """Raise BadRequest when no image of the split "train" has a box."""
    with services.database(slug).read() as db:
        images = [image for image in image_store.all_of(db, "train") if not image.problem]
    if not any(image.num_annotations for image in images):
        raise BadRequest(
            f"Training needs labeled images in the split 'train'; there are {len(images)} images in it, none labeled.",
            "Import a dataset, label images, or move labeled ones to 'train' on the Data page.",
        )


def _checked_name(name: str, *, may_be_empty: bool = False) -> str:
    name = name.strip()
    if len(name) > MAX_NAME_LENGTH or not name.isprintable() or not (name or may_be_empty):
        raise BadRequest(f"A run's name must have 1 to {MAX_NAME_LENGTH} printable characters, got {name[:40]!r}.")
    return name
