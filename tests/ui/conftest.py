"""Running the browser's modules without a browser."""

import shutil
import subprocess
from pathlib import Path

import orjson
import pytest

WIDGETS = Path(__file__).parents[2] / "app" / "ui" / "widgets"
FRAME = """
import { readFileSync } from "node:fs";
const given = JSON.parse(readFileSync(0));
const answer = (value) => console.log(JSON.stringify(value));
"""


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    """``node(script, given)``: what a script, which imports from "WIDGETS/…", hands to ``answer`` about ``given``."""
    path = shutil.which("node")
    if path is None:
        pytest.skip("node is not installed (the browser tests run these modules too)")
    file = tmp_path_factory.mktemp("node") / "script.mjs"

    def run(script, given):
        file.write_text(FRAME + script.replace("WIDGETS", WIDGETS.as_uri()))
        text = orjson.dumps(given, option=orjson.OPT_SERIALIZE_NUMPY)
        return orjson.loads(subprocess.run([path, file], input=text, capture_output=True, check=True).stdout)

    return run
