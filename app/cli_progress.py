"""How far work is, on standard error: one line that moves on a terminal, else a line now and then.

Work that ends within a second shows nothing. A thread keeps the line moving while numbers are crunched.
"""

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from app.errors import Cancelled
from app.records import Job
from app.services import jobs
from app.services.context import Services

SHOW_AFTER_S = 1.0
MOVE_EVERY_S = 0.25  # on a terminal
LINE_EVERY_S = 2.0  # where standard error is no terminal
STATES = {"queued": "Waiting for its turn", "stopping": "Stopping"}
BEHIND_A_JOB = "Reading what it made"


class ProgressLine:
    """What goes on, how far it is and how long it still takes; gone when the work is over."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.job: Job | None = None  # the last one that was shown
        self._clock = clock
        self._is_terminal = sys.stderr.isatty()
        self._guard = threading.Lock()
        self._is_over = threading.Event()
        self._mover = threading.Thread(target=self._move, name="progress", daemon=True)
        self._begun = clock()
        self._what, self._done, self._total = "", 0.0, 0.0
        self._since = self._told_at = self._begun  # when this began, and when it was last told of
        self._paced_from = (self._begun, 0.0)  # when, and how much was done then
        self._end: float | None = None  # when the work should end, as whoever does it says
        self._shown_at, self._shown, self._width = self._begun + SHOW_AFTER_S - LINE_EVERY_S, "", 0

    def __enter__(self) -> "ProgressLine":
        self._mover.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_over.set()
        self._mover.join()
        if self._width:
            self._write(f"\r{'':<{self._width}}\r")

    def show_job(self, job: Job) -> None:
        """A job that is waited for, at each new state or progress."""
        self.job = job
        if job.is_finished:
            return self._set(BEHIND_A_JOB, 0, 0, None)
        told = job.progress if job.state == "running" else {}
        what = STATES.get(job.state) or told.get("message") or "Starting"
        return self._set(what, told.get("done", 0), told.get("total", 0), told.get("eta_s"))

    def show_part(self, what: str, guess_s: float) -> None:
        """Work that cannot tell how far it is, and about how long it takes."""
        self._set(what, 0, 0, guess_s)

    def show_count(self, done: float, total: float, what: str) -> None:
        """Work that counts; the time that is left goes by its pace."""
        with self._guard:
            is_known = not done and self._what == what and self._end is not None
        if not is_known:  # else a guess says more than a count of nothing
            self._set(what, done, total, None)

    def counter(self, what: str) -> Callable[[int, int], None]:
        """As :meth:`show_count`, for those who tell numbers only."""
        return lambda done, total: self.show_count(done, total, what)

    def text(self) -> str:
        """The line as it is now: "Predicting: 40 %, about 12 s left"."""
        with self._guard:
            share = f": {100 * self._done / self._total:.0f} %" if self._total else ""
            left = self._left_s()
            spent = self._clock() - self._since
            time_text = f"about {in_words(left)} left" if left is not None else f"{in_words(spent)} so far"
            return f"{self._what[:1].upper()}{self._what[1:]}{share}, {time_text}"

    def _set(self, what: str, done: float, total: float, left_s: float | None) -> None:
        with self._guard:
            now = self._clock()
            if what != self._what:
                self._since = now
            if (what != self._what and total != self._total) or done <= self._paced_from[1]:
                self._paced_from = (now, done)
            self._what, self._done, self._total, self._told_at = what, done, total, now
            self._end = None if left_s is None else now + left_s

    def _left_s(self) -> float | None:
        """Seconds; None where nobody told, nothing has moved yet, or what was told has passed."""
        now = self._clock()
        if self._end is not None:
            return self._end - now if self._end > now else None
        began, done = self._paced_from
        moved = self._done - done
        if moved <= 0:
            return None
        return (self._told_at - began) * (self._total - self._done) / moved - (now - self._told_at)

    def _move(self) -> None:
        while not self._is_over.wait(MOVE_EVERY_S):
            self._show()

    def _show(self) -> None:
        now, text = self._clock(), self.text()
        if not self._what or now - self._begun < SHOW_AFTER_S:
            return
        if self._is_terminal:
            text = text[: shutil.get_terminal_size().columns - 1]
            self._write(f"\r{text:<{self._width}}")
            self._width = len(text)
        elif now - self._shown_at >= LINE_EVERY_S and text != self._shown:
            self._shown_at, self._shown = now, text
            self._write(f"{text}\n")

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


@contextmanager
def stoppable(services: Services, slug: str, what: str) -> Iterator[ProgressLine]:
    """A line for a command that waits; Ctrl+C ends what it does, but no job that was there before it.

    ``what`` begins the sentence that is said then. Raises Cancelled.
    """
    began = time.time()
    with ProgressLine() as line:
        try:
            yield line
        except KeyboardInterrupt:
            raise _stop(services, slug, what, line.job, began) from None


def _stop(services: Services, slug: str, what: str, job: Job | None, began: float) -> Cancelled:
    if job is None or jobs.get(services, slug, job.id).is_finished:
        return Cancelled(f"{what} was stopped from the keyboard.", "Nothing half-written is left; it can begin anew.")
    if job.created_at < began:
        hint = "It was begun before this command: the page that began it can stop it."
        return Cancelled(f"{what} was stopped from the keyboard; job {job.id} ({job.kind}) goes on.", hint)
    jobs.cancel(services, slug, job.id)
    return Cancelled(
        f"{what} was stopped from the keyboard, and job {job.id} ({job.kind}) with it.",
        "What it had finished is kept; the same command goes on from there.",
    )


def in_words(seconds: float) -> str:
    """Seconds as "2 h 5 min", "3 min 20 s" or "12 s", as on the screen."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
