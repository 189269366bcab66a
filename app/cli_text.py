"""How results of the commands read for people; ``--json`` gives the same as they are."""

from pathlib import Path
from typing import Any

import orjson

from app import records
from app.cli_table import MAX_TEXT, NONE, WIDTH, number, shorten, table
from app.pipeline.config import parse_config
from app.pipeline.ensemble import SHORT_NAMES, options_in_effect
from app.pipeline.evaluate.difference import words_of_sides
from app.pipeline.evaluate.error_words import KIND_TITLES, SUSPECT_TITLES, TOTAL_TITLES, count_suspects
from app.pipeline.evaluate.selection import TITLES
from app.services import comparing, lab_members

Result = dict[str, Any]
FIGURES = ("map", "map50", "map75", "f1")
CLASS_FIGURES = ("ap", "ap50", "ap75", "f1", "threshold", "ar", "aps", "apm", "apl")
CLASS_HEADS = ("AP", "AP50", "AP75", "F1", "threshold", "AR", "APs", "APm", "APl")
MAX_HEAD = 14  # of a column that a user named
NAMED_COLUMN = 16  # with the gap before it


def as_text(result: Result) -> str:
    """For people: a line per entry; a list of records line by line below its name."""
    lines = []
    for name, value in result.items():
        if isinstance(value, list):
            lines += [f"{name}:", *(f"  {_short(item)}" for item in value)]
        else:
            lines.append(f"{name}: {_short(value)}")
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(item)}" for name, item in value.items())
    return str(value)


def runs_as_text(result: Result) -> str:
    """A block a run, newest first."""
    blocks = ["\n".join(_run_lines(run)) for run in result["runs"]]
    return "\n\n".join(blocks) or "There are no runs yet: `train` starts one."


def run_as_text(result: Result) -> str:
    """One run, as `runs` shows it."""
    return "\n".join(_run_lines(result))


def _run_title(number: int, name: str) -> str:
    """ "Run 3 (Small boxes)"; a run that was given no name is called by its number already."""
    title = f"Run {number}"
    return name if f"{name},".startswith(f"{title},") else f"{title} ({name})"


def _run_lines(run: Result) -> list[str]:
    """What it is called and how it stands; below it the checkpoints, the best first."""
    epochs = "1 epoch" if run["epochs"] == 1 else f"{run['epochs']} epochs"
    lines = [f"{_run_title(run['run'], run['name'])}: {records.state_word(run['state'])}, {epochs}"]
    lines += [f"  {text}" for text in (run["error"], run["warning"]) if text]
    kept = run["checkpoints"]
    if not kept:
        return lines
    rows = [
        [str(one["id"]), str(one["epoch"]), *(number(one[name]) for name in ("map50", "f1", "score"))]
        + [Path(one["path"]).name]
        for one in kept
    ]
    heads = ("checkpoint", "epoch", "mAP50", "F1", "score", "file")
    return [*lines, f"  in {Path(kept[0]['path']).parent}", *table(heads, rows, "rrrrrf", indent=2)]


def presets_as_text(result: Result) -> str:
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


def models_as_text(result: Result) -> str:
    """One line a model: name, parameters, published weights (those that are here in capitals)."""
    rows = []
    for model in result["models"]:
        weights = " ".join(part.upper() if part in model["cached"] else part for part in model["pretrained"])
        rows.append([model["name"], f"{model['parameters'] / 1e6:.2f} M", weights or NONE])
    lines = table(("model", "parameters", "weights (those that are here in capitals)"), rows, "frw")
    return "\n".join([*lines, "timm/NAME: any backbone of timm that gives feature pyramids"])


def preflight_as_text(result: Result) -> str:
    """One line a check: level, title, what was found, and what would mend it."""
    rows = []
    for verdict in result["verdicts"]:
        rows.append([verdict["level"], verdict["title"], verdict["text"]])
        rows += [["", "", f"--set {name}={_option_as_text(value)}"] for name, value in verdict["fix"].items()]
    return "\n".join(table(("level", "check", "what was found"), rows, "llw"))


def benchmark_as_text(result: Result) -> str:
    """One line a detector and size: images a second in training, the speed-up, seconds an image in prediction."""
    rates = ("train_images_per_s", "reference_images_per_s", "speedup")
    rows = [
        [one["model"], str(one["image_size"]), *(f"{one[name]:.2f}" for name in rates), f"{one['predict_s']:.3f}"]
        for one in result["models"]
    ]
    lines = table(("model", "size", "images/s", "plain", "speed-up", "predict s"), rows, "frrrrr")
    lines += [f"left out: {name} ({reason})" for name, reason in result["left_out"].items()]
    return "\n".join([*lines, f"on {result['models'][0]['device']}; plain is torchvision's own step in float32"])


