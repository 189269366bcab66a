"""How torch, SQLite and the system tell of what is used up, bare and wrapped."""

import errno
import shutil

import pytest
import torch

from app.pipeline.faults import is_disk_full, is_out_of_memory


def wrapped(error):
    try:
        try:
            raise error
        except type(error):
            raise ValueError("cannot be prepared")  # noqa: B904 (torch does so too)
    except ValueError as outer:
        return outer


@pytest.mark.parametrize("wrap", [lambda error: error, wrapped])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
    ],
)
def test_out_of_memory(error, expected, wrap):
    assert is_out_of_memory(wrap(error)) is expected


@pytest.mark.parametrize("wrap", [lambda error: error, wrapped])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (RuntimeError("database or disk is full"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (MemoryError(), False),
    ],
)
def test_disk_full(error, expected, wrap, tmp_path):
    assert is_disk_full(wrap(error), tmp_path) is expected


def test_whatever_is_raised_where_nothing_is_free(tmp_path, monkeypatch):
    """SQLite on a full disk, when it cannot make the index of its log: measured."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 0))
    assert is_disk_full(RuntimeError("disk I/O error"), tmp_path)


def test_chain_of_errors_that_goes_in_circles_has_an_end():
    one, other = ValueError("one"), ValueError("other")
    one.__context__, other.__context__ = other, one
    assert not is_out_of_memory(one)


def test_what_an_error_was_said_to_have_nothing_to_do_with_does_not_count():
    with pytest.raises(ValueError, match="another") as raised:
        try:
            raise MemoryError
        except MemoryError:
            raise ValueError("another") from None
    assert not is_out_of_memory(raised.value)
