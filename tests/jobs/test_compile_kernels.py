"""What the app compiles when it starts is what a job then finds on disk."""

import subprocess
import sys

from app.api import server
from app.api.server import ServeOptions
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


def test_app_compiles_when_it_has_started(tmp_path, monkeypatch, capsys):
    started = []
    services = Services(Workspace(tmp_path))
    monkeypatch.setattr(compiling, "compile_ahead", started.append)
    access = server.Access(services.workspace)
    server._welcome(services, access, ServeOptions(has_browser=False), 7860, None)
    assert started == [services]
    assert "Anchorage is running" in capsys.readouterr().out