def evaluation_as_text(result: Result) -> str:
    """The figures of all classes and of each, what keeps them down, and the confusion matrix; or a comparison."""
    if "rows" in result:
        return _views_as_text(result)
    images, iou, counts = sum(result["count_difference"]["images"]), result["mean_best_iou"], result["count_difference"]
    lines = [f"{result['name']} on {images} images of {result['split']}, set {result['set']}", ""]
    lines += [
        *_class_table(result),
        "",
        f"Mean best IoU: {iou['per_prediction']:.3f} of a prediction, {iou['per_truth']:.3f} of a labeled box",
        f"Predicted less labeled boxes of an image, on average: {counts['mean']:+.2f}",
    ]
    if "left_out_images" in result:
        lines.append(f"Images that have left the split since, and are not in the results: {result['left_out_images']}")
    return "\n".join([*lines, *_diagnosis_as_text(result)])


def _class_table(result: Result) -> list[str]:
    """One row of all classes, then one a class: objects, AP by IoU, the best F1 with its threshold, AR, AP by size."""
    coco, classes = result["coco"], result["per_class"]
    caps = [name for name in coco if name.startswith("AR") and name[2:].isdigit()]
    whole = [result["map"], result["map50"], result["map75"], result["f1"], result["f1_threshold"]]
    whole += [coco[max(caps, key=lambda name: int(name[2:]))], coco["APs"], coco["APm"], coco["APl"]]
    rows = [["all classes", str(sum(one["num_truth"] for one in classes)), *map(number, whole)]]
    rows += [[one["name"], str(one["num_truth"]), *(number(one[name]) for name in CLASS_FIGURES)] for one in classes]
    return table(("class", "objects", *CLASS_HEADS), rows, "fr" + "r" * len(CLASS_HEADS))


def _views_as_text(result: Result) -> str:
    """A comparison of test-time augmentations: one table with the verdict below it."""
    heads = (("map", "mAP"), ("map50", "mAP50"), ("map75", "mAP75"), ("f1", "F1"), ("score", "score"))
    rows = [
        [row["name"], *(number(row[name]) for name, _ in heads), _noise_as_text(row["noise"])] for row in result["rows"]
    ]
    lines = [f"{result['name']} on {result['split']}", ""]
    against = f"score less that of {result['rows'][0]['name']}, 95 % interval"
    lines += table(("views", *(title for _, title in heads), against), rows, "frrrrrw")
    return "\n".join([*lines, "", result["verdict"]])


def _noise_as_text(noise: Result | None) -> str:
    """A difference behind the figures of its row; nothing where there is none."""
    if noise is None:
        return ""
    if noise["outcome"] is None:
        return noise["words"].lower()
    return f"{noise['difference']:+.3f}, {noise['low']:+.3f} to {noise['high']:+.3f}: {noise['words'].lower()}"


def _diagnosis_as_text(result: Result) -> list[str]:
    """Error budget and confusion matrix in lines."""
    budget, confusion = result["error_budget"], result["confusion"]
    titles = KIND_TITLES | TOTAL_TITLES
    rows = [
        [titles[row["kind"]], number(row["d_ap50"]), str(row["count"]), row.get("advice", "")]
        for row in (*budget["kinds"], *budget["totals"])
    ]
    lines = ["", f"What keeps AP50 ({budget['ap50']:.3f}) down:"]
    lines += table(("kind of error", "AP50", "count", "what helps"), rows, "lrrw", indent=2)
    threshold = f"score {confusion['score_threshold']:.2f}, IoU {confusion['iou_threshold']:.2f}"
    lines += ["", f"Labeled (rows) and predicted (columns) at {threshold}:"]
    names = confusion["labels"]
    room = _columns_beside(names, indent=2)
    shown = [*range(1, len(names))[: max(1, room - 1)], 0]  # the background last, as on the screen
    rows = [[names[row], *(str(confusion["counts"][row][column]) for column in shown)] for row in shown]
    heads = ("", *(shorten(names[place], MAX_HEAD) for place in shown))
    lines += table(heads, rows, "f" + "r" * len(shown), indent=2)
    return lines + _left_out(len(names) - len(shown), "class", "classes")


