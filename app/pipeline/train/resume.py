"""Where a run stands, on disk: two files and their digests, so that a kill at any moment leaves one to go on from.

``last.pt`` is the newest, ``previous.pt`` the one before. ``last.sha256`` names the digests of the newest complete
files, whatever they are called at the moment: it is written before they are moved, so a file that it does not name was
not written to its end, or was damaged since.
"""

import hashlib
import logging
import platform
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from app.pipeline.machine import Machine
from app.pipeline.train.checkpoint import CheckpointError, sync_file, sync_folder
from app.pipeline.train.files import DIGESTS_NAME, LAST_NAME, PREVIOUS_NAME
from app.pipeline.train.write_behind import WriteBehind

FORMAT = 1  # raised when what is needed to go on changes its form
_NUM_DIGESTS = 32  # more than are of use: of the files being placed, replaced, and before; old ones do no harm

logger = logging.getLogger(__name__)


def save_state(
    run_dir: Path,
    contents: dict[str, Any],
    writing: WriteBehind,
    then: Callable[[str], None],
    late: Callable[[], dict[str, Any]] = dict,
    is_in_place: bool = False,
) -> None:
    """Have ``contents`` made the newest state by ``writing``, keeping the one before; ``then`` gets its SHA-256.

    ``late``: as in WriteBehind.write. ``is_in_place``: the newest so far is of the same step, and gives way; the one
    before is to be of an earlier one.
    """

    def make_room(digest: str) -> None:
        _write_digests(run_dir, [digest, *_read_digests(run_dir)][:_NUM_DIGESTS])
        if (run_dir / LAST_NAME).exists() and not is_in_place:
            (run_dir / LAST_NAME).replace(run_dir / PREVIOUS_NAME)

    writing.write(run_dir / LAST_NAME, {**contents, "format": FORMAT}, then, make_room, late)


def load_state(run_dir: Path) -> tuple[dict[str, Any], str] | None:
    """The newest whole state with its SHA-256, which is ``last.pt`` from now on; None where no run has begun.

    Raises CheckpointError when there is something, but nothing to go on from.
    """
    last, previous = run_dir / LAST_NAME, run_dir / PREVIOUS_NAME
    found = [path for path in (last, previous) if path.is_file()]
    if not found:
        return None
    digests = _read_digests(run_dir)
    if not digests:
        raise CheckpointError(
            "this run was made by an earlier version of Anchorage, whose last checkpoint does not hold all that is "
            "needed to go on exactly. Start a new run from its weights (pretrained 'file', weights_file 'run:ID')"
        )
    for path in found:
        digest = _digest_of(path)
        if digest not in digests:
            logger.warning("%s is damaged: its SHA-256 is not the one that was written down", path)
            continue
        if path != last:
            path.replace(last)
            sync_folder(run_dir)
        return _read(last), digest
    names = " and ".join(path.name for path in found)
    raise CheckpointError(
        f"{names} in {run_dir} {'is' if len(found) == 1 else 'are'} damaged, so the run cannot go on. "
        "Check the disk; start a new run, or from the weights of one of its best checkpoints"
    )


def go_back_before(run_dir: Path, step: int) -> None:
    """Let the newest state of fewer steps than ``step`` be the one that ``load_state`` gives, where there is one."""
    found = load_state(run_dir)
    last, previous = run_dir / LAST_NAME, run_dir / PREVIOUS_NAME
    if found is None or found[0]["step"] < step or not previous.is_file():
        return
    if _digest_of(previous) in _read_digests(run_dir) and _read(previous)["step"] < step:
        previous.replace(last)
        sync_folder(run_dir)


def remove_leftovers(run_dir: Path) -> None:
    """Delete files that a killed process was writing. Only for the one process that holds the run."""
    for path in run_dir.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def random_states(machine: Machine) -> dict[str, torch.Tensor]:
    """States of the generators that training draws from. Augmentation has none: it follows from seed, epoch, image."""
    states = {"cpu": torch.get_rng_state()}
    if machine.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(machine.device)
    if machine.device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(machine: Machine, states: dict[str, torch.Tensor]) -> None:
    """Let the generators go on from ``states``; one of a device that is not used here is left out."""
    torch.set_rng_state(states["cpu"])
    if machine.device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], machine.device)
    if machine.device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


@contextmanager
def random_states_kept(machine: Machine) -> Iterator[None]:
    """Whatever the block draws, training goes on as if it had drawn nothing."""
    states = random_states(machine)
    try:
        yield
    finally:
        restore_random_states(machine, states)


class StepStart:
    """What the forward pass of a step changes besides gradients, as it was before: dice, statistics of batch norm."""

    def __init__(self, model: torch.nn.Module, machine: Machine) -> None:
        self._machine = machine
        self._buffers = list(model.buffers())
        self._kept = [buffer.clone() for buffer in self._buffers]
        self._states: dict[str, torch.Tensor] | None = None

    @torch.no_grad()
    def note(self) -> None:
        """A step begins."""
        self._states = random_states(self._machine)
        _copy(self._buffers, self._kept)

    def forget(self) -> None:
        """Its forward passes are over, and are not to be undone any more."""
        self._states = None

    @torch.no_grad()
    def restore(self) -> None:
        """As if the step under way had not begun; nothing where none is."""
        if self._states is not None:
            restore_random_states(self._machine, self._states)
            _copy(self._kept, self._buffers)
            self._states = None


def _copy(values: list[torch.Tensor], targets: list[torch.Tensor]) -> None:
    if values:
        torch._foreach_copy_(targets, values)


def describe_arithmetic(machine: Machine, num_processes: int) -> str:
    """What the last bits of a result depend on, besides the seed."""
    processes = f"{num_processes} processes, " if num_processes > 1 else ""
    capability = torch.backends.cpu.get_cpu_capability()
    return (
        f"{machine.describe()}, {processes}{torch.get_num_threads()} threads, {platform.machine()} {capability}, "
        f"torch {torch.__version__}"
    )


def _read(path: Path) -> dict[str, Any]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["format"] != FORMAT:
        raise CheckpointError(
            f"{path.name} was written by another version of Anchorage (format {state['format']}, here {FORMAT}): "
            "go on with that version, or start a new run from its weights"
        )
    return state


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_digests(run_dir: Path) -> list[str]:
    path = run_dir / DIGESTS_NAME
    return path.read_text(encoding="ascii").split() if path.is_file() else []


def _write_digests(run_dir: Path, digests: list[str]) -> None:
    temporary = run_dir / f".{DIGESTS_NAME}.{secrets.token_hex(4)}.tmp"
    with temporary.open("w", encoding="ascii") as file:
        file.write("\n".join(digests) + "\n")
        sync_file(file)
    temporary.replace(run_dir / DIGESTS_NAME)
    sync_folder(run_dir)
