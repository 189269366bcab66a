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
from typing import Any

import orjson

from app import cli_judging, cli_text
from app.cli_arguments import CommandParser, add_command, add_run, given_path, output_file, output_folder
from app.cli_progress import ProgressLine, stoppable
from app.errors import BadRequest, NotFound, UserError
from app.pipeline.config import ConfigError, parse_assignments, parse_config
from app.pipeline.data.json_file import utf8_problem
from app.pipeline.presets import explain_doubts
from app.records import Run, explain_end
from app.services import (
    benchmark,
    exporting,
    importing,
    label_export,
    models,
    predicting,
    preflight,
    projects,
    suggestions,
    training,
)
from app.services.context import Services
from app.services.models import RUN_PREFIX
from app.store.files import Workspace

DEFAULT_PROJECTS = Path("projects")

logger = logging.getLogger(__name__)

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
    except ConfigError as error:
        return _fail(str(error), "The user guide lists every option.", is_json, True)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        return _fail(f"{error.strerror or error}{place}.", "Check the path and the disk.", is_json, False)
    except KeyboardInterrupt:
        return _fail("Stopped from the keyboard.", "Jobs in the queue go on.", is_json, False)
    except Exception as error:
        logger.debug("unexpected", exc_info=error)
        place = traceback.extract_tb(error.__traceback__)[-1]
        hint = f"This is a fault of Anchorage ({Path(place.filename).name}, line {place.lineno}); please report it."
        return _fail(f"{type(error).__name__}: {error}", hint, is_json, False)
    as_text = getattr(values, "as_text", cli_text.as_text)
    _write(orjson.dumps(result).decode() if is_json else as_text(result))
    return DONE


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; the documentation's list of commands is checked against it."""
    parser = CommandParser(prog="python -m app", description="Label, train and judge Faster R-CNN detectors.")
    parser.add_argument("--projects", type=Path, default=DEFAULT_PROJECTS, metavar="DIR", help="the projects folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object last on standard output")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=CommandParser)
    _add_dataset_commands(commands)
    _add_training_commands(commands)
    _add_using_commands(commands)
    cli_judging.add_commands(commands)
    return parser


def _add_dataset_commands(commands: "argparse._SubParsersAction[CommandParser]") -> None:
    command = add_command(commands, "import", import_dataset, "bring a COCO export (zip or folder) into a project")
    command.add_argument("path", type=given_path, metavar="PATH", help="a zip or a folder on this machine")
    command.add_argument(
        "--merge-duplicates", action="store_true", help="classes of one name become one class instead of an error"
    )

    command = add_command(commands, "export-labels", export_labels, "write images and labels as a COCO zip")
    command.add_argument("--out", type=output_file, required=True, metavar="FILE", help="the zip to write")


def _add_training_commands(commands: "argparse._SubParsersAction[CommandParser]") -> None:
    command = add_command(commands, "train", train, "train a detector in the background")
    _add_options(command)
    command.add_argument("--wait", action="store_true", help="wait for the end, with progress on standard error")
    command.set_defaults(as_text=cli_text.run_as_text)

    command = add_command(commands, "preflight", check_before, "check a run before it is started, in a minute")
    _add_options(command)
    command.set_defaults(as_text=cli_text.preflight_as_text)

    command = add_command(commands, "runs", list_runs, "list the runs of a project, with their checkpoints")
    command.set_defaults(as_text=cli_text.runs_as_text)
    for name, action, text in (
        ("pause", pause, "let a run leave at a safe point, to go on later"),
        ("resume", resume, "let a paused run go on from its last checkpoint"),
        ("retry", retry, "let a run that failed or was stopped go on"),
        ("cancel", cancel, "end a run and keep what it has made"),
    ):
        command = add_command(commands, name, action, text)
        add_run(command)
        command.set_defaults(as_text=cli_text.run_as_text)
    command = add_command(
        commands, "presets", list_presets, "list the presets with the options they set", needs_project=False
    )
    command.set_defaults(as_text=cli_text.presets_as_text)
    command = add_command(
        commands, "models", list_models, "list the detectors, the smallest first", needs_project=False
    )
    command.add_argument(
        "--classes", type=int, default=2, metavar="N", help="count for N classes, the background among them (2)"
    )
    command.add_argument("--channels", type=int, choices=(1, 3), default=3, help="1 for gray images, 3 for color (3)")
    command.set_defaults(as_text=cli_text.models_as_text)
    command = add_command(
        commands, "benchmark", run_benchmark, "measure this machine, in two minutes at most", needs_project=False
    )
    command.add_argument("--project", default="", metavar="NAME", help="measure what this project would train first")
    command.set_defaults(as_text=cli_text.benchmark_as_text)


def _add_using_commands(commands: "argparse._SubParsersAction[CommandParser]") -> None:
    command = add_command(commands, "predict", predict, "find objects in a picture or a folder of pictures")
    add_run(command)
    command.add_argument("path", type=Path, metavar="PATH", help="a picture or a folder of pictures")
    command.add_argument("--out", type=output_file, required=True, metavar="FILE", help="the COCO JSON to write")

    command = add_command(commands, "export", export, "write the weights of a run's best checkpoint")
    add_run(command)
    command.add_argument("--format", choices=exporting.FORMATS, default="pth", help="the kind of weights file (pth)")
    command.add_argument("--out", type=output_folder, required=True, metavar="DIR", help="the folder to write to")


