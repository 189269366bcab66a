"""Images of the dataset that turn out unreadable during a run: one is skipped, many mean that something is wrong."""

import threading

from app.pipeline.data.snapshot import Sample
from app.pipeline.types import Log, RunContext

MAX_UNREADABLE = 50
MAX_UNREADABLE_SHARE = 0.01


class DatasetError(ValueError):
    """The data cannot be trained on; the message names the image and what is wrong with it."""


class UnreadableImages:
    """Counts the unreadable among ``num_images`` of a run, each once; safe to use from several threads."""

    def __init__(self, num_images: int, context: RunContext) -> None:
        self._most = min(MAX_UNREADABLE, max(1, int(num_images * MAX_UNREADABLE_SHARE)))
        self._seen: set[int] = set()
        self._context = context
        self._lock = threading.Lock()

    def note(self, sample: Sample, reason: str) -> None:
        """Skip an image, with a line in the log the first time; raises DatasetError when it is one too many."""
        with self._lock:
            if sample.image_id in self._seen:
                return
            self._seen.add(sample.image_id)
            self._context.emit(Log(f"Skipped: {reason}", "warning"))
            if len(self._seen) > self._most:
                raise DatasetError(
                    f"{len(self._seen)} images of the dataset cannot be read, the last: {reason}. "
                    "Check the disk, or import the dataset again"
                )
