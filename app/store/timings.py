"""Seconds an image that detectors took on this machine: one file of the workspace, for all its projects."""

from typing import Any

import orjson

from app.store.files import Workspace, replacing

_KEY = ("model", "image_size", "device")


def all_of(workspace: Workspace) -> list[dict[str, Any]]:
    """Every timing kept, oldest first: model, image_size, device, train_s, predict_s, measured_at.

    Maybe more, as ``speedup``: how many times as fast as a plain torchvision step.
    """
    path = workspace.hidden("timings.json")
    try:
        kept = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):  # a damaged one is only measured anew
        return []
    return [one for one in kept if all(name in one for name in (*_KEY, "train_s", "predict_s"))]


def keep(workspace: Workspace, timing: dict[str, Any]) -> None:
    """Add a timing, in place of the one of the same model, image size and device.

    A speed-up, which few measurements tell, outlives those that do not.
    """
    others, speedups = [], {}
    for one in all_of(workspace):
        if any(one[name] != timing[name] for name in _KEY):
            others.append(one)
        elif "speedup" in one:
            speedups["speedup"] = one["speedup"]
    with replacing(workspace.hidden("timings.json")) as path:
        path.write_bytes(orjson.dumps([*others, {**speedups, **timing}]))
