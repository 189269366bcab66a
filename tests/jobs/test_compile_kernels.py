"""What the app compiles when it starts is what a job then finds on disk."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from app.api import server
from app.api.server import ServeOptions
from app.errors import Cancelled
from app.jobs import compile_kernels
from app.jobs.compile_kernels import FUSING
from app.services import compiling
from app.services.context import Services
from app.store.files import Workspace

COUNT_COMPILED = """
from app.pipeline.fusion import judging_kernel, kernels
kernels.warm_up()
judging_kernel.warm_up()
stats = [kernels.fuse_rows.stats, judging_kernel.judge_rows.stats]
print([sum(one.cache_misses.values()) for one in stats], [sum(one.cache_hits.values()) for one in stats])
"""


def test_a_job_finds_fusing_compiled_once_the_app_has_started(tmp_path):
    services = Services(Workspace(tmp_path / "projects"))
    assert compiling.compile_ahead(services) == 0
    assert (tmp_path / "projects" / ".anchorage" / "compile.log").read_text() == ""
    done = subprocess.run([sys.executable, "-c", COUNT_COMPILED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[0, 0] [1, 1]"


def test_who_needs_it_waits_for_the_part_that_is_wanted_and_tells(tmp_path, monkeypatch):
    services = Services(Workspace(tmp_path))
    asked, told, ends = [], [], iter([None, None, None, None])

    def is_compiled(parts):
        asked.append(parts)
        return len(asked) > 3

    class Process:
        returncode = 0

        def poll(self):
            return next(ends)

    monkeypatch.setattr(compile_kernels, "is_compiled", is_compiled)
    monkeypatch.setattr(compiling, "start_detached", lambda command, log: Process())
    compiling.wait_until_compiled(services, (FUSING,), lambda: told.append(1))
    assert asked == [(FUSING,)] * 4 and len(told) == 3  # its other parts may take longer
    told.clear()
    compiling.wait_until_compiled(services, (FUSING,), lambda: told.append(1))
    assert not told


def test_a_wait_for_compiling_can_be_ended(tmp_path, monkeypatch):
    services = Services(Workspace(tmp_path))
    monkeypatch.setattr(compile_kernels, "is_compiled", lambda parts: False)

    def refuse():
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        compiling.wait_until_compiled(services, (FUSING,), refuse)


def test_what_was_compiled_of_other_sources_is_compiled_again(tmp_path, monkeypatch):
    compiled = []
    module = SimpleNamespace(__file__=str(tmp_path / "kernels.py"), warm_up=lambda: compiled.append(1))
    (tmp_path / "kernels.py").write_text("first")
    monkeypatch.setattr(compile_kernels, "_folder", lambda: tmp_path)
    monkeypatch.setattr(compile_kernels, "import_module", lambda name: module)
    monkeypatch.setattr(compile_kernels, "PARTS", {FUSING: "kernels"})
    assert not compile_kernels.is_compiled((FUSING,))
    compile_kernels.compile_all()
    compile_kernels.compile_all()
    assert compile_kernels.is_compiled((FUSING,)) and compiled == [1]
    (tmp_path / "kernels.py").write_text("other source")
    assert not compile_kernels.is_compiled((FUSING,))


def test_app_compiles_when_it_has_started(tmp_path, monkeypatch, capsys):
    started = []
    services = Services(Workspace(tmp_path))
    monkeypatch.setattr(compiling, "compile_ahead", started.append)
    access = server.Access(services.workspace)
    server._welcome(services, access, ServeOptions(has_browser=False), 7860, None)
    assert started == [services]
    assert "Anchorage is running" in capsys.readouterr().out
