"""What the machine is asked to do for a training."""

import platform
import subprocess
import sys

import pytest

# Each round takes a block as large as the gradient of a box head, writes to it and frees it.
PROGRAM = """
import resource, sys, torch
from app.pipeline.machine import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for number in range(30):
    torch.zeros(12_000_000).add_(1)
    if number == 19:  # until then it looks for places
        begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only Linux's C library is told to keep memory")
def test_freed_memory_is_kept_for_the_next_step():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, check=True).stdout)
        for how in ("kept", "given back")
    }
    assert faults["kept"] < faults["given back"] / 3, faults
