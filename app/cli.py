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

from app import cli_judging
from app.cli_arguments import CommandParser as _Parser
from app.cli_arguments import add_command as _add_command
from app.cli_arguments import add_run as _add_run
from app.cli_arguments import add_run_and_split as _add_run_and_split
from app.cli_arguments import add_split as _add_split
from app.cli_arguments import given_path as _given_path
from app.cli_arguments import ids as _ids
from app.cli_arguments import output_file as _output_file
from app.cli_arguments import output_folder as _output_folder
from app.cli_arguments import run_id as _run_id
from app.cli_progress import progress_of as _progress_of
from app.cli_progress import show_job as _show_job
from app.errors import BadRequest, NotFound, UserError
from app.pipeline.config import ConfigError, parse_assignments, parse_config
from app.pipeline.data.json_file import utf8_problem
from app.pipeline.presets import explain_doubts
from app.records import Run
from app.services import (
    benchmark,
    diagnosing,
    ensemble_lab,
    ensembling,
    exporting,
    importing,
    lab_members,
    label_export,
    models,
    predicting,
    preflight,
    projects,
    review,
    suggestions,
    training,
)
from app.services.context import Services
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
    as_text = getattr(values, "as_text", _as_text)
    _write(orjson.dumps(result).decode() if is_json else as_text(result))
    return DONE


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; the documentation's list of commands is checked against it."""
    parser = _Parser(prog="python -m app", description="Label, train and judge Faster R-CNN detectors.")
    parser.add_argument("--projects", type=Path, default=DEFAULT_PROJECTS, metavar="DIR", help="the projects folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object last on standard output")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    _add_dataset_commands(commands)
    _add_training_commands(commands)
    _add_using_commands(commands)
    cli_judging.add_commands(commands)
    return parser