def _columns_beside(names: list[str], indent: int = 0) -> int:
    """How many columns that users named have room beside the longest of ``names``."""
    first = min(max(map(len, names)), MAX_TEXT)
    return max(1, (WIDTH - indent - first) // NAMED_COLUMN)


def _left_out(count: int, one: str, several: str) -> list[str]:
    what = f"{one} is" if count == 1 else f"{several} are"
    return [f"  {count} more {what} in --json only."] if count else []


def ensemble_as_text(result: Result) -> str:
    """The members with the ensemble below them, the verdict, and the figures of each class."""
    method = SHORT_NAMES[result["method"]]
    heads = ("", "mAP", "mAP50", "mAP75", "F1", "threshold", "score", "ms/image", "set")
    whole = {**result, "name": f"Ensemble, {method}", "threshold": result["f1_threshold"]}
    rows = [
        [row["name"], *(number(row[name]) for name in (*FIGURES, "threshold", "score")), _cost(row["cost_ms"])]
        + [str(row["set"])]
        for row in (*result["members"], whole)
    ]
    lines = [f"{method} of {len(result['members'])} on {result['split']}, set {result['set']}", ""]
    lines += [
        *table(heads, rows, "frrrrrrrr"),
        *_cost_note("predicting" if result["devices"] else None, result["devices"]),
    ]
    return "\n".join([*lines, "", result["verdict"], *result["truth"]["words"], "", *_class_table(result)])


def comparison_as_text(result: Result) -> str:
    """The verdict, the figures, the options that differ, and when each was as good."""
    names = [
        f"{_run_title(item['run'], item['name'])}, {item['checkpoint'] or 'an ensemble'}" for item in result["runs"]
    ]
    lines = [f"A: {names[0]}", f"B: {names[1]}", f"on {result['images']} images of {result['split']}"]
    lines += [f"{result['left_out']} images that only one of them has"] if result["left_out"] else []
    lines += result["truth"]["words"]
    rows = [_difference_cells(TITLES[figure], item) for figure, item in result["differences"].items()]
    rows = [
        [*cells, f"{100 * item['share_better']:.1f} %", f"{item['detectable']:.3f}", words_of_sides(item, "AB")]
        for cells, item in zip(rows, result["differences"].values(), strict=True)
    ]
    heads = ("", "A", "B", "B - A", "95 % interval", "B better", "detectable", "difference")
    lines += ["", *table(heads, rows, "frrrrrrl")]
    rows = [
        [
            *_difference_cells(row["name"], row["difference"]),
            str(row["num_truth"]),
            words_of_sides(row["difference"], "AB"),
        ]
        for row in result["per_class"]
    ]
    lines += [
        "",
        *table(("AP50 by class", "A", "B", "B - A", "95 % interval", "objects", "difference"), rows, "frrrrrl"),
    ]
    lines += [
        "",
        result["verdict"],
        "",
        "Options that differ:" if result["config"] else "The options are equal.",
    ]
    options = [[item["option"], *map(_value, item["values"])] for item in result["config"]]
    lines += table(("option", "A", "B"), options, "llf", indent=2) if options else []
    if result["reached"]:
        lines += ["", comparing.explain_reached(result["reached"])]
    return "\n".join(lines + ([f"report: {result['report']}"] if "report" in result else []))


def _value(value: Any) -> str:
    """An option of one side; a dash where it has none of the kind, or leaves it empty."""
    return NONE if value in (None, "", []) else _option_as_text(value)


def _difference_cells(name: str, item: Result) -> list[str]:
    """A name with both figures, their difference and its interval; dashes where nothing could be measured."""
    if not item["outcome"]:
        return [name, NONE, NONE, NONE, NONE]
    both = (number(item["first"]), number(item["second"]), f"{item['difference']:+.3f}")
    return [name, *both, f"{item['low']:+.3f} to {item['high']:+.3f}"]


def audit_as_text(result: Result) -> str:
    """One line a suspect."""
    counts = ", ".join(count_suspects(kind, count) for kind, count in result["counts"].items())
    by = "; ".join(f"{one['name']} on {one['split']}, set {one['set']}" for one in result["by"])
    lines = [by, f"{result['images']} images, model at least {result['min_score']:.2f} sure: {counts}"]
    if result["ignored"]:
        lines[1] += f" ({result['ignored']} ignored)"
    judged = result["judged"]
    if judged["changed"]:
        moved = ", ".join(
            f"{TITLES[name]} {judged['before'][name]:.3f} -> {judged['after'][name]:.3f}" for name in judged["before"]
        )
        images = "1 image" if judged["changed"] == 1 else f"{judged['changed']} images"
        lines.append(f"Judged again, with {images} labeled anew since the run began: {moved}.")
    if result["in_sample"]:
        lines.append(f"The model was trained on {result['in_sample']} of them: it has learned their faults too.")
    rows = [
        [number(item["score"]), SUSPECT_TITLES[item["kind"]][0].lower(), str(item["image_id"]), item["file_name"]]
        + [item["labeled"] or NONE, item["predicted"], " ".join(f"{value:.0f}" for value in item["box"])]
        + ["yes" if item["in_sample"] else "no"]
        for item in result["suspects"]
    ]
    if not rows:
        return "\n".join([*lines, "No suspect: the labels agree with the model, or pass no filter."])
    is_known = any(item["in_sample"] for item in result["suspects"])
    heads = ("score", "kind", "image", "file", "labeled", "predicted", "x1 y1 x2 y2", "in sample")
    size = len(heads) if is_known else len(heads) - 1
    lines += ["", *table(heads[:size], [row[:size] for row in rows], "rlrfllll"[:size])]
    return "\n".join(lines + ([f"{result['left']} more: --limit shows them."] if result["left"] else []))


def sweep_as_text(result: Result) -> str:
    """A table of all checkpoints, the best first, how far they are behind it, and AP50 by class."""
    rows = [[row["name"], *(number(row[name]) for name in (*FIGURES, "score"))] for row in result["rows"]]
    heads = ("", *(TITLES[name] for name in FIGURES), "score")
    lines = table(heads, rows, "frrrrr")
    lines += [f"{row['name']} is of {', '.join(row['members'])}" for row in result["rows"] if row["members"]]
    best, *others = result["rows"]
    if others:
        rows = [[row["name"], _noise_as_text(row["noise"])] for row in others]
        lines += ["", *table(("", f"score less that of {best['name']}, 95 % interval"), rows, "fw")]
    classes = [entry["name"] for entry in result["rows"][0]["per_class"]]
    shown = result["rows"][: _columns_beside(classes)]
    rows = [[name, *(number(row["per_class"][place]["ap50"]) for row in shown)] for place, name in enumerate(classes)]
    heads = ("AP50", *(shorten(row["name"], MAX_HEAD) for row in shown))
    lines += [
        "",
        *table(heads, rows, "f" + "r" * len(shown)),
        *_left_out(len(result["rows"]) - len(shown), "checkpoint", "checkpoints"),
    ]
    return "\n".join([*lines, "", result["verdict"]])


def lab_as_text(result: Result) -> str:
    """The verdict, then members and methods in one table: figures on the judging half, score on both."""
    names = (*FIGURES, "threshold")
    lines = [result["verdict"], *(result["truth"]["words"] if result["truth"] else ()), ""]
    members = result["members"]
    has_several_views = len(result["views"]) > 1
    rows = [(members[row["member"]]["name"], _cost(row["cost_ms"]), "", row) for row in result["alone"]]
    rows += [
        (
            row["name"],
            _cost(row["cost_ms"], f"+{row['fuse_ms']:.2f}"),
            _fusion_as_text(row["options"]),
            row,
        )
        for row in result["methods"]
    ]
    cells = []
    for name, cost, _, row in rows:
        views = f", {lab_members.VIEW_TITLES[row['views']]}" if has_several_views else ""
        figures = (row["tuned"]["score"], *(row["judged"][figure] for figure in ("score", *names)))
        cells.append([f"{name}{views}", *map(number, figures), cost])
    heads = ("", "tuned", "judged", *(TITLES[name] for name in FIGURES), "threshold", "ms/image")
    head, *told = table(heads, cells, "frrrrrrrr")
    lines.append(head)
    for line, (_, _, options, _) in zip(told, rows, strict=True):
        lines += [line, f"  {options}"] if options else [line]
    lines += _cost_note(result["costs"]["how"], result["costs"]["devices"])
    lines.append("The verdict is on what was best in tuning; others may stand higher on the judging half by chance.")
    brought = [
        [member["name"], f"{row['score']:+.3f}", f"{row['map']:+.3f}", _noise_as_text(row.get("noise"))]
        for member, row in zip(members, result["contributions"], strict=True)
    ]
    lines += ["", "What each member brings to the best method:"]
    lines += table(("member", "score", "mAP", "score, 95 % interval"), brought, "frrw", indent=2)
    needed = "; ".join(members[index]["name"] for index in result["smallest"]["members"])
    lines.append(f"Fewest members within {100 * result['near_best']:g} mAP points of the best: {needed}")
    return "\n".join(lines)


def _cost(milliseconds: float | None, unknown: str = "-") -> str:
    """Of an image; where the members were not measured, what fusing adds."""
    return unknown if milliseconds is None else f"{milliseconds:.2f}"


def _cost_note(how: str | None, devices: list[str]) -> list[str]:
    """What ms/image means, or why it is not known."""
    if how == "predicting":
        return [f"ms/image: through all members and the fusing, measured while predicting on {' and '.join(devices)}"]
    if how == "alone":
        return ["ms/image: through all members and the fusing, each model measured alone"]
    return ["ms/image: not measured when these members predicted (with a +: what fusing adds)"]


def _fusion_as_text(options: Result) -> str:
    iou = f"IoU {options['iou_threshold']:g}, " if "iou_threshold" in options_in_effect(options) else ""
    weights = " ".join(f"{weight:g}" for weight in options["weights"])
    return f"{iou}skip below {options['skip_threshold']:g}, weights {weights}"
