"""Which of a run's checkpoints are kept: the best three."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from app.pipeline.config import RunConfig
from app.pipeline.data.categories import CategoryMap
from app.pipeline.train.checkpoint import NUM_BEST, Scores, categories_to_json, tensors_of
from app.pipeline.train.write_behind import WriteBehind
from app.pipeline.types import CheckpointSaved, RunContext


class CheckpointKeeper:
    """Keeps the best three checkpoints of a run, written by ``writing``. All it remembers is in ``state_dict``."""

    def __init__(
        self, run_dir: Path, config: RunConfig, categories: CategoryMap, context: RunContext, writing: WriteBehind
    ) -> None:
        self._run_dir = run_dir
        self._writing = writing
        self._texts = {"config_json": config.model_dump_json(), "categories_json": categories_to_json(categories)}
        self._context = context
        self.kept: list[CheckpointSaved] = []  # the best first; their digests are known when they are written
        self._digests: dict[str, str] = {}
        self.best: dict[str, float] = {}

    def offer(
        self, model: torch.nn.Module, scores: Scores, epoch: int, step: int, then: Callable[[str], None] | None = None
    ) -> None:
        """Save the model if it is among the best three; ``then`` is called with the file's name when it lies there.

        What is kept instead of older ones is known at once; those are deleted when it lies there.
        """
        if len(self.kept) == NUM_BEST and scores.score <= self.kept[-1].score:
            return
        name = f"epoch_{epoch:04d}_map50_{scores.map50:.3f}_f1_{scores.f1:.3f}.pt"
        saved = CheckpointSaved(name, "", epoch, step, scores.map50, scores.f1, scores.score, is_last=False)
        ranked = sorted([*self.kept, saved], key=lambda kept: (-kept.score, kept.epoch))
        removed = tuple(old.file_name for old in ranked[NUM_BEST:])

        def tell(digest: str) -> None:
            self._digests[name] = digest
            for old in removed:
                (self._run_dir / old).unlink(missing_ok=True)
            self._context.emit(replace(saved, sha256=digest, removed=removed))
            if then is not None:
                then(name)

        self._writing.write(self._run_dir / name, self.contents(model, scores, epoch, step), tell)
        self.kept = ranked[:NUM_BEST]  # only now: the next saved state waits for the files it names
        if self.kept[0] is saved:
            self.best = {**scores.to_dict(), "epoch": epoch}

    def contents(self, model: torch.nn.Module, scores: Scores | None, epoch: int, step: int) -> dict[str, Any]:
        """What every checkpoint holds: ``model`` (tensors by name) and what it is, as text and numbers."""
        metrics = json.dumps(scores.to_dict() if scores else {})
        return {"model": tensors_of(model), **self._texts, "metrics_json": metrics, "epoch": epoch, "step": step}

    def state_dict(self) -> dict[str, Any]:
        """Plain values to go on from, together with :meth:`digests_of` what is kept now."""
        return {"kept": [{**asdict(one), "sha256": ""} for one in self.kept], "best": self.best}

    def digests_of(self, file_names: Sequence[str]) -> dict[str, str]:
        """SHA-256 by name; for files that are in place."""
        return {name: self._digests[name] for name in file_names}

    def load_state_dict(self, state: dict[str, Any], digests: dict[str, str]) -> None:
        """Go on from :meth:`state_dict`; what the folder has beyond or without that belongs to steps to be repeated.

        A file that better ones have displaced after the state was saved is missing, and comes to be displaced again.
        """
        self._digests = {one["file_name"]: one["sha256"] for one in state["kept"]} | digests
        self.kept = [
            CheckpointSaved(**{**one, "sha256": self._digests[one["file_name"]], "removed": ()})
            for one in state["kept"]
            if (self._run_dir / one["file_name"]).is_file()
        ]
        if not any(one.epoch == state["best"].get("epoch") for one in self.kept):
            best = self.kept[0] if self.kept else None
            state = {"best": {name: getattr(best, name) for name in ("map50", "f1", "score", "epoch")} if best else {}}
        self.best = state["best"]
        self.forget_others()

    def forget_others(self) -> None:
        """Delete the files of best checkpoints that are not kept."""
        names = {one.file_name for one in self.kept}
        for path in self._run_dir.glob("epoch_*.pt"):
            if path.name not in names:
                path.unlink()
