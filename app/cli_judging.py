"""The commands that judge: evaluate, ensemble, compare, audit, sweep and notes. Their arguments and their work."""

import argparse
from typing import Any

from app import cli_text
from app.cli_arguments import (
    CommandParser,
    add_command,
    add_run,
    add_run_and_split,
    add_split,
    ids,
    output_file,
    run_id,
    side_of,
)
from app.cli_progress import ProgressLine, stoppable
from app.errors import BadRequest
from app.records import SPLITS
from app.services import (
    auditing,
    comparing,
    comparison_report,
    diagnosing,
    ensemble_lab,
    ensembling,
    projects,
    review,
    run_notes,
    sweeping,
    view_gain,
)
from app.services.context import Services
from app.services.judging_time import BUDGET_S, RESULTS_S, guess_s

Result = dict[str, Any]
SIDES = {
    "run": "a run's number: its best checkpoint is compared",
    "checkpoint": "a checkpoint's number, as `runs` lists it",
    "set": "the number of stored predictions, as `ensemble` tells it: an ensemble's",
}


def add_commands(commands: "argparse._SubParsersAction[CommandParser]") -> None:
    """Add the commands of this module."""
    command = add_command(commands, "evaluate", evaluate, "judge a run's best checkpoint on a split")
    add_run_and_split(command)
    command.set_defaults(as_text=cli_text.evaluation_as_text)
    command.add_argument(
        "--tta",
        choices=(*review.VIEW_TITLES, "all"),
        help="test-time augmentation in place of the run's own; all compares them in one table",
    )
    command.add_argument(
        "--results", type=output_file, metavar="FILE", help="write the predictions as COCO results JSON"
    )

    command = add_command(commands, "ensemble", ensemble, "fuse checkpoints and judge the result")
    command.set_defaults(as_text=cli_text.ensemble_as_text)
    members = command.add_mutually_exclusive_group(required=True)
    members.add_argument("--run", type=run_id, metavar="ID", help="the best checkpoints of this run")
    members.add_argument("--checkpoints", type=ids, metavar="ID,ID", help="these, of any runs; `runs` lists them")
    members.add_argument("--sets", type=ids, metavar="ID,ID", help="these stored predictions; with --tune")
    add_split(command)
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

    text = "compare two runs, checkpoints or stored sets, with the noise of the difference"
    command = add_command(commands, "compare", compare_sides, text)
    for kind, about in SIDES.items():
        command.add_argument(
            f"--{kind}", type=side_of(kind), action="append", default=[], dest="sides", metavar="ID", help=about
        )
    command.add_argument("--split", choices=SPLITS, default="", help="the images to judge on (valid, or a set's own)")
    command.add_argument("--report", type=output_file, metavar="FILE", help="write a report: .html or .md")
    command.set_defaults(as_text=cli_text.comparison_as_text)

    text = "list labels that a run's best checkpoint disagrees with, the surest first"
    command = add_command(commands, "audit", audit_labels, text)
    add_run_and_split(command)
    command.add_argument("--min-score", type=float, metavar="S", help="how sure the model must be (where F1 is best)")
    command.add_argument("--limit", type=int, default=100, metavar="N", help="how many at most (100)")
    command.set_defaults(as_text=cli_text.audit_as_text)

    text = "judge every kept checkpoint of a run, and two averages of their weights"
    command = add_command(commands, "sweep", sweep_checkpoints, text)
    add_run_and_split(command)
    command.set_defaults(as_text=cli_text.sweep_as_text)

    command = add_command(commands, "notes", read_or_write_notes, "show what was written about a run, or write it")
    add_run(command)
    for part in run_notes.PARTS:
        command.add_argument(f"--{part}", metavar="TEXT", help=f"write the {part}")


def evaluate(services: Services, values: argparse.Namespace) -> Result:
    """`evaluate`: predicts first where that was not done yet; `--tta all` compares the test-time augmentations."""
    slug = projects.find_project(services, values.project)
    if values.tta == "all" and values.results is not None:
        raise BadRequest("One set of predictions can be written, and --tta all makes three.", "Name one of them.")
    judge = _compare_views if values.tta == "all" else _evaluate_one
    with stoppable(services, slug, "Judging") as line:
        return {"project": slug, **judge(services, slug, values, line)}


def _compare_views(services: Services, slug: str, values: argparse.Namespace, line: ProgressLine) -> Result:
    given = (values.run, values.split, line.show_job, line.show_part)
    compared = view_gain.measure_gain(services, slug, review.compare_views(services, slug, *given), line.show_count)
    return {
        "run": values.run,
        "split": values.split,
        **compared,
        "checkpoint": compared["checkpoint"]["file_name"],
    }


