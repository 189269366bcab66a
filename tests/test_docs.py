"""Documentation that must stay true: options, pages, commands and the README's example are checked against the code.

`UPDATE_DOCS=1 pytest tests/test_docs.py` writes the option table of the user guide anew.
"""

import argparse
import os
import re
import shlex
from pathlib import Path

import pytest

from app.pipeline.config import GROUPS, explain_use

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "user-guide.md"
BEGIN, END = "<!-- options: begin -->", "<!-- options: end -->"


def _range(schema: dict) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    low = next(
        (f"{sign} {schema[key]:g}" for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">")) if key in schema), ""
    )
    high = next(
        (f"{sign} {schema[key]:g}" for key, sign in (("maximum", "≤"), ("exclusiveMaximum", "<")) if key in schema), ""
    )
    return ", ".join(part for part in (low, high) if part)


def _options_table() -> str:
    lines = []
    for group in GROUPS:
        lines += [f"### {group.__doc__}", "", "| option | default | accepted | what it does |", "|---|---|---|---|"]
        for name, schema in group.model_json_schema()["properties"].items():
            default = schema.get("default")
            shown = "none" if default in ("", [], ()) else default
            about = f"{schema['description']} {explain_use(name)}".strip()
            lines.append(f"| `{name}` | {shown} | {_range(schema)} | {about} |")
        lines.append("")
    return "\n".join(lines)


def test_the_guide_lists_every_option_as_it_is():
    text = GUIDE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    inside, _, after = rest.partition(END)
    table = f"\n\n{_options_table()}\n"
    if os.environ.get("UPDATE_DOCS"):
        GUIDE.write_text(f"{before}{BEGIN}{table}{END}{after}", encoding="utf-8")
        inside = table
    assert inside.strip() == table.strip(), "run UPDATE_DOCS=1 pytest tests/test_docs.py"


def test_every_page_has_a_chapter_in_the_guide():
    from app.ui.shell import PAGES

    headings = set(re.findall(r"^## (.+)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE))
    missing = [page.title for page in PAGES if page.title not in headings]
    assert not missing


def test_every_command_is_in_the_guide():
    from app.cli import build_parser

    subparsers = next(action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    text = GUIDE.read_text(encoding="utf-8")
    missing = [name for name in subparsers.choices if f"python -m app {name}" not in text]
    assert not missing


def test_the_commands_that_the_guide_shows_are_ones(tmp_path, monkeypatch):
    from app.cli import build_parser

    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("python -m app ")]
    assert len(commands) > 10
    for command in commands:
        build_parser().parse_args(shlex.split(command)[3:])


def test_the_readme_shows_the_lines_that_load_an_export():
    """The lines themselves are run on a real export by the tests of the pipeline."""
    from app.pipeline.export import torchvision_recipe

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.partition("```python\n")[2].partition("\n```")[0]
    assert shown == torchvision_recipe("fasterrcnn_resnet18_fpn")
    assert len(shown.splitlines()) == 5


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("document", sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]), ids=lambda p: p.name)
def test_links_between_documents_lead_somewhere(document):
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", document.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing


def test_every_benchmark_that_the_docs_name_is_there():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")]
    named = {name for text in texts for name in re.findall(r"benchmarks[./](\w+)", text)} - {"md"}
    there = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert named <= there, f"not there: {sorted(named - there)}"
