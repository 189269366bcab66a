"""The warm helper: one process that has torch and albumentations loaded, so that the web process never needs them.

It is started in the background, answers one call at a time, is started again when it died, and ends with the app: its
standard input closes when this process is gone, however it went.
"""

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from app.errors import UserError
from app.jobs.process import module_command

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S = 60.0
_ROOT = Path(__file__).resolve().parents[2]  # where `python -m app…` finds the package, installed or not
WARM_UP = "app.pipeline.augment.preview:warm_up"


class HelperFailed(UserError):
    """The helper process died or did not answer."""


class _HelperDied(HelperFailed):
    """It died during the call, which may be tried again."""


class WarmHelper:
    """Handle of the helper process; made cheaply, the process starts with :meth:`start` or the first call."""

    def __init__(self, warm_up: str = WARM_UP) -> None:
        self._warm_up = warm_up
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self._is_closed = False
        self._turn = threading.Lock()  # one call at a time

    @property
    def state(self) -> Literal["off", "warming", "ready"]:
        """Whether calls are answered at once."""
        process = self._process
        if process is None or process.poll() is not None:
            return "off"
        return "ready" if self._is_ready else "warming"

    @property
    def pid(self) -> int | None:
        """The process's id while it lives."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Begin to warm up on a thread of its own; returns at once."""
        if self.state == "off":
            threading.Thread(target=self._start_quietly, name="warm-helper", daemon=True).start()

    def warm_up(self) -> None:
        """Start the process and wait until it answers at once. Raises HelperFailed."""
        with self._turn:
            self._running()

    def call(self, target: str, *, timeout_s: float = CALL_TIMEOUT_S, **arguments: Any) -> Any:  # noqa: ANN401
        """Run ``target`` ("package.module:function") in the helper and return its result.

        Arguments and results are plain values. Raises ValueError, OSError or UserError as the function did,
        RuntimeError for anything else it raised; HelperFailed when the process died twice or took longer
        than ``timeout_s``.
        """
        with self._turn:
            process, began = self._running(), time.monotonic()
            try:
                error, result = self._exchange(process, target, arguments, timeout_s)
            except _HelperDied as death:
                logger.warning("%s It is started again.", death.message)
                process, left_s = self._running(), timeout_s - (time.monotonic() - began)
                error, result = self._exchange(process, target, arguments, max(1.0, left_s))
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """End the process; later calls are refused."""
        self._is_closed = True
        self._end()

    def _start_quietly(self) -> None:
        try:
            with self._turn:
                self._running()
        except (OSError, UserError) as error:  # the next call tries again and tells the user
            logger.warning("the helper process did not start: %s", error)

    def _running(self) -> "subprocess.Popen[bytes]":
        """The process, warmed up."""
        if self._is_closed:
            raise HelperFailed("The app is shutting down.")
        if self._process is not None and self._process.poll() is None and self._is_ready:
            return self._process
        self._end()
        began = time.monotonic()
        command = module_command("app.jobs.helper")
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT)
        error, _ = self._exchange(self._process, self._warm_up, {}, CALL_TIMEOUT_S)
        if error is not None:
            raise HelperFailed(f"The helper process cannot start: {error}", "See the log.") from error
        self._is_ready = True
        logger.info("the helper process %d is warm after %.1f s", self._process.pid, time.monotonic() - began)
        return self._process

    def _exchange(
        self, process: "subprocess.Popen[bytes]", target: str, arguments: dict[str, Any], timeout_s: float
    ) -> tuple[Exception | None, Any]:
        """Ask and wait: (error, result) of the function. Raises HelperFailed, its child _HelperDied when it died."""
        is_late = threading.Event()

        def give_up() -> None:
            is_late.set()
            process.kill()

        timer = threading.Timer(timeout_s, give_up)
        timer.start()
        try:
            pickle.dump((target, arguments), process.stdin)
            process.stdin.flush()
            return pickle.load(process.stdout)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:  # ValueError: closed meanwhile
            code = self._end()
            if is_late.is_set():
                raise HelperFailed(
                    f"The helper process did not answer within {timeout_s:g} s.", "Try again."
                ) from error
            raise _HelperDied(
                f"The helper process died (exit code {code}).",
                "Try again; if that happens each time, the machine may be short of memory.",
            ) from error
        finally:
            timer.cancel()

    def _end(self) -> int | None:
        """Kill the process, if any, and return its exit code."""
        process, self._process, self._is_ready = self._process, None, False
        if process is None:
            return None
        process.kill()
        with suppress(OSError):  # what could not be written any more is lost with the process
            process.stdin.close()
        process.stdout.close()
        return process.wait()


_shared = WarmHelper()


def shared_helper() -> WarmHelper:
    """The one helper of this process."""
    return _shared


def main() -> None:
    """Answer calls from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the app, which then closes our input
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers
    questions = sys.stdin.buffer
    while True:
        try:
            target, arguments = pickle.load(questions)
        except EOFError:
            return
        pickle.dump(_answer(target, arguments), answers)
        answers.flush()


def _answer(target: str, arguments: dict[str, Any]) -> tuple[Exception | None, Any]:
    """(error, result). Errors become plain ones: unpickling another package's own would import it over there."""
    module, _, name = target.partition(":")
    try:
        return None, getattr(import_module(module), name)(**arguments)
    except UserError as error:
        return error, None
    except (ValueError, OSError) as error:
        return (ValueError if isinstance(error, ValueError) else OSError)(str(error)), None
    except Exception as error:
        logger.exception("%s failed", target)
        return RuntimeError(f"{type(error).__name__}: {error}"), None


if __name__ == "__main__":
    main()
    os._exit(0)  # there is nothing to tidy up, and unloading torch takes seconds
