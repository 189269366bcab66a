"""What the warm helper does before its first call, in its own process: the slow beginnings of interactive work."""

import logging
import threading

from app.pipeline.augment.preview import warm_up as warm_up_previews

logger = logging.getLogger(__name__)


def warm_up() -> None:
    """Make previews ready; then, beside the first calls, compile what fusing needs and keep it on disk for its jobs."""
    warm_up_previews()
    threading.Thread(target=_compile_fusion, name="compile fusion", daemon=True).start()


def _compile_fusion() -> None:
    from app.pipeline.fusion import judging_kernel, kernels

    kernels.warm_up()
    judging_kernel.warm_up()
    logger.info("fusing is compiled")
