"""How functions are compiled: by numba, the results kept on disk where there is a place for them."""

import logging
from collections.abc import Callable

import numba

logger = logging.getLogger(__name__)

# Strict arithmetic (no fastmath): the results are compared bit by bit. Division by zero gives inf, as in numpy.
_OPTIONS = {"nopython": True, "error_model": "numpy", "nogil": True}

compiled = numba.jit(**_OPTIONS)


def kept_on_disk(function: Callable) -> Callable:
    """Compile ``function`` at its first call, and keep it for later processes.

    In ``__pycache__`` beside the source, or in the user's cache folder where that cannot be written
    (``NUMBA_CACHE_DIR`` names another); where neither can, each process compiles anew.
    """
    try:
        return numba.jit(cache=True, **_OPTIONS)(function)
    except RuntimeError as error:
        logger.warning("compiled functions cannot be kept, so each process compiles them anew: %s", error)
        return compiled(function)
