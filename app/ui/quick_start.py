"""Importing Gradio without the work it does for code editors.

At every import Gradio writes a stub file beside each of its components, from their sources: 2.5 of 4.6 s here. It skips
a component whose source file cannot be told, so for the length of the import none can.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


def import_gradio() -> None:
    """Import Gradio; later imports find it there. Does nothing but import where it is there already."""
    with _no_source_files("gradio."):
        import gradio  # noqa: F401


@contextmanager
def _no_source_files(prefix: str) -> Iterator[None]:
    """Let ``inspect.getfile`` raise OSError for classes of modules that begin with ``prefix``."""
    original = inspect.getfile

    def getfile(item: Any) -> str:
        if isinstance(item, type) and item.__module__.startswith(prefix):
            raise OSError(f"the source of {item.__name__} is not needed")
        return original(item)

    with mock.patch.object(inspect, "getfile", getfile):
        yield
