"""Functions that the tests of the helper run in its process."""

import os
import signal
import sys
import threading
import time

from app.errors import UserError


class OddValue(ValueError):
    """A child class that only this module knows."""


def warm_up():
    """Nothing to load."""


def add(a, b):
    return a + b


def process_id():
    return os.getpid()


def print_and_return(text):
    os.write(1, text.encode())
    return "done"


def fail(kind):
    if kind == "value":
        raise OddValue("bad value")
    if kind == "file":
        raise FileNotFoundError("gone")
    if kind == "user":
        raise UserError("for the user")
    return 1 / 0


def die():
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()


def hang():
    threading.Event().wait()


def is_fusing_compiled(within_s):
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        module = sys.modules.get("app.pipeline.fusion.judging_kernel")  # the second of the two
        function = getattr(module, "judge_rows", None)
        if function is not None and function.signatures:
            return True
        time.sleep(0.05)
    return False
