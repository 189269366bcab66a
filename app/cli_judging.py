"""The commands that judge: compare, audit, sweep and notes. Their arguments, their work and how people read it."""

import argparse
from typing import Any

from app.cli_arguments import (
    CommandParser,
    add_command,
    add_run,
    add_run_and_split,
    output_file,
    side_of,
)
from app.cli_progress import show_job
from app.errors import BadRequest
from app.pipeline.evaluate.selection import TITLES
from app.records import SPLITS
from app.services import auditing, comparing, comparison_report, projects, run_notes, sweeping
from app.services.context import Services

Result = dict[str, Any]
FIGURES = ("map", "map50", "map75", "f1")
SIDES = {
    "run": "a run's number: its best checkpoint is compared",
    "checkpoint": "a checkpoint's number, as `runs` lists it",
    "set": "the number of stored predictions, as `ensemble` tells it: an ensemble's",
}
MAX_COLUMNS = 8  # of classes, in a table for people; --json has all


def add_commands(commands: "argparse._SubParsersAction[CommandParser]") -> None:
    """Add the commands of this module."""
    text = "compare two runs, checkpoints or stored sets, with the noise of the difference"
    command = add_command(commands, "compare", compare_sides, text)
    for kind, about in SIDES.items():
        command.add_argument(
            f"--{kind}", type=side_of(kind), action="append", default=[], dest="sides", metavar="ID", help=about
        )
    command.add_argument("--split", choices=SPLITS, default="", help="the images to judge on (valid, or a set's own)")
    command.add_argument("--report", type=output_file, metavar="FILE", help="write a report: .html or .md")
    command.set_defaults(as_text=comparison_as_text)

    text = "list labels that a run's best checkpoint disagrees with, the surest first"
    command = add_command(commands, "audit", audit_labels, text)
    add_run_and_split(command)
    command.add_argument("--min-score", type=float, metavar="S", help="how sure the model must be (where F1 is best)")
    command.add_argument("--limit", type=int, default=100, metavar="N", help="how many at most (100)")
    command.set_defaults(as_text=audit_as_text)

    text = "judge every kept checkpoint of a run, and two averages of their weights"
    command = add_command(commands, "sweep", sweep_checkpoints, text)
    add_run_and_split(command)
    command.set_defaults(as_text=sweep_as_text)

    command = add_command(commands, "notes", read_or_write_notes, "show what was written about a run, or write it")
    add_run(command)
    for part in run_notes.PARTS:
        command.add_argument(f"--{part}", metavar="TEXT", help=f"write the {part}")


def compare_sides(services: Services, values: argparse.Namespace) -> Result:
    """`compare`: with ``--report`` also as a file."""
    if len(values.sides) != 2:
        raise BadRequest(
            f"compare needs two sides, got {len(values.sides)}.", "Give --run (or --set, --checkpoint) twice."
        )
    if values.report is not None:
        comparison_report.check_report_path(values.report)
    slug = projects.find_project(services, values.project)
    result = comparing.compare(services, slug, *values.sides, values.split, show_job())
    if values.report is None:
        return {"project": slug, **result}
    comparison_report.write_report(result, values.project, values.report)
    return {"project": slug, **result, "report": str(values.report)}


def audit_labels(services: Services, values: argparse.Namespace) -> Result:
    """`audit`: one page of suspects."""
    slug = projects.find_project(services, values.project)
    given = (values.run, values.split, values.min_score, values.limit, show_job())
    return {"project": slug, **auditing.audit_run(services, slug, *given)}


def sweep_checkpoints(services: Services, values: argparse.Namespace) -> Result:
    """`sweep`: predicts and mixes what is missing."""
    slug = projects.find_project(services, values.project)
    return {"project": slug, **sweeping.sweep_run(services, slug, values.run, values.split, show_job())}


def read_or_write_notes(services: Services, values: argparse.Namespace) -> Result:
    """`notes`: the parts that are given are replaced; all are printed."""
    slug = projects.find_project(services, values.project)
    changes = {part: text for part in run_notes.PARTS if (text := getattr(values, part)) is not None}
    notes = run_notes.set_notes(services, slug, values.run, changes)
    return {"project": slug, "run": values.run, **notes}


