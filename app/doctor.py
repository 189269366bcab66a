"""What this machine can do, and one line on what to do where it cannot. Torch is loaded in a process of its own."""

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROBE_S = 300
CUDA_INDEX = "https://download.pytorch.org/whl/cu126"


def main() -> int:
    """Print the report; returns 0 when the device works, else 1."""
    gpus = nvidia_gpus()
    facts = probe()
    is_fine, verdict = judge(facts, gpus, sys.platform)
    lines = [*machine_lines(gpus), *torch_lines(facts), "", ("OK. " if is_fine else "To mend: ") + verdict]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if is_fine else 1


def machine_lines(gpus: list[str]) -> list[str]:
    """The machine, system, Python, memory and NVIDIA GPUs, one a line."""
    try:
        import psutil

        memory = f"{psutil.virtual_memory().total / 2**30:.1f} GiB, {psutil.cpu_count()} CPU threads"
    except ImportError as error:
        memory = explain_import_error(error)
    return [
        f"System:   {platform.platform()} ({platform.machine()})",
        f"Python:   {platform.python_version()} at {sys.executable}",
        f"Memory:   {memory}",
        *([f"GPU:      {gpu}" for gpu in gpus] or ["GPU:      no NVIDIA GPU or driver found"]),
    ]


def torch_lines(facts: Mapping[str, Any]) -> list[str]:
    """What torch is and what the two checks on its device gave."""
    if "error" in facts:
        return [f"Torch:    {facts['error']}"]
    build = f"CUDA {facts['cuda_build']}" if facts["cuda_build"] else "CPU build"
    device = " ".join(part for part in (facts["device"], facts["device_name"]) if part)
    return [
        f"Torch:    {facts['torch']} ({build}), torchvision {facts['torchvision']}",
        f"Device:   {device}",
        f"Kernel:   {facts['kernel'] or 'right'}",
        f"NMS:      {facts['nms'] or 'right'}",
    ]


def judge(facts: Mapping[str, Any], gpus: list[str], system: str) -> tuple[bool, str]:
    """Whether training will work as well as this machine allows, and what to do (``system`` as in sys.platform)."""
    if "error" in facts:
        return False, f"torch does not start; run `pip install -e .` again in this environment ({facts['error']})"
    if "does not exist" in facts["nms"] or "torchvision" in facts["nms"]:
        return False, "torch and torchvision do not fit together; run `pip install --force-reinstall torch torchvision`"
    if facts["kernel"] or facts["nms"]:
        return False, _advice_on_failure(facts)
    if gpus and not facts["cuda_build"]:
        where = "On Windows the ordinary `pip install torch` brings a CPU build; " if system == "win32" else ""
        command = f"pip install --force-reinstall torch torchvision --index-url {CUDA_INDEX}"
        return False, f"{where}this torch cannot use the GPU: run `{command}`"
    if gpus and facts["device"] != "cuda":
        return False, (
            f"torch finds no usable GPU though there is one: the driver is too old for CUDA {facts['cuda_build']} "
            "(update it from nvidia.com), or CUDA_VISIBLE_DEVICES hides the GPU"
        )
    if facts["device"] == "cpu":
        return True, "Training runs on the CPU: choose a small model and image size (the form suggests them)."
    return True, f"Training runs on {facts['device_name'] or facts['device']}."


def _advice_on_failure(facts: Mapping[str, Any]) -> str:
    reason = facts["kernel"] or facts["nms"]
    if "no kernel image" in reason:
        return f"this torch was not built for this GPU; install another build of torch (pytorch.org), reason: {reason}"
    if "out of memory" in reason:
        return f"another program holds the GPU's memory; end it and try again ({reason})"
    if facts["device"] == "cuda":
        return f"the GPU fails: update the NVIDIA driver and restart; until then train with device = cpu ({reason})"
    return f"torch computes wrongly here; run `pip install --force-reinstall torch torchvision` ({reason})"


def explain_import_error(error: ImportError) -> str:
    """One sentence for a package or a system library that is not there; a fault of our own is raised again."""
    if (error.name or "").partition(".")[0] == "app":
        raise error
    text = str(error)
    for library, package in (("libGL", "libgl1"), ("libgthread", "libglib2.0-0"), ("libglib", "libglib2.0-0")):
        if library in text:
            return (
                f"OpenCV needs the system library {library}, which this machine lacks: "
                f"run `sudo apt-get install {package}` (or your system's package for it), then start again."
            )
    if isinstance(error, ModuleNotFoundError):
        return f"The package {error.name!r} is not installed: run `pip install -e .` in this folder, then start again."
    return f"A package does not load ({text}): run `pip install -e .` in this folder, then start again."


def nvidia_gpus() -> list[str]:
    """Name, driver version and memory of each NVIDIA GPU, as its driver tells; empty without one."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[field.strip() for field in line.split(",")] for line in answer.stdout.splitlines()]
    return [f"{row[0]}, driver {row[1]}, {row[2]}" for row in rows if len(row) == 3]


def probe() -> dict[str, Any]:
    """What :mod:`app.pipeline.device_check` found in a process of its own; a crash there is a finding, too."""
    command = [sys.executable, "-m", "app.pipeline.device_check"]
    folder = Path(__file__).resolve().parent.parent
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, check=False, cwd=folder)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {PROBE_S} s"}
    try:
        return json.loads(answer.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last_line = (answer.stderr.strip().splitlines() or ["nothing on its error output"])[-1]
        return {"error": f"the check ended with code {answer.returncode}: {last_line}"}
