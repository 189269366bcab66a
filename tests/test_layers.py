"""Who may know whom: the directions between floors, read from every import, lazy ones included."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
APP = REPOSITORY / "app"

# A floor may import itself and the floors named with it; every floor may import records and errors.
MAY_IMPORT = {
    "records": set(),
    "errors": set(),
    "pipeline": set(),
    "store": {"pipeline"},
    "jobs": {"store", "pipeline"},
    "services": {"jobs", "store", "pipeline"},
    "ui": {"services", "pipeline"},
    "api": {"ui", "services", "jobs", "store", "pipeline"},
    "cli": {"cli_arguments", "cli_judging", "cli_progress", "cli_text", "services", "store", "pipeline", "doctor"},
    "cli_judging": {"cli_arguments", "cli_progress", "cli_text", "services"},
    "cli_text": {"cli_table", "services", "pipeline"},
    "cli_table": set(),
    "cli_arguments": {"services"},
    "cli_progress": {"services"},
    "__main__": {"cli", "doctor"},
    "doctor": set(),
}
TORCH = {"torch", "torchvision", "albumentations", "albucore"}
# What runs in job processes and in the warm helper only; the web process starts these, it does not import them.
JOB_PROCESS_ENTRIES = {
    "app.services.job_process",
    "app.services.job_handlers",
    "app.services.export_handlers",
    "app.services.preflight_handler",
    "app.services.sweep_handler",
    "app.jobs.handlers",
    "app.pipeline.device_check",
}
# The part of the pipeline that the web process uses.
TORCH_FREE = (
    "app.pipeline.config",
    "app.pipeline.types",
    "app.pipeline.ensemble",
    "app.pipeline.views",
    "app.pipeline.data.coco",
    "app.pipeline.data.image",
    "app.pipeline.data.split",
    "app.pipeline.data.stats",
    "app.pipeline.data.snapshot",
    "app.pipeline.evaluate.coco_numbers",
    "app.pipeline.evaluate.matching",
    "app.pipeline.evaluate.bootstrap",
    "app.pipeline.evaluate.confusion",
    "app.pipeline.evaluate.error_budget",
    "app.pipeline.evaluate.label_audit",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(APP.rglob("*.py"))}


@cache
def imports_of(module: str) -> frozenset[str]:
    """Full names of what a module imports anywhere in it, except for type checkers only."""
    found = set()
    for node in walk_running_code(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names if f"{node.module}.{alias.name}" in TREES}
    return frozenset(found)


def walk_running_code(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below ``if TYPE_CHECKING:``."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")):
            yield from walk_running_code(child)


def packages_of(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imports_of(module)}


def floor_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def nodes(kind: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Every node of a kind with its place, as ``module:line``."""
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield f"{module}:{node.lineno}", node


def reached_from(entries: set[str]) -> dict[str, str]:
    """Modules of the app that importing the entries can load, each with the one that imports it."""
    reached = dict.fromkeys(entries, "")
    pending = list(entries)
    while pending:
        module = pending.pop()
        for name in imports_of(module) & (TREES.keys() - reached.keys()):
            reached[name] = module
            pending.append(name)
    return reached


def web_modules() -> dict[str, str]:
    entries = {name for name in TREES if floor_of(name) in ("ui", "api", "services", "cli", "__main__", "doctor")}
    return reached_from(entries - JOB_PROCESS_ENTRIES)


def test_imports_go_down_the_floors_only():
    upward = []
    for module in TREES:
        floor = floor_of(module)
        allowed = MAY_IMPORT.get(floor, set()) | {floor, ""}
        if floor != "pipeline":
            allowed |= {"records", "errors"}
        upward += [
            f"{module} imports {name}"
            for name in imports_of(module)
            if name.partition(".")[0] == "app" and floor_of(name) not in allowed
        ]
    assert upward == []


def test_imports_are_absolute_and_named():
    loose = [where for where, node in nodes(ast.ImportFrom) if node.level or node.names[0].name == "*"]
    assert loose == []


def test_nothing_the_web_process_reaches_imports_torch():
    reached = web_modules()
    loading = [f"{name} (imported by {reached[name]})" for name in reached if packages_of(name) & TORCH]
    assert loading == []


def test_job_process_entries_are_started_not_imported():
    reached = web_modules()
    assert [f"{name} (imported by {reached[name]})" for name in reached if name in JOB_PROCESS_ENTRIES] == []


WEB_PROCESS = """
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
from pathlib import Path
from fastapi.testclient import TestClient
from app.api.access import Access
from app.api.app import build_app
from app.services import projects
from app.services.context import Services
from app.store.files import Workspace
from app.ui.shell import PAGES

services = Services(Workspace(Path({folder!r})))
slug = projects.create_project(services, "Pages")
access = Access(services.workspace)
app = build_app(services, access=access, hosts=frozenset(["testserver"]), port=80)
with TestClient(app, headers={{"Authorization": f"Bearer {{access.token}}"}}) as client:
    for page in PAGES:
        assert client.get(f"{{page.path}}?project={{slug}}").status_code == 200
    for route in ("images", "stats", "categories", "runs", "jobs", "config", "augmentation", "prediction-sets"):
        assert client.get(f"/api/projects/{{slug}}/{{route}}").status_code == 200, route
sys.exit(f"loaded: {{sorted(set(sys.modules) & {torch!r})}}" if set(sys.modules) & {torch!r} else 0)
"""


@pytest.mark.slow
def test_web_process_has_no_torch_after_importing_everything_and_serving_every_page(tmp_path):
    code = WEB_PROCESS.format(names=sorted({*web_modules(), *TORCH_FREE}), folder=str(tmp_path / "w"), torch=TORCH)
    answer = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=180)
    assert answer.returncode == 0, answer.stderr[-2000:]


def test_sql_is_in_the_store_only():
    """The floors above may hold a transaction open for the store's functions; they write no statement of their own."""
    statements = [
        where
        for where, call in nodes(ast.Call)
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("execute", "executemany", "executescript")
    ]
    assert [where for where in statements if floor_of(where) != "store"] == []


def test_gradio_is_in_the_screen_and_its_mount_only():
    using = {module for module in TREES if "gradio" in packages_of(module)}
    assert {module for module in using if floor_of(module) != "ui"} <= {"app.api.app"}


def test_web_framework_stays_out_of_the_lower_floors():
    using = {module for module in TREES if packages_of(module) & {"fastapi", "starlette", "uvicorn"}}
    assert {floor_of(module) for module in using} <= {"api", "ui"}


def test_nothing_is_printed():
    names = [(where, call.func) for where, call in nodes(ast.Call) if isinstance(call.func, ast.Name)]
    assert [where for where, name in names if name.id == "print"] == []


def test_no_state_per_tab():
    """A gr.State opens a stream per tab, and the sixth tab never loads."""
    states = [(where, node) for where, node in nodes(ast.Attribute) if node.attr == "State"]
    assert [where for where, node in states if ast.unparse(node) in ("gr.State", "gradio.State")] == []


def test_no_error_is_swallowed_whole():
    silent = []
    for where, handler in nodes(ast.ExceptHandler):
        catches_all = handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")
        if catches_all and all(isinstance(statement, ast.Pass) for statement in handler.body):
            silent.append(where)
    assert silent == []


def test_modules_are_named_after_what_they_hold():
    vague = {"utils", "common", "helpers", "manager", "base", "misc"}
    assert [module for module in TREES if module.rpartition(".")[2] in vague] == []


def test_package_files_are_empty():
    full = [path for path in APP.rglob("__init__.py") if path.read_text(encoding="utf-8").strip()]
    assert full == []
