"""How results of the commands read for people; ``--json`` gives the same as they are."""

from typing import Any

import orjson

from app.pipeline.config import parse_config
from app.pipeline.evaluate.difference import class_words
from app.pipeline.evaluate.error_words import KIND_TITLES, SUSPECT_TITLES, TOTAL_TITLES, count_suspects
from app.pipeline.evaluate.selection import TITLES
from app.services import ensemble_lab, lab_members

Result = dict[str, Any]
FIGURES = ("map", "map50", "map75", "f1")
MAX_COLUMNS = 8  # of classes, in a table


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
    lines = []
    for model in result["models"]:
        weights = " ".join(part.upper() if part in model["cached"] else part for part in model["pretrained"])
        lines.append(f"{model['name']:<40}{model['parameters'] / 1e6:>8.2f} M  {weights or '-'}")
    return "\n".join([*lines, "timm/NAME: any backbone of timm that gives feature pyramids"])


def preflight_as_text(result: Result) -> str:
    """One line a check: level, title, what was found, and what would mend it."""
    lines = []
    for verdict in result["verdicts"]:
        lines.append(f"{verdict['level']:<6}{verdict['title']:<22}{verdict['text']}")
        lines += [f"{'':<28}--set {name}={_option_as_text(value)}" for name, value in verdict["fix"].items()]
    return "\n".join(lines)


def benchmark_as_text(result: Result) -> str:
    """One line a detector and size: images a second in training, the speed-up, seconds an image in prediction."""
    head = f"{'model':<40}{'size':>6}{'images/s':>10}{'plain':>8}{'speed-up':>10}{'predict s':>11}"
    lines = [head]
    for one in result["models"]:
        rates = f"{one['train_images_per_s']:>10.2f}{one['reference_images_per_s']:>8.2f}"
        lines.append(f"{one['model']:<40}{one['image_size']:>6}{rates}{one['speedup']:>10.2f}{one['predict_s']:>11.3f}")
    lines += [f"left out: {name} ({reason})" for name, reason in result["left_out"].items()]
    return "\n".join([*lines, f"on {result['models'][0]['device']}; plain is torchvision's own step in float32"])


def evaluation_as_text(result: Result) -> str:
    """The figures as everywhere, with the error budget and the confusion matrix as tables below; or a comparison."""
    if "rows" in result:
        return _views_as_text(result)
    figures = {name: value for name, value in result.items() if name not in ("error_budget", "confusion")}
    return "\n".join([as_text(figures), *_diagnosis_as_text(result)])


def _views_as_text(result: Result) -> str:
    """A comparison of test-time augmentations: one table with the verdict below it."""
    heads = (("map", "mAP"), ("map50", "mAP50"), ("map75", "mAP75"), ("f1", "F1"), ("score", "score"))
    against = f"   score less that of {result['rows'][0]['name']}, 95 % interval"
    lines = [f"Run {result['run']}, {result['checkpoint']} on {result['split']}", ""]
    lines.append(f"{'test-time augmentation':<24}" + "".join(f"{title:>8}" for _, title in heads) + against)
    for row in result["rows"]:
        lines.append(f"{row['name']:<24}" + "".join(f"{row[name]:>8.3f}" for name, _ in heads))
        lines[-1] += _noise_as_text(row["noise"])
    return "\n".join([*lines, "", result["verdict"]])


def _noise_as_text(noise: Result | None) -> str:
    """A difference behind the figures of its row; nothing where there is none."""
    if noise is None:
        return ""
    if noise["outcome"] is None:
        return f"   {noise['words'].lower()}"
    return f"   {noise['difference']:+.3f}, {noise['low']:+.3f} to {noise['high']:+.3f}: {noise['words'].lower()}"


def _diagnosis_as_text(result: Result) -> list[str]:
    """Error budget and confusion matrix in lines."""
    budget, confusion = result["error_budget"], result["confusion"]
    lines = ["", f"What keeps AP50 ({budget['ap50']:.3f}) down:"]
    for row in budget["kinds"]:
        lines.append(f"  {KIND_TITLES[row['kind']]:<20}{row['d_ap50']:>7.3f}{row['count']:>8}  {row['advice']}")
    for row in budget["totals"]:
        lines.append(f"  {TOTAL_TITLES[row['kind']]:<20}{row['d_ap50']:>7.3f}{row['count']:>8}")
    threshold = f"score {confusion['score_threshold']:.2f}, IoU {confusion['iou_threshold']:.2f}"
    lines += ["", f"Labeled (rows) and predicted (columns) at {threshold}:"]
    names = confusion["labels"][: MAX_COLUMNS + 1]
    lines.append(f"  {'':<18}" + "".join(f"{name[:10]:>11}" for name in names))
    for name, counts in zip(names, confusion["counts"], strict=False):
        lines.append(f"  {name[:17]:<18}" + "".join(f"{count:>11}" for count in counts[: len(names)]))
    return lines


