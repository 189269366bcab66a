"""What all commands have in common: the parser, the project, and values that are checked as they are read."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from app.errors import BadRequest
from app.records import SPLITS
from app.services.comparison_sides import Side
from app.services.context import Services

Command = Callable[[Services, argparse.Namespace], dict[str, Any]]


class CommandParser(argparse.ArgumentParser):
    """Bad use is an error like any other: one line, or JSON."""

    def error(self, message: str) -> NoReturn:
        """Raise BadRequest in place of printing the usage and leaving."""
        raise BadRequest(f"{self.prog}: {message}.", f"See `{self.prog} --help`.")


def run_id(text: str) -> int:
    """A run's number, as SQLite can hold it."""
    if not _is_id(text):
        raise argparse.ArgumentTypeError(f"there is no run {text[:40]!r}: `runs` lists their numbers")
    return int(text)


def side_of(kind: str) -> Callable[[str], Side]:
    """What is judged, by its number; ``kind`` is run, checkpoint or set."""

    def read(text: str) -> Side:
        if not _is_id(text):
            raise argparse.ArgumentTypeError(f"there is no {kind} {text[:40]!r}: a number above 0 is needed")
        return Side(kind, int(text))

    return read


def add_sides(command: argparse.ArgumentParser, about: dict[str, str], *, is_one: bool = False) -> None:
    """Runs, checkpoints and stored sets by number, with what each means: one ``side``, or any number of ``sides``."""
    options = command.add_mutually_exclusive_group(required=True) if is_one else command
    how = {"dest": "side"} if is_one else {"dest": "sides", "action": "append", "default": []}
    for kind, text in about.items():
        options.add_argument(f"--{kind}", type=side_of(kind), metavar="ID", help=text, **how)


def ids(text: str) -> list[int]:
    """Numbers with commas between them."""
    parts = [part.strip() for part in text.split(",")]
    if not all(map(_is_id, parts)):
        raise argparse.ArgumentTypeError(f"numbers with commas between them are needed, such as 3,5; got {text[:40]!r}")
    return [int(part) for part in parts]


def _is_id(text: str) -> bool:
    """Whether it is a number above 0 that SQLite can hold."""
    return text.isascii() and text.isdigit() and 0 < int(text[:20]) < 2**63


def given_path(text: str) -> Path:
    """A path that was really given: '' would mean the folder the command is given in."""
    if not text.strip():
        raise argparse.ArgumentTypeError("a path is needed, found an empty text")
    return Path(text)


def output_file(text: str) -> Path:
    """A file that can be written; refused before the work and not after it."""
    path = Path(text)
    if not text or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder: name a file in it")
    _require_writable(path.absolute().parent)
    return path


def output_folder(text: str) -> Path:
    """A folder that can be made and written to."""
    path = Path(text)
    _require_writable(path.absolute())
    return path


def _require_writable(folder: Path) -> None:
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        raise argparse.ArgumentTypeError(f"{existing} is no folder")
    if not os.access(existing, os.W_OK):
        raise argparse.ArgumentTypeError(f"nothing can be written in {existing}")


def add_run(command: argparse.ArgumentParser) -> None:
    """One run by its number."""
    command.add_argument("--run", type=run_id, required=True, metavar="ID", help="the run's number, as `runs` lists it")


def add_split(command: argparse.ArgumentParser, *, may_be_a_set: bool = False) -> None:
    """The split to judge on: "valid" unless given, or "" where a stored set may have one of its own."""
    default, words = ("", "valid, or a set's own") if may_be_a_set else ("valid", "valid")
    command.add_argument("--split", choices=SPLITS, default=default, help=f"the images to judge on ({words})")


def add_command(
    commands: "argparse._SubParsersAction[CommandParser]",
    name: str,
    function: Command,
    text: str,
    needs_project: bool = True,
) -> argparse.ArgumentParser:
    """A command of the command line, with what all have in common."""
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.set_defaults(command=function)
    if needs_project:
        command.add_argument("--project", required=True, metavar="NAME", help="a project's name or its folder's name")
    # SUPPRESS: a missing --json here must not undo the one before the command.
    command.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return command
