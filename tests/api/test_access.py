"""The secret outlives the app, links do not outlive their use."""

import os
import stat
import time

import pytest

from app.api.access import LINK_LIFE_S, Access
from app.store.files import Workspace


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path)


def test_secret_is_the_same_after_a_restart(workspace):
    assert Access(workspace).token == Access(workspace).token


def test_secrets_of_two_workspaces_differ(tmp_path):
    assert Access(Workspace(tmp_path / "a")).token != Access(Workspace(tmp_path / "b")).token


def test_damaged_secret_is_replaced(workspace):
    workspace.hidden("secret").write_text("")
    assert len(Access(workspace).token) >= 32


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such mode")
def test_only_the_owner_can_read_secret_and_links(workspace):
    Access(workspace).mint_code()
    files = [workspace.hidden("secret"), *workspace.hidden("links").iterdir()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600]


def test_code_is_redeemed_once_by_any_process(workspace):
    code = Access(workspace).mint_code()
    assert Access(workspace).redeem(code)
    assert not Access(workspace).redeem(code)


@pytest.mark.parametrize("code", ["", "unknown", "../secret"])
def test_unknown_code_is_refused(workspace, code):
    access = Access(workspace)
    assert not access.redeem(code)
    assert workspace.hidden("secret").is_file()


def test_old_code_is_refused_and_forgotten(workspace):
    access = Access(workspace)
    code, forgotten = access.mint_code(), access.mint_code()
    long_ago = time.time() - LINK_LIFE_S - 60
    for path in workspace.hidden("links").iterdir():
        os.utime(path, (long_ago, long_ago))
    assert not access.redeem(code)
    access.mint_code()
    assert len(list(workspace.hidden("links").iterdir())) == 1
    assert not access.redeem(forgotten)