def _add_dataset_commands(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = _add_command(commands, "import", import_dataset, "bring a COCO export (zip or folder) into a project")
    command.add_argument("path", type=_given_path, metavar="PATH", help="a zip or a folder on this machine")
    command.add_argument(
        "--merge-duplicates", action="store_true", help="classes of one name become one class instead of an error"
    )

    command = _add_command(commands, "export-labels", export_labels, "write images and labels as a COCO zip")
    command.add_argument("--out", type=_output_file, required=True, metavar="FILE", help="the zip to write")


def _add_training_commands(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = _add_command(commands, "train", train, "train a detector in the background")
    _add_options(command)
    command.add_argument("--wait", action="store_true", help="wait for the end, with progress on standard error")

    command = _add_command(commands, "preflight", check_before, "check a run before it is started, in a minute")
    _add_options(command)
    command.set_defaults(as_text=_preflight_as_text)

    _add_command(commands, "runs", list_runs, "list the runs of a project")
    _add_run(_add_command(commands, "pause", pause, "let a run leave at a safe point, to go on later"))
    _add_run(_add_command(commands, "resume", resume, "let a paused run go on from its last checkpoint"))
    _add_run(_add_command(commands, "retry", retry, "let a run that failed or was stopped go on"))
    _add_run(_add_command(commands, "cancel", cancel, "end a run and keep what it has made"))
    command = _add_command(
        commands, "presets", list_presets, "list the presets with the options they set", needs_project=False
    )
    command.set_defaults(as_text=_presets_as_text)
    command = _add_command(
        commands, "models", list_models, "list the detectors, the smallest first", needs_project=False
    )
    command.add_argument(
        "--classes", type=int, default=2, metavar="N", help="count for N classes, the background among them (2)"
    )
    command.add_argument("--channels", type=int, choices=(1, 3), default=3, help="1 for gray images, 3 for color (3)")
    command.set_defaults(as_text=_models_as_text)
    command = _add_command(
        commands, "benchmark", run_benchmark, "measure this machine, in two minutes at most", needs_project=False
    )
    command.set_defaults(as_text=_benchmark_as_text)


def _add_using_commands(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = _add_command(commands, "evaluate", evaluate, "judge a run's best checkpoint on a split")
    _add_run_and_split(command)
    command.set_defaults(as_text=_evaluation_as_text)
    command.add_argument(
        "--tta",
        choices=(*review.VIEW_TITLES, "all"),
        help="test-time augmentation in place of the run's own; all compares them in one table",
    )
    command.add_argument(
        "--results", type=_output_file, metavar="FILE", help="write the predictions as COCO results JSON"
    )

    command = _add_command(commands, "ensemble", ensemble, "fuse checkpoints and judge the result")
    members = command.add_mutually_exclusive_group(required=True)
    members.add_argument("--run", type=_run_id, metavar="ID", help="the best checkpoints of this run")
    members.add_argument("--checkpoints", type=_ids, metavar="ID,ID", help="these, of any runs; `runs` lists them")
    members.add_argument("--sets", type=_ids, metavar="ID,ID", help="these stored predictions; with --tune")
    _add_split(command)
    command.add_argument("--top", type=int, default=3, metavar="N", help="how many checkpoints of a run (3)")
    command.add_argument(
        "--tune",
        action="store_true",
        help="tune every method on half of the images, judge on the other half, and say which members are needed",
    )
    command.add_argument(
        "--tta",
        choices=(*review.VIEW_TITLES, "all"),
        help="with --tune: test-time augmentation in place of the run's own; all compares them in one table",
    )
    command.add_argument(
        "--method", choices=ensembling.METHODS, default=ensembling.METHODS[0], help="how they are fused (wbf)"
    )

    command = _add_command(commands, "predict", predict, "find objects in a picture or a folder of pictures")
    _add_run(command)
    command.add_argument("path", type=Path, metavar="PATH", help="a picture or a folder of pictures")
    command.add_argument("--out", type=_output_file, required=True, metavar="FILE", help="the COCO JSON to write")

    command = _add_command(commands, "export", export, "write the weights of a run's best checkpoint")
    _add_run(command)
    command.add_argument("--format", choices=exporting.FORMATS, default="pth", help="the kind of weights file (pth)")
    command.add_argument("--out", type=_output_folder, required=True, metavar="DIR", help="the folder to write to")


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


def train(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`train`: queue a run, and with ``--wait`` see it through; a run that does not end well is an error."""
    slug = projects.find_project(services, values.project)
    run = training.start_run(services, slug, _options(values), values.preset)
    warnings = explain_doubts(parse_config(run.config))
    for option, doubt in warnings.items():
        sys.stderr.write(f"warning: {option}: {doubt}\n")
    if values.wait:
        run = training.wait_for(services, slug, run.id, _show_job())
        if run.state != "done":
            raise UserError(
                f"Run {run.id} ended as {run.state}: {(run.error or 'it was stopped').rstrip('.')}.", "See its log."
            )
    return {"project": slug, **_run_result(services, slug, run.id), **({"warnings": warnings} if warnings else {})}


def check_before(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`preflight`: the verdicts on a run with these options; red ones are no failure of the command."""
    slug = projects.find_project(services, values.project)
    result = preflight.check_and_wait(services, slug, _options(values), values.preset, _show_job())
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
    return benchmark.run_benchmark(services, _progress_of("detectors"))


def evaluate(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`evaluate`: predicts first where that was not done yet; `--tta all` compares the test-time augmentations."""
    slug = projects.find_project(services, values.project)
    if values.tta == "all":
        if values.results is not None:
            raise BadRequest("One set of predictions can be written, and --tta all makes three.", "Name one of them.")
        compared = review.compare_views(services, slug, values.run, values.split, _show_job())
        return {
            "project": slug,
            "run": values.run,
            "split": values.split,
            **compared,
            "checkpoint": compared["checkpoint"]["file_name"],
        }
    result = review.evaluate_run(services, slug, values.run, values.split, _show_job(), values.tta)
    answer = {
        "project": slug,
        "checkpoint": result["checkpoint"]["file_name"],
        "test_time_augmentation": result["test_time_augmentation"],
        **_figures(result, values),
    }
    if values.results is not None:
        review.write_results(services, slug, result["set"]["id"], values.results)
        answer["left_out_images"] = review.images_left_out(services, slug, result["set"]["id"])
    beyond = {name: result[name] for name in ("mean_best_iou", "count_difference")}
    return {**answer, **beyond, **diagnosing.diagnose(services, slug, result["set"]["id"])}


def ensemble(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`ensemble`: the figures of the fused predictions, and those of the members beside them; `--tune`: the lab's."""
    slug = projects.find_project(services, values.project)
    if values.tune:
        return _tune_ensemble(services, slug, values)
    if values.sets:
        raise BadRequest("Stored predictions are fused by the lab only.", "Add --tune, or name --checkpoints.")
    if values.tta:
        raise BadRequest("Views are compared by the lab only.", "Add --tune, or leave --tta out.")
    result = ensembling.fuse_run(
        services,
        slug,
        values.run,
        values.split,
        values.top,
        _show_job(),
        checkpoint_ids=values.checkpoints,
        options={"method": values.method},
    )
    return {
        "project": slug,
        **_figures(result, values),
        "method": values.method,
        "set": result["set"]["id"],
        **{name: result[name] for name in ("members", "verdict", "is_gain")},
    }


def _tune_ensemble(services: Services, slug: str, values: argparse.Namespace) -> dict[str, Any]:
    values.as_text = _lab_as_text
    result = ensemble_lab.run(
        services,
        slug,
        _show_job(),
        run_id=values.run,
        checkpoint_ids=values.checkpoints or (),
        set_ids=values.sets or (),
        top=values.top,
        split=values.split,
        views=tuple(review.VIEW_TITLES) if values.tta == "all" else (values.tta,) if values.tta else (),
    )
    return {"project": slug, **result}


def predict(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`predict`: pictures outside any project."""
    slug = projects.find_project(services, values.project)
    return {"project": slug, **predicting.predict_files(services, slug, values.run, values.path, values.out)}


def export(services: Services, values: argparse.Namespace) -> dict[str, Any]:
    """`export`: weights that load without this project."""
    slug = projects.find_project(services, values.project)
    return {"project": slug, **exporting.export_weights(services, slug, values.run, values.format, values.out)}


def _figures(result: dict[str, Any], values: argparse.Namespace) -> dict[str, Any]:
    names = ("map", "map50", "map75", "f1", "f1_threshold", "per_class", "coco")
    return {"run": result["run"], "split": values.split, **{name: result[name] for name in names}}


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
    return {**options, "weights_file": str(Path(name).expanduser().absolute())} if name else options


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
        sys.stderr.write(f"error: {message} {hint}".rstrip() + "\n")
    return BAD_USE if is_bad_use else FAILED


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _as_text(result: dict[str, Any]) -> str:
    """For people: a line per entry; a list of records line by line below its name."""
    lines = []
    for name, value in result.items():
        if isinstance(value, list):
            lines += [f"{name}:", *(f"  {_short(item)}" for item in value)]
        else:
            lines.append(f"{name}: {_short(value)}")
    return "\n".join(lines)


def _benchmark_as_text(result: dict[str, Any]) -> str:
    """One line a detector and size: images a second in training, the speed-up, seconds an image in prediction."""
    head = f"{'model':<40}{'size':>6}{'images/s':>10}{'plain':>8}{'speed-up':>10}{'predict s':>11}"
    lines = [head]
    for one in result["models"]:
        rates = f"{one['train_images_per_s']:>10.2f}{one['reference_images_per_s']:>8.2f}"
        lines.append(f"{one['model']:<40}{one['image_size']:>6}{rates}{one['speedup']:>10.2f}{one['predict_s']:>11.3f}")
    lines += [f"left out: {name} ({reason})" for name, reason in result["left_out"].items()]
    return "\n".join([*lines, f"on {result['models'][0]['device']}; plain is torchvision's own step in float32"])


def _evaluation_as_text(result: dict[str, Any]) -> str:
    """The figures as everywhere, with the error budget and the confusion matrix as tables below; or a comparison."""
    if "rows" in result:
        return _views_as_text(result)
    figures = {name: value for name, value in result.items() if name not in ("error_budget", "confusion")}
    return "\n".join([_as_text(figures), *cli_judging.diagnosis_as_text(result)])


def _models_as_text(result: dict[str, Any]) -> str:
    """One line a model: name, parameters, published weights (those that are here in capitals)."""
    lines = []
    for model in result["models"]:
        weights = " ".join(part.upper() if part in model["cached"] else part for part in model["pretrained"])
        lines.append(f"{model['name']:<40}{model['parameters'] / 1e6:>8.2f} M  {weights or '-'}")
    return "\n".join([*lines, "timm/NAME: any backbone of timm that gives feature pyramids"])


def _preflight_as_text(result: dict[str, Any]) -> str:
    """One line a check: level, title, what was found, and what would mend it."""
    lines = []
    for verdict in result["verdicts"]:
        lines.append(f"{verdict['level']:<6}{verdict['title']:<22}{verdict['text']}")
        lines += [f"{'':<28}--set {name}={_option_as_text(value)}" for name, value in verdict["fix"].items()]
    return "\n".join(lines)


def _lab_as_text(result: dict[str, Any]) -> str:
    """The verdict, then members and methods in one table: figures on the judging half, score on both."""
    names = ("map", "map50", "map75", "f1", "threshold")
    lines = [result["verdict"], ""]
    lines.append(
        f"{'':<40}{'tuned':>8}{'judged':>8}" + "".join(f"{name:>10}" for name in names) + f"{'ms/image':>10}  options"
    )
    members = result["members"]
    has_several_views = len(result["views"]) > 1
    rows = [(members[row["member"]]["name"], _cost(row["cost_ms"]), "", row) for row in result["alone"]]
    rows += [
        (
            ensemble_lab.NAMES[row["method"]],
            _cost(row["cost_ms"], f"+{row['fuse_ms']:.2f}"),
            _fusion_as_text(row["options"]),
            row,
        )
        for row in result["methods"]
    ]
    for name, cost, options, row in rows:
        if has_several_views:
            name = f"{name}, {lab_members.VIEW_TITLES[row['views']]}"
        figures = "".join(f"{row['judged'][figure]:>10.4f}" for figure in names)
        score = f"{row['tuned']['score']:>8.4f}{row['judged']['score']:>8.4f}"
        lines.append(f"{name[:39]:<40}{score}{figures}{cost:>10}  {options}".rstrip())
    lines += ["", "What each member brings to the best method, by score and mAP:"]
    for member, row in zip(members, result["contributions"], strict=True):
        lines.append(f"  {member['name'][:38]:<38}{row['score']:>+9.4f}{row['map']:>+9.4f}")
    needed = ", ".join(members[index]["name"] for index in result["smallest"]["members"])
    lines.append(f"Fewest members within {100 * result['near_best']:g} mAP points of the best: {needed}")
    return "\n".join(lines)


def _cost(milliseconds: float | None, unknown: str = "-") -> str:
    """Of an image; where the members were not measured, what fusing adds."""
    return unknown if milliseconds is None else f"{milliseconds:.2f}"


def _fusion_as_text(options: dict[str, Any]) -> str:
    iou = "" if options["method"] == "soft_nms" else f"IoU {options['iou_threshold']:g}, "
    weights = " ".join(f"{weight:g}" for weight in options["weights"])
    return f"{iou}skip below {options['skip_threshold']:g}, weights {weights}"


def _views_as_text(result: dict[str, Any]) -> str:
    """A comparison of test-time augmentations: one table with the verdict below it."""
    heads = (("map", "mAP"), ("map50", "mAP50"), ("map75", "mAP75"), ("f1", "F1"), ("score", "score"))
    lines = [f"Run {result['run']}, {result['checkpoint']} on {result['split']}", ""]
    lines.append(f"{'test-time augmentation':<24}" + "".join(f"{title:>8}" for _, title in heads))
    for row in result["rows"]:
        lines.append(f"{row['name']:<24}" + "".join(f"{row[name]:>8.3f}" for name, _ in heads))
    return "\n".join([*lines, "", result["verdict"]])


def _presets_as_text(result: dict[str, Any]) -> str:
    """Presets under their headings: what each is, and the options it sets, with the default where that is another."""
    defaults = parse_config({}).model_dump(mode="json")
    lines, source = [], ""
    for preset in result["presets"]:
        if preset["source"] != source:
            source = preset["source"]
            lines += ["", source.upper()]
        lines += ["", f"{preset['name']:<27}{preset['title']}", f"    {preset['help']}"]
        lines += [f"    {preset['needs']}"] if preset["needs"] else []
        for option, value in preset["values"].items():
            note = "" if value == defaults[option] else f"   (default {_option_as_text(defaults[option])})"
            lines.append(f"      {option:<24}{_option_as_text(value)}{note}")
    return "\n".join(lines[1:])


def _option_as_text(value: Any) -> str:
    """As `--set` takes it, but for records: of an augmentation its name and probability."""
    if isinstance(value, list) and value and isinstance(value[0], dict) and "probability" in value[0]:
        return ", ".join(f"{step['name']} {step['probability']:g}" for step in value)
    return (
        value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else orjson.dumps(value).decode()
    )


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(item)}" for name, item in value.items())
    return str(value)