def ensemble_as_text(result: Result) -> str:
    """As any result; the verdict has of the noise what people read."""
    return as_text({name: value for name, value in result.items() if name != "noise"})


def comparison_as_text(result: Result) -> str:
    """The verdict, the figures, the options that differ, and when each was as good."""
    names = [f"{item['name']} ({item['run']}), {item['checkpoint'] or 'an ensemble'}" for item in result["runs"]]
    lines = [f"A: {names[0]}", f"B: {names[1]}", f"on {result['images']} images of {result['split']}"]
    for name, text in (("left_out", "images that only one of them has"), ("relabeled", "images labeled anew")):
        lines += [f"{result[name]} {text}"] if result[name] else []
    lines += ["", f"{'':<20}{'A':>8}{'B':>8}{'B - A':>9}   95 % interval       B better   detectable   difference"]
    for figure, item in result["differences"].items():
        interval = f"{item['low']:+.3f} to {item['high']:+.3f}"
        lines.append(
            f"{TITLES[figure]:<20}{item['first']:>8.3f}{item['second']:>8.3f}{item['difference']:>+9.3f}"
            f"   {interval:<18}{100 * item['share_better']:>8.1f} %{item['detectable']:>13.3f}"
            f"   {'beyond chance' if item['is_clear'] else item['words'].lower()}"
        )
    lines += ["", *_classes_as_text(result["per_class"])]
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


def _classes_as_text(rows: list[Result]) -> list[str]:
    """AP50 of each class of two sides, with the noise of the difference."""
    lines = [f"{'AP50 by class':<20}{'A':>8}{'B':>8}{'B - A':>9}   95 % interval       objects   difference"]
    for row in rows:
        item, figures = row["difference"], f"{'-':>8}{'-':>8}{'-':>9}   {'':<18}"
        if item["outcome"]:
            interval = f"{item['low']:+.3f} to {item['high']:+.3f}"
            figures = f"{item['first']:>8.3f}{item['second']:>8.3f}{item['difference']:>+9.3f}   {interval:<18}"
        lines.append(f"{row['name'][:19]:<20}{figures}{row['num_truth']:>9}   {class_words(item).lower()}")
    return lines


def audit_as_text(result: Result) -> str:
    """One line a suspect."""
    counts = ", ".join(count_suspects(kind, count) for kind, count in result["counts"].items())
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
            f"{item['score']:.3f} {SUSPECT_TITLES[item['kind']][0]:<12} image {item['image_id']} {item['file_name']}: "
            f"{labeled}{item['predicted']} at {box}{seen}"
        )
    return "\n".join(lines)


def sweep_as_text(result: Result) -> str:
    """A table of all checkpoints, with AP50 by class, and one of how far they are behind the first."""
    classes = [entry["name"] for entry in result["rows"][0]["per_class"]][:MAX_COLUMNS]
    heads = [*(TITLES[name] for name in FIGURES), "score", *(f"{name[:9]}" for name in classes)]
    lines = [f"{'':<18}" + "".join(f"{head:>10}" for head in heads)]
    for row in result["rows"]:
        values = [*(row[name] for name in (*FIGURES, "score")), *(entry["ap50"] for entry in row["per_class"])]
        lines.append(f"{row['name']:<18}" + "".join(f"{value:>10.3f}" for value in values[: len(heads)]))
        lines += [f"{'':<18}  of {', '.join(row['members'])}"] if row["members"] else []
    best, *others = result["rows"]
    lines += ["", f"Score less that of {best['name']}, 95 % interval:"] if others else []
    lines += [f"{row['name']:<18}{_noise_as_text(row['noise'])}" for row in others]
    return "\n".join([*lines, "", result["verdict"]])


def lab_as_text(result: Result) -> str:
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


def _fusion_as_text(options: Result) -> str:
    iou = "" if options["method"] == "soft_nms" else f"IoU {options['iou_threshold']:g}, "
    weights = " ".join(f"{weight:g}" for weight in options["weights"])
    return f"{iou}skip below {options['skip_threshold']:g}, weights {weights}"
