"""The file that is given up on a full disk."""

import errno

import pytest

from app.store import reserve
from app.store.database import ProjectDatabase, sqlite3


def test_a_real_write_to_a_full_database_succeeds_without_the_reserve(tmp_path):
    """SQLite is told that no page may be added while the reserve is there: it then says what it says on a full disk."""
    database, path = ProjectDatabase.create(tmp_path / "project.db"), tmp_path / "reserve"
    reserve.lay_in(path)
    assert path.stat().st_size == reserve.RESERVE_BYTES

    def write():
        with database.write() as db:
            if path.exists():
                pages = db.execute("PRAGMA page_count").fetchone()[0]
                db.execute(f"PRAGMA max_page_count={pages}").fetchone()
            db.execute("INSERT INTO setting VALUES ('long', ?)", [f'"{"x" * 100_000}"'])

    reserve.with_reserve(path, write)
    assert not path.exists()
    with database.read() as db:
        assert db.execute("SELECT count(*) FROM setting").fetchone()[0] == 1


@pytest.mark.parametrize("error", [sqlite3.OperationalError("database is locked"), OSError(errno.EACCES, "no")])
def test_other_errors_leave_the_reserve_alone(tmp_path, error):
    def write():
        raise error

    reserve.lay_in(tmp_path / "reserve")
    with pytest.raises(type(error)):
        reserve.with_reserve(tmp_path / "reserve", write)
    assert (tmp_path / "reserve").exists()


def test_without_room_for_a_reserve_there_is_none(tmp_path, monkeypatch):
    def full(data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "write_bytes", lambda self, data: full(data))
    reserve.lay_in(tmp_path / "reserve")
    assert not (tmp_path / "reserve").exists()
