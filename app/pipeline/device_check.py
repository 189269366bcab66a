"""One real kernel and one NMS on the device: ``python -m app.pipeline.device_check`` prints what came of it as JSON."""

import json
import sys
from collections.abc import Callable
from typing import Any


def check_device() -> dict[str, Any]:
    """Facts on torch and its device; ``kernel`` and ``nms`` are "" when they gave the right answer, else the reason.

    Only ``error`` is there when torch or torchvision cannot be imported.
    """
    try:
        import torch
        import torchvision
    except Exception as error:  # a broken build raises anything from ImportError to OSError
        return {"error": f"{type(error).__name__}: {error}"}
    device = _device(torch)
    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda_build": torch.version.cuda or "",
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else "",
        "num_threads": torch.get_num_threads(),
        "kernel": _reason(lambda: _run_kernel(device)),
        "nms": _reason(lambda: _run_nms(device)),
    }


def _device(torch: Any) -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _run_kernel(device: str) -> None:
    """A convolution of ones by ones: each inner sum is 3 * 3 * 8."""
    import torch

    sums = torch.nn.functional.conv2d(torch.ones(1, 8, 16, 16, device=device), torch.ones(4, 8, 3, 3, device=device))
    if not torch.allclose(sums.cpu(), torch.full((1, 4, 14, 14), 72.0)):
        raise ArithmeticError(f"a convolution gave {sums.flatten()[0].item()} instead of 72")


def _run_nms(device: str) -> None:
    """Of two boxes with IoU 0.81 only the better one stays."""
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 9, 9], [20, 20, 30, 30]], device=device)
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.5).tolist()
    if kept != [0, 2]:
        raise ArithmeticError(f"NMS kept {kept} instead of [0, 2]")


def _reason(check: Callable[[], None]) -> str:
    try:
        check()
    except Exception as error:  # whatever the driver raises is the finding
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(check_device()) + "\n")
