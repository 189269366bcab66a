"""Functions that the tests of the helper run in its process."""

import os
import signal
import threading

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
