"""What the warm helper does before its first call, in its own process: the slow beginnings of interactive work."""

import logging
import threading

from app.pipeline.augment.preview import warm_up as warm_up_previews

logger = logging.getLogger(__name__)


def warm_up() -> None:
    """Make previews ready; then, beside the first calls, compile what fusing and comparing need and keep it on disk."""
    warm_up_previews()
    threading.Thread(target=_compile, name="compile", daemon=True).start()


def _compile() -> None:
    from app.pipeline.evaluate import bootstrap
    from app.pipeline.fusion import judging_kernel, kernels

    kernels.warm_up()
    judging_kernel.warm_up()
    bootstrap.warm_up()
    logger.info("fusing and comparing are compiled")