def import_dataset(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`import PATH --project NAME`: into the project of this name, or into a new one."""
    with ProgressLine() as line:
        told = {"merge": values.merge_duplicates, "on_progress": line.counter("Reading images")}
        try:
            slug = projects.find_project(services, values.project)
        except NotFound:
            slug, report = importing.import_as_new_project(services, values.project, values.path, **told)
        else:
            report = importing.import_dataset(services, slug, values.path, **told)
    return {"project": slug, **{name: report[name] for name in _IMPORT_FIELDS}}


_IMPORT_FIELDS = ("images", "annotations", "categories", "splits", "fixed", "quarantined")


def export_labels(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`export-labels --project NAME --out FILE.zip`"""
    slug = projects.find_project(services, values.project)
    with ProgressLine() as line:
        result = label_export.export_labels(services, slug, values.out, on_progress=line.counter("Writing images"))
    return {"project": slug, "file": str(values.out), **result}


def train(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`train`: queue a run, and with ``--wait`` see it through; a run that does not end well is an error."""
    slug = projects.find_project(services, values.project)
    run = training.start_run(services, slug, _options(values), values.preset)
    warnings = explain_doubts(parse_config(run.config))
    for option, doubt in warnings.items():
        sys.stderr.write(f"warning: {option}: {doubt}\n")
    if values.wait:
        with ProgressLine() as line:
            run = training.wait_for(services, slug, run.id, line.show_job)
        if run.state != "done":
            raise UserError(f"Run {run.id} {explain_end(run.state, run.error)}.", "See its log.")
    return {"project": slug, **_run_result(services, slug, run.id), **({"warnings": warnings} if warnings else {})}


def check_before(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`preflight`: the verdicts on a run with these options; red ones are no failure of the command."""
    slug = projects.find_project(services, values.project)
    with stoppable(services, slug, "The check") as line:
        result = preflight.check_and_wait(services, slug, _options(values), values.preset, line.show_job)
    return {"project": slug, **result}


def list_runs(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`runs`: newest first."""
    slug = projects.find_project(services, values.project)
    return {
        "project": slug,
        "runs": [_run_result(services, slug, run.id) for run in training.list_runs(services, slug)],
    }


def pause(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`pause`: the run saves where it stands and frees the device; it need not have left when this returns."""
    return _control(services, values, training.pause_run)


def resume(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`resume`: a paused run goes on, at the end of the queue."""
    return _control(services, values, training.resume_run)


def retry(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`retry`: a run that failed or was stopped goes on from its last checkpoint."""
    return _control(services, values, training.retry_run)


def cancel(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`cancel`: a run ends; what it has made is kept."""
    return _control(services, values, training.stop_run)


def _control(
    services: Services, values: argparse.Namespace, action: Callable[[Services, str, int], Run]
) -> dict[str, Any]:
    slug = projects.find_project(services, values.project)
    run = action(services, slug, values.run)
    return {"project": slug, **_run_result(services, slug, run.id)}


def list_presets(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`presets`: what each sets on top of what suits the project and the machine; for `train --preset NAME`."""
    return {"presets": suggestions.list_presets()}


def list_models(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`models`: parameters for these classes and channels, and which weights are published and here."""
    return {"models": models.list_catalogue(values.classes, values.channels)}


def run_benchmark(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`benchmark`: kept in the workspace for estimates of time."""
    slug = projects.find_project(services, values.project) if values.project else ""
    with ProgressLine() as line:
        result = benchmark.run_benchmark(services, line.counter("Measuring detectors"), slug)
    return {**({"project": slug} if slug else {}), **result}


def predict(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`predict`: pictures outside any project."""
    slug = projects.find_project(services, values.project)
    return {"project": slug, **predicting.predict_files(services, slug, values.run, values.path, values.out)}


def export(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`export`: weights that load without this project."""
    slug = projects.find_project(services, values.project)
    return {"project": slug, **exporting.export_weights(services, slug, values.run, values.format, values.out)}


def _run_result(services: Services, slug: str, run_id: int) -> dict[str, Any]:
    run = training.get_run(services, slug, run_id)
    return {"name": run.name, **training.describe_result(services, slug, run_id)}


def _options(values: argparse.Namespace) -> dict[str, Any]:
    """The options of ``--config`` with those of ``--set`` laid over them."""
    return _with_absolute_paths({**_read_options(values.config), **parse_assignments(values.assignments)})


def _read_options(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        options = orjson.loads(path.read_bytes())
    except OSError as error:
        raise BadRequest(f"The configuration {path} cannot be read ({error.strerror}).") from error
    except orjson.JSONDecodeError as error:
        problem = utf8_problem(path.read_bytes()) or error
        raise BadRequest(f"The configuration {path} is no JSON: {problem}.") from error
    if not isinstance(options, dict):
        raise BadRequest(f"The configuration {path} must be a JSON object of options.")
    return options


def _with_absolute_paths(options: dict[str, Any]) -> dict[str, Any]:
    """A weights file is meant from where the command is given; the run's process works elsewhere."""
    name = options.get("weights_file")
    if not name or name.startswith(RUN_PREFIX):
        return options
    return {**options, "weights_file": str(Path(name).expanduser().absolute())}


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", default="", metavar="NAME", help="start from a ready-made set of options")
    command.add_argument("--config", type=Path, metavar="FILE", help="JSON of options, such as a run's config.json")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        dest="assignments",
        metavar="key=value",
        help="one option; can be repeated",
    )


def _fail(message: str, hint: str, is_json: bool, is_bad_use: bool) -> int:
    message, hint = " ".join(message.split()), " ".join(hint.split())
    if is_json:
        _write(orjson.dumps({"error": message, "hint": hint}).decode())
    else:
        end = "." if hint and message[-1:] not in (".", "!", "?", ":") else ""
        sys.stderr.write(f"error: {message}{end} {hint}".rstrip() + "\n")
    return BAD_USE if is_bad_use else FAILED


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