def diagnosis_as_text(result: Result) -> list[str]:
    """Error budget and confusion matrix in lines."""
    budget, confusion = result["error_budget"], result["confusion"]
    lines = ["", f"What keeps AP50 ({budget['ap50']:.3f}) down:"]
    for row in budget["kinds"]:
        lines.append(f"  {row['kind']:<16}{row['d_ap50']:>7.3f}{row['count']:>8}  {row['advice']}")
    for name in ("false_positives", "false_negatives"):
        lines.append(f"  all {name.replace('_', ' '):<16}{budget[name]:>3.3f}")
    threshold = f"score {confusion['score_threshold']:.2f}, IoU {confusion['iou_threshold']:.2f}"
    lines += ["", f"Labeled (rows) and predicted (columns) at {threshold}:"]
    names = confusion["labels"][: MAX_COLUMNS + 1]
    lines.append(f"  {'':<18}" + "".join(f"{name[:10]:>11}" for name in names))
    for name, counts in zip(names, confusion["counts"], strict=False):
        lines.append(f"  {name[:17]:<18}" + "".join(f"{count:>11}" for count in counts[: len(names)]))
    return lines


def comparison_as_text(result: Result) -> str:
    """The verdict, the figures, the options that differ, and when each was as good."""
    names = [f"{item['name']} ({item['run']}), {item['checkpoint'] or 'an ensemble'}" for item in result["runs"]]
    lines = [f"A: {names[0]}", f"B: {names[1]}", f"on {result['images']} images of {result['split']}"]
    for name, text in (("left_out", "images that only one of them has"), ("relabeled", "images labeled anew")):
        lines += [f"{result[name]} {text}"] if result[name] else []
    lines += ["", f"{'':<8}{'A':>8}{'B':>8}{'B - A':>9}   95 % interval       B better   detectable   difference"]
    for figure, item in result["differences"].items():
        interval = f"{item['low']:+.3f} to {item['high']:+.3f}"
        lines.append(
            f"{TITLES[figure]:<8}{item['first']:>8.3f}{item['second']:>8.3f}{item['difference']:>+9.3f}"
            f"   {interval:<18}{100 * item['share_better']:>8.1f} %{item['detectable']:>13.3f}"
            f"   {'beyond chance' if item['is_clear'] else 'inside the noise'}"
        )
    lines += [
        "",
        result["verdict"],
        "",
        "Options that differ (A, B):" if result["config"] else "The options are equal.",
    ]
    lines += [f"  {item['option']:<26}{item['first']!s:<24}{item['second']}" for item in result["config"]]
    reached = result["reached"]
    if reached:
        each = (f"{reached[s]['epoch']} epochs, {reached[s]['elapsed_s'] / 60:.1f} min" for s in ("first", "second"))
        lines += ["", f"mAP50 {reached['map50']:.3f} was reached after {' (A) and after '.join(each)} (B)."]
    return "\n".join(lines + ([f"report: {result['report']}"] if "report" in result else []))


def audit_as_text(result: Result) -> str:
    """One line a suspect."""
    counts = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in result["counts"].items())
    lines = [f"{result['images']} images, model at least {result['min_score']:.2f} sure: {counts}"]
    if result["ignored"]:
        lines[0] += f" ({result['ignored']} ignored)"
    judged = result["judged"]
    if judged["changed"]:
        moved = ", ".join(
            f"{TITLES[name]} {judged['before'][name]:.3f} -> {judged['after'][name]:.3f}" for name in judged["before"]
        )
        images = "1 image" if judged["changed"] == 1 else f"{judged['changed']} images"
        lines.append(f"Judged again, with {images} labeled anew since the run began: {moved}.")
    if result["in_sample"]:
        lines.append(f"The model was trained on {result['in_sample']} of them: it has learned their faults too.")
    for item in result["suspects"]:
        box = " ".join(f"{value:.0f}" for value in item["box"])
        labeled = f"{item['labeled']} labeled, " if item["labeled"] else ""
        seen = ", in sample" if item["in_sample"] else ""
        lines.append(
            f"{item['score']:.3f} {item['kind'].replace('_', ' '):<12} image {item['image_id']} {item['file_name']}: "
            f"{labeled}{item['predicted']} at {box}{seen}"
        )
    return "\n".join(lines)


def sweep_as_text(result: Result) -> str:
    """A table of all checkpoints, with AP50 by class."""
    classes = [entry["name"] for entry in result["rows"][0]["per_class"]][:MAX_COLUMNS]
    heads = [*(TITLES[name] for name in FIGURES), "score", *(f"{name[:9]}" for name in classes)]
    lines = [f"{'':<18}" + "".join(f"{head:>10}" for head in heads)]
    for row in result["rows"]:
        values = [*(row[name] for name in (*FIGURES, "score")), *(entry["ap50"] for entry in row["per_class"])]
        lines.append(f"{row['name']:<18}" + "".join(f"{value:>10.3f}" for value in values[: len(heads)]))
        lines += [f"{'':<18}  of {', '.join(row['members'])}"] if row["members"] else []
    return "\n".join([*lines, "", result["verdict"]])
