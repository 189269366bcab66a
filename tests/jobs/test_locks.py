"""Locks as signs of life."""

from pathlib import Path

from app.jobs.locks import FileLock, is_held


def test_only_one_holds_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.lock"
    assert not is_held(path)
    with FileLock(path) as lock:
        assert lock.acquire()
        assert is_held(path)
        assert not FileLock(path).acquire()
    assert not is_held(path)
    assert FileLock(path).acquire()
