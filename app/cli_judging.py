"""The commands that judge: evaluate, ensemble, compare, audit, sweep and notes. Their arguments and their work."""

import argparse
from typing import Any

from app import cli_text
from app.cli_arguments import (
    CommandParser,
    add_command,
    add_run,
    add_sides,
    add_split,
    ids,
    output_file,
    run_id,
)
from app.cli_progress import ProgressLine, stoppable
from app.errors import BadRequest
from app.services import (
    auditing,
    comparing,
    comparison_report,
    comparison_sides,
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
    "run": "a run's number, as `runs` lists it: its best checkpoint",
    "checkpoint": "a checkpoint's number, as `runs` lists it",
    "set": "the number of stored predictions, as `evaluate` and `ensemble` tell it; nothing is predicted",
}


def add_commands(commands: "argparse._SubParsersAction[CommandParser]") -> None:
    """Add the commands of this module."""
    text = "judge a run's best checkpoint, a checkpoint or stored predictions"
    command = add_command(commands, "evaluate", evaluate, text)
    add_sides(command, SIDES, is_one=True)
    add_split(command, may_be_a_set=True)
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
    command.description += " Give --run (or --checkpoint, --set) twice: the first is A, the second B."
    add_sides(command, SIDES)
    add_split(command, may_be_a_set=True)
    command.add_argument("--report", type=output_file, metavar="FILE", help="write a report: .html or .md")
    command.set_defaults(as_text=cli_text.comparison_as_text)

    text = "list labels that a model disagrees with, the surest first"
    command = add_command(commands, "audit", audit_labels, text)
    several = "; of several, each image is judged by the first that was not trained on it"
    add_sides(command, {kind: f"{about}{several if kind == 'set' else ''}" for kind, about in SIDES.items()})
    add_split(command, may_be_a_set=True)
    command.add_argument("--kind", choices=auditing.KINDS, help="these suspects only")
    command.add_argument("--class", dest="class_name", metavar="NAME", help="those labeled or predicted as this class")
    command.add_argument("--min-score", type=float, metavar="S", help="how sure the model must be (where F1 is best)")
    command.add_argument("--limit", type=int, default=100, metavar="N", help="how many at most (100)")
    command.set_defaults(as_text=cli_text.audit_as_text)

    text = "judge every kept checkpoint of a run, and two averages of their weights"
    command = add_command(commands, "sweep", sweep_checkpoints, text)
    add_run(command)
    add_split(command)
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
    if values.tta and values.side.kind == "set":
        raise BadRequest("Stored predictions have the views they were made in.", "Leave --tta out, or name --run.")
    values.split = comparison_sides.choose_split(services, slug, [values.side], values.split)
    judge = _compare_views if values.tta == "all" else _evaluate_one
    with stoppable(services, slug, "Judging") as line:
        return {"project": slug, **judge(services, slug, values, line)}


def _compare_views(services: Services, slug: str, values: argparse.Namespace, line: ProgressLine) -> Result:
    chosen = comparison_sides.choose(services, slug, values.side, values.split)
    given = (chosen.checkpoint.id, values.split, line.show_job, line.show_part)
    compared = view_gain.measure_gain(services, slug, review.compare_views(services, slug, *given), line.show_count)
    return {
        "run": chosen.run.id,
        "name": f"{chosen.run.name}, {chosen.detail}",
        "split": values.split,
        **compared,
        "checkpoint": chosen.checkpoint.file_name,
    }


def _evaluate_one(services: Services, slug: str, values: argparse.Namespace, line: ProgressLine) -> Result:
    chosen = comparison_sides.predict(services, slug, values.side, values.split, line.show_job, values.tta)
    set_id = chosen.record.id
    result = {"run": chosen.run.id, **review.evaluate_set(services, slug, chosen.record, line.show_part)}
    answer = {
        "name": f"{chosen.run.name}, {chosen.detail}",
        "checkpoint": chosen.checkpoint.file_name if chosen.checkpoint else None,
        "set": set_id,
        "test_time_augmentation": result["test_time_augmentation"],
        **_figures(result, values),
    }
    if values.results is not None:
        line.show_part("Writing the predictions", guess_s(services, slug, set_id, RESULTS_S))
        review.export_results(services, slug, set_id, values.results)
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
        **{name: result[name] for name in ("members", "score", "cost_ms", "devices")},
        **{name: result[name] for name in ("verdict", "truth", "outcome", "is_gain", "noise")},
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
    if not values.sides:
        raise BadRequest("audit needs a model to judge with.", "Give --run, --checkpoint or --set, also several.")
    slug = projects.find_project(services, values.project)
    category_id = auditing.category_id_of(services, slug, values.class_name) if values.class_name is not None else None
    chosen = auditing.AuditFilter(values.kind, category_id, values.min_score)
    with stoppable(services, slug, "The audit") as line:
        given = (values.sides, values.split, chosen, values.limit, line.show_job, line.show_part)
        return {"project": slug, **auditing.audit_sides(services, slug, *given)}


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
