"""Compile what fusing and comparing need, and leave it on disk for the jobs: a process of its own when the app starts.

Not the warm helper: that one loads torch, which takes seconds and half a GB, and starts only when a preview wants it.
"""

import os

NICENESS = 10  # the first page comes first


def main() -> None:
    """Seconds the first time on a machine; then a look at the files."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    from app.pipeline.evaluate import bootstrap
    from app.pipeline.fusion import judging_kernel, kernels

    kernels.warm_up()
    judging_kernel.warm_up()
    bootstrap.warm_up()


if __name__ == "__main__":
    main()
