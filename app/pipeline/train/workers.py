"""Threads that prepare images: fewer where the machine cannot bear as many, in the end none. Imports no torch."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any

from app.pipeline.faults import is_short_of_resources
from app.pipeline.types import Log, RunContext

BLOCKED_AFTER_S = 120.0


class WorkersBlocked(TimeoutError):
    """Threads that prepare images have given nothing for too long; the message says what to do."""


class Workers:
    """Runs work in ``num`` threads; without threads, at once where it is submitted.

    What the work gives must not depend on the number of threads: it is done again after :meth:`shrink`.
    """

    def __init__(self, num: int, context: RunContext, may_shrink: bool = True) -> None:
        self._context = context
        self._may_shrink = may_shrink
        self._pool = self._start(num)

    @property
    def num(self) -> int:
        return self._pool.num

    def submit(self, work: Callable[..., Any], *args: Any) -> Future:  # noqa: ANN401
        """Have ``work(*args)`` done; work that was submitted earlier begins earlier."""
        return self._pool.submit(work, *args)

    def shrink(self, error: Exception) -> None:
        """Give up what is under way and go on with half the threads, or without any when work is blocked.

        Raises ``error`` when fewer threads would not help against it, as WorkersBlocked when it is a TimeoutError.
        """
        is_blocked = isinstance(error, TimeoutError)
        if is_blocked and not self._may_shrink:
            raise WorkersBlocked(
                f"the threads that prepare images gave nothing for {BLOCKED_AFTER_S:.0f} s: look whether the disk with "
                "the images answers, then retry the run, or switch fewer_workers_when_reading_fails on"
            ) from error
        if not self._may_shrink or not self.num or not (is_blocked or is_short_of_resources(error)):
            raise error
        before = self.num
        self._pool.shutdown(wait=not is_blocked, cancel_futures=True)
        self._pool = self._start(0 if is_blocked else before // 2)
        reason = f"nothing came for {BLOCKED_AFTER_S:.0f} s" if is_blocked else str(error)
        self._tell(before, reason)

    def close(self, wait: bool = True) -> None:
        """Drop the work that has not begun, and ``wait`` for that under way."""
        self._pool.shutdown(wait=wait, cancel_futures=True)

    def _start(self, num: int) -> "_Threads":
        try:
            return _Threads(num)
        except RuntimeError as error:  # the system gives no more threads
            if not self._may_shrink or not num:
                raise
            pool = self._start(num // 2)
            self._tell(num, str(error), pool.num)
            return pool

    def _tell(self, before: int, reason: str, now: int | None = None) -> None:
        now = self.num if now is None else now
        how = f"{now} thread{'' if now == 1 else 's'}" if now else "the training's own thread"
        text = f"Preparing images with {before} threads failed ({reason}): from here on {how} prepares them"
        self._context.emit(Log(f"{text}, which may be slower.", "warning"))


class _Threads(Executor):
    """Like ThreadPoolExecutor, but a thread that is blocked for ever does not keep the process from leaving."""

    def __init__(self, num: int) -> None:
        self._tasks: SimpleQueue = SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name=f"loader-{at}", daemon=True) for at in range(num)]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:
            self._threads = [thread for thread in self._threads if thread.ident is not None]
            self.shutdown()
            raise

    @property
    def num(self) -> int:
        return len(self._threads)

    def submit(self, work: Callable[..., Any], /, *args: Any) -> Future:  # noqa: ANN401
        future: Future = Future()
        if self._threads:
            self._tasks.put((future, work, args))
        else:
            _do(future, work, args)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        while cancel_futures:
            try:
                if (task := self._tasks.get_nowait()) is not None:  # None: a thread was told to leave
                    task[0].cancel()
            except Empty:
                break
        for _ in self._threads:
            self._tasks.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            _do(*task)
            del task  # or the result would live until the next one


def _do(future: Future, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(work(*args))
        except BaseException as error:
            future.set_exception(error)
