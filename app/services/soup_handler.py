"""The work of soup jobs. Torch is imported inside functions that only a job's process calls."""

from pathlib import Path
from typing import Any

import orjson

from app.errors import BadRequest
from app.jobs.context import JobContext, Stopped
from app.pipeline.data.snapshot import load_snapshot
from app.pipeline.evaluate.coco_numbers import GroundTruth, evaluate
from app.pipeline.evaluate.selection import DEFAULT_METRIC, selection_score
from app.services.sweeping import GREEDY_SPLIT, members_path
from app.store import runs
from app.store.files import replacing


def mix(job: JobContext) -> dict[str, Any]:
    """Mix the checkpoints that the payload names into a soup, and record it as a checkpoint of their run.

    Payload: run_id, recipe (uniform, greedy), file_name and members (file names, the best first). The result has
    checkpoint_id and members: those that are in it.
    """
    from app.pipeline.soup import mix_all, mix_greedily

    run_id = int(job.payload["run_id"])
    folder = job.files.run(run_id)
    paths = [folder / name for name in job.payload["members"]]
    target = folder / job.payload["file_name"]
    if job.payload["recipe"] == "greedy":
        soup = mix_greedily(paths, target, _judge_of(job, run_id, folder, len(paths)))
    else:
        soup = mix_all(paths, target)
    with replacing(members_path(target)) as path:
        path.write_bytes(orjson.dumps(list(soup.members)))
    with job.write() as db:
        checkpoint_id = runs.put_checkpoint(
            db,
            run_id,
            epoch=soup.epoch,
            step=soup.step,
            file_name=target.name,
            sha256=soup.sha256,
            map50=None,
            f1=None,
            score=None,  # never the run's best by itself: people choose it where it is better
            is_last=False,
        )
    return {"checkpoint_id": checkpoint_id, "members": list(soup.members)}


def _judge_of(job: JobContext, run_id: int, folder: Path, num_trials: int) -> Any:  # noqa: ANN401 (a function)
    """Scores a checkpoint file on the validation split by the run's selection metric; raises Stopped."""
    from app.pipeline.predict import load_detector

    snapshot = load_snapshot(folder / "dataset.json")
    samples = snapshot.split(GREEDY_SPLIT)
    if not samples:
        raise BadRequest(f"A greedy soup is chosen on the {GREEDY_SPLIT} split, and the run's dataset has none.")
    metric = runs.get_run(job.database, run_id).config.get("selection_metric", DEFAULT_METRIC)
    done = 0

    def score(path: Path) -> float:
        nonlocal done
        found = dict(load_detector(path).predict_samples(samples, job.run_context(lambda event: None)))
        if job.should_stop():
            raise Stopped
        done += 1
        job.set_progress(done, num_trials, "trying members")
        readable = [sample for sample in samples if sample.image_id in found]
        result = evaluate(GroundTruth.from_samples(readable, snapshot.categories), found)
        return selection_score(metric, {name: getattr(result, name) for name in ("map", "map50", "map75", "f1")})

    return score
