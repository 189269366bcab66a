"""`python -m app …`: the use cases of the screen for scripts.

Exit codes: 0 done, 1 failed, 2 bad use. With ``--json`` the last thing on standard output is one JSON object; an error
is ``{"error", "hint"}`` there, and one line on standard error without it.
"""

import argparse
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import orjson

from app.errors import BadRequest, NotFound, UserError
from app.services import importing, label_export, projects
from app.services.context import Services
from app.store.files import Workspace

DEFAULT_PROJECTS = Path("projects")

Command = Callable[[Services, argparse.Namespace], dict[str, Any]]

DONE, FAILED, BAD_USE = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code; never raises."""
    words = sys.argv[1:] if arguments is None else arguments
    is_json = "--json" in words
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        values = build_parser().parse_args(words)
        services = Services(Workspace(values.projects))
        result = values.command(services, values)
    except UserError as error:
        return _fail(error.message, error.hint, is_json, isinstance(error, BadRequest | NotFound))
    except KeyboardInterrupt:
        return _fail("Stopped from the keyboard.", "Jobs in the queue go on.", is_json, False)
    except Exception as error:
        logging.getLogger(__name__).debug("%s", traceback.format_exc())
        place = traceback.extract_tb(error.__traceback__)[-1]
        hint = f"This is a fault of Anchorage ({Path(place.filename).name}, line {place.lineno}); please report it."
        return _fail(f"{type(error).__name__}: {error}", hint, is_json, False)
    _write(orjson.dumps(result).decode() if is_json else _as_text(result))
    return DONE


class _Parser(argparse.ArgumentParser):
    """Bad use is an error like any other: one line, or JSON."""

    def error(self, message: str) -> NoReturn:
        """Raise BadRequest in place of printing the usage and leaving."""
        raise BadRequest(f"{self.prog}: {message}.", f"See `{self.prog} --help`.")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; the documentation's list of commands is checked against it."""
    parser = _Parser(prog="python -m app", description="Label, train and judge Faster R-CNN detectors.")
    parser.add_argument("--projects", type=Path, default=DEFAULT_PROJECTS, metavar="DIR", help="the projects folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object last on standard output")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    command = _add_command(commands, "import", import_dataset, "bring a COCO export (zip or folder) into a project")
    command.add_argument("path", type=Path, metavar="PATH", help="a zip or a folder on this machine")
    command.add_argument(
        "--merge-duplicates", action="store_true", help="classes of one name become one class instead of an error"
    )

    command = _add_command(commands, "export-labels", export_labels, "write images and labels as a COCO zip")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="the zip to write")
    return parser


def import_dataset(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`import PATH --project NAME`: into the project of this name, or into a new one."""
    try:
        slug = projects.find_project(services, values.project)
    except NotFound:
        slug, report = importing.import_as_new_project(
            services, values.project, values.path, merge=values.merge_duplicates, on_progress=_progress_of("images")
        )
    else:
        report = importing.import_dataset(
            services, slug, values.path, merge=values.merge_duplicates, on_progress=_progress_of("images")
        )
    return {"project": slug, **{name: report[name] for name in _IMPORT_FIELDS}}


_IMPORT_FIELDS = ("images", "annotations", "categories", "splits", "fixed", "quarantined")


def export_labels(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`export-labels --project NAME --out FILE.zip`"""
    slug = projects.find_project(services, values.project)
    result = label_export.export_labels(services, slug, values.out, on_progress=_progress_of("images"))
    return {"project": slug, "file": str(values.out), **result}


def _add_command(
    commands: "argparse._SubParsersAction[_Parser]", name: str, function: Command, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.set_defaults(command=function)
    command.add_argument("--project", required=True, metavar="NAME", help="a project's name or its folder's name")
    # SUPPRESS: a missing --json here must not undo the one before the command.
    command.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return command


def _progress_of(what: str) -> Callable[[int, int], None]:
    """A line on standard error that counts up, where somebody looks at it."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done >= total else ""
            sys.stderr.write(f"\r{done} of {total} {what}{end}")
            sys.stderr.flush()

    return show


def _fail(message: str, hint: str, is_json: bool, is_bad_use: bool) -> int:
    message, hint = " ".join(message.split()), " ".join(hint.split())
    if is_json:
        _write(orjson.dumps({"error": message, "hint": hint}).decode())
    else:
        sys.stderr.write(f"error: {message} {hint}".rstrip() + "\n")
    return BAD_USE if is_bad_use else FAILED


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _as_text(result: dict[str, Any]) -> str:
    return "\n".join(f"{name}: {_short(value)}" for name, value in result.items())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(item)}" for name, item in value.items())
    return str(value)