def _evaluate_one(services: Services, slug: str, values: argparse.Namespace, line: ProgressLine) -> Result:
    given = (values.run, values.split, line.show_job, values.tta, line.show_part)
    result = review.evaluate_run(services, slug, *given)
    set_id = result["set"]["id"]
    answer = {
        "checkpoint": result["checkpoint"]["file_name"],
        "test_time_augmentation": result["test_time_augmentation"],
        **_figures(result, values),
    }
    if values.results is not None:
        line.show_part("Writing the predictions", guess_s(services, slug, set_id, RESULTS_S))
        review.write_results(services, slug, set_id, values.results)
        answer["left_out_images"] = review.images_left_out(services, slug, set_id)
    line.show_part("Pricing the errors", guess_s(services, slug, set_id, BUDGET_S))
    beyond = {name: result[name] for name in ("mean_best_iou", "count_difference")}
    return {**answer, **beyond, **diagnosing.diagnose(services, slug, set_id)}


def ensemble(services: Services, values: argparse.Namespace) -> Result:
    """`ensemble`: the figures of the fused predictions, and those of the members beside them; `--tune`: the lab's."""
    slug = projects.find_project(services, values.project)
    if values.tune:
        return _tune_ensemble(services, slug, values)
    if values.sets:
        raise BadRequest("Stored predictions are fused by the lab only.", "Add --tune, or name --checkpoints.")
    if values.tta:
        raise BadRequest("Views are compared by the lab only.", "Add --tune, or leave --tta out.")
    chosen = {"checkpoint_ids": values.checkpoints, "options": {"method": values.method}}
    with stoppable(services, slug, "Fusing") as line:
        result = ensembling.fuse_run(services, slug, values.run, values.split, values.top, line.show_job, **chosen)
    return {
        "project": slug,
        **_figures(result, values),
        "method": values.method,
        "set": result["set"]["id"],
        **{name: result[name] for name in ("members", "verdict", "outcome", "is_gain", "noise")},
    }


def _tune_ensemble(services: Services, slug: str, values: argparse.Namespace) -> Result:
    values.as_text = cli_text.lab_as_text
    asked = {
        "run_id": values.run,
        "checkpoint_ids": values.checkpoints or (),
        "set_ids": values.sets or (),
        "top": values.top,
        "split": values.split,
        "views": tuple(review.VIEW_TITLES) if values.tta == "all" else (values.tta,) if values.tta else (),
    }
    with stoppable(services, slug, "The lab") as line:
        return {"project": slug, **ensemble_lab.run(services, slug, line.show_job, **asked)}


def _figures(result: Result, values: argparse.Namespace) -> Result:
    names = ("map", "map50", "map75", "f1", "f1_threshold", "per_class", "coco")
    return {"run": result["run"], "split": values.split, **{name: result[name] for name in names}}


def compare_sides(services: Services, values: argparse.Namespace) -> Result:
    """`compare`: with ``--report`` also as a file."""
    if len(values.sides) != 2:
        raise BadRequest(
            f"compare needs two sides, got {len(values.sides)}.", "Give --run (or --set, --checkpoint) twice."
        )
    if values.report is not None:
        comparison_report.check_report_path(values.report)
    slug = projects.find_project(services, values.project)
    with stoppable(services, slug, "Comparing") as line:
        told = (line.show_job, line.show_part, line.show_count)
        result = comparing.compare(services, slug, *values.sides, values.split, *told)
    if values.report is None:
        return {"project": slug, **result}
    comparison_report.write_report(result, values.project, values.report)
    return {"project": slug, **result, "report": str(values.report)}


def audit_labels(services: Services, values: argparse.Namespace) -> Result:
    """`audit`: one page of suspects."""
    slug = projects.find_project(services, values.project)
    with stoppable(services, slug, "The audit") as line:
        given = (values.run, values.split, values.min_score, values.limit, line.show_job, line.show_part)
        return {"project": slug, **auditing.audit_run(services, slug, *given)}


def sweep_checkpoints(services: Services, values: argparse.Namespace) -> Result:
    """`sweep`: predicts and mixes what is missing."""
    slug = projects.find_project(services, values.project)
    with stoppable(services, slug, "The sweep") as line:
        told = (line.show_job, line.show_count)
        return {"project": slug, **sweeping.sweep_run(services, slug, values.run, values.split, *told)}


def read_or_write_notes(services: Services, values: argparse.Namespace) -> Result:
    """`notes`: the parts that are given are replaced; all are printed."""
    slug = projects.find_project(services, values.project)
    changes = {part: text for part in run_notes.PARTS if (text := getattr(values, part)) is not None}
    notes = run_notes.set_notes(services, slug, values.run, changes)
    return {"project": slug, "run": values.run, **notes}
