"""Judging the model during a run: predictions on the validation split, and what they score."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from app.pipeline.data.categories import CategoryMap
from app.pipeline.data.pixels import ResizedImages
from app.pipeline.data.snapshot import Sample, Samples
from app.pipeline.evaluate.coco_numbers import GroundTruth, evaluate
from app.pipeline.predict import Detector
from app.pipeline.train.checkpoint import Scores
from app.pipeline.train.estimate import MAX_JUDGED_SHARE
from app.pipeline.train.ranks import Ranks
from app.pipeline.train.unreadable import UnreadableImages
from app.pipeline.types import Detections, Log, PredictionTime, RunContext


def _raise(error: Exception) -> None:
    raise error


@dataclass(frozen=True, eq=False)
class Judgement:
    """Scores with the predictions they were computed from, by image id, unfiltered, and how long those took."""

    scores: Scores
    detections: dict[int, Detections]
    took: PredictionTime | None = None


class Judge:
    """Judges a detector on the validation split, never on augmented images and never without the last few of them.

    ``every`` epochs; 0 spaces judgements so that they take at most a fifth of the run's time.
    """

    def __init__(
        self,
        samples: Samples,
        categories: CategoryMap,
        images: ResizedImages,
        every: int,
        context: RunContext,
        metric: str = "map50_f1",
        ranks: Ranks | None = None,
        unreadable: UnreadableImages | None = None,
    ) -> None:
        self._ranks = ranks or Ranks()
        self._unreadable = unreadable or UnreadableImages(len(samples), context)
        self._samples = samples
        self._categories = categories
        self._images = images
        self._every = every
        self._metric = metric
        # Only should_stop and logs: the progress shown is the run's, not that of one validation.
        self._context = RunContext(emit=lambda event: _pass_logs(event, context), should_stop=context.should_stop)
        self._spent_s = 0.0
        self._started = time.monotonic()

    def is_due(self, epoch: int, num_epochs: int) -> bool:
        """Whether to judge after this epoch; always after the last."""
        if not self._samples:
            return False
        if epoch == num_epochs:
            return True
        if self._every:
            return epoch % self._every == 0
        return self._spent_s <= MAX_JUDGED_SHARE * (time.monotonic() - self._started)

    def judge(self, detector: Detector, relieve: Callable[[Exception], None] = _raise) -> Judgement | None:
        """Predict and score; None when asked to stop in the middle, or when there is no labelled box to score on.

        ``relieve`` makes room after an error, so that the validation can be repeated, or raises what it ends with.
        """
        started = time.monotonic()
        detector.batch_size = min(self._ranks.gather("validation batch", detector.batch_size))
        with self._ranks.together():
            found = self._predict(detector, relieve)
        detections: dict[int, Detections] = {}
        for part in self._ranks.gather("detections", found):
            detections |= part
        if self._context.should_stop():
            return None
        readable = self._samples.select(np.isin(self._samples.image_ids, list(detections)))
        result = evaluate(GroundTruth.from_samples(readable, self._categories), detections)
        self._spent_s += time.monotonic() - started
        if result.map50 < 0:
            return None
        scores = Scores(result.map, result.map50, result.map75, result.f1, self._metric)
        return Judgement(scores, detections, detector.took)

    def _predict(self, detector: Detector, relieve: Callable[[Exception], None]) -> dict[int, Detections]:
        """What this rank has to predict, all of it in one go."""
        samples = self._own_samples(detector)
        while True:
            try:
                found = detector.predict_samples(samples, self._context, self._images, skip=self._unreadable.note)
                return dict(found)
            except Exception as error:
                failure = error
            relieve(failure)  # not in the clause: errors to come would be taken for consequences of this one
            del failure  # its frames hold images and tensors

    def _own_samples(self, detector: Detector) -> Sequence[Sample]:
        """The share of this rank, in whole batches: each is predicted in the company that it has in one process."""
        rank, count = self._ranks.rank, self._ranks.count
        if count == 1:
            return self._samples
        return [sample for at, sample in enumerate(self._samples) if at // detector.batch_size % count == rank]

    def state_dict(self) -> dict[str, float]:
        """Plain values to go on from: the seconds that judging took, and those since the start."""
        return {"spent_s": self._spent_s, "elapsed_s": time.monotonic() - self._started}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from :meth:`state_dict`."""
        self._spent_s = state["spent_s"]
        self._started = time.monotonic() - state["elapsed_s"]


class Patience:
    """Counts validations without a better score; ``limit`` 0 never runs out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._best: float | None = None
        self.num_in_vain = 0

    def note(self, score: float) -> None:
        """Take in the score of a validation, higher is better."""
        if self._best is None or score > self._best:
            self._best, self.num_in_vain = score, 0
        else:
            self.num_in_vain += 1

    def state_dict(self) -> dict[str, float | None]:
        """Plain values to go on from."""
        return {"best": self._best, "num_in_vain": self.num_in_vain}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """Go on from :meth:`state_dict`."""
        self._best, self.num_in_vain = state["best"], int(state["num_in_vain"])

    @property
    def is_out(self) -> bool:
        return self._limit > 0 and self.num_in_vain >= self._limit


def _pass_logs(event: object, context: RunContext) -> None:
    if isinstance(event, Log):
        context.emit(event)
