"""Zips and folders are listed safely: what could harm is refused before a byte of content is read."""

import os
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from app.pipeline.data import source as source_module
from app.pipeline.data.findings import ExportRefused
from app.pipeline.data.source import is_junk, open_source, require_free_space
from tests.pipeline.data.export_files import picture, write_folder, write_zip


def zip_with_name(path: Path, name: str) -> Path:
    """A zip whose one entry has exactly this name (the library would tidy it up)."""
    placeholder = "x" * len(name.encode())
    write_zip(path, {placeholder: b"data"})
    path.write_bytes(path.read_bytes().replace(placeholder.encode(), name.encode()))
    return path


@pytest.mark.parametrize(
    "name",
    ["../../x", "/x", "C:\\x", "C:/x", "\\\\srv\\x", "a\\..\\..\\b", "a/../b", "a\x00.png"],
)
def test_entry_that_points_elsewhere_refuses_the_zip(tmp_path, name):
    path = zip_with_name(tmp_path / "a.zip", name)
    with pytest.raises(ExportRefused, match="points outside"):
        open_source(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_link_or_device_in_a_zip_is_refused(tmp_path, kind):
    info = zipfile.ZipInfo("link.png")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ExportRefused, match=r"link\.png.*link or a device"):
        open_source(tmp_path / "a.zip")


def test_link_in_a_folder_is_refused(tmp_path):
    write_folder(tmp_path / "export", {"a.png": picture()})
    (tmp_path / "export" / "b.png").symlink_to(tmp_path / "export" / "a.png")
    with pytest.raises(ExportRefused, match=r"b\.png is a link"):
        open_source(tmp_path / "export")


def write_not_utf8(folder: Path, name: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / os.fsdecode(name)
    try:
        path.write_bytes(picture())
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    return path


@pytest.mark.skipif(os.name == "nt", reason="names are no bytes there")
def test_file_whose_name_is_not_utf8_is_left_out_with_a_line(tmp_path):
    write_folder(tmp_path, {"a.png": picture()})
    write_not_utf8(tmp_path, b"gr\xfc\xdfe.png")
    write_not_utf8(tmp_path / os.fsdecode(b"\xff"), b"b.png")
    with open_source(tmp_path) as source:
        assert set(source.members) == {"a.png"}
        found = sorted((f.kind, f.code, f.where) for f in source.findings)
    assert found == [("skipped", "name_encoding", "?/b.png"), ("skipped", "name_encoding", "gr??e.png")]


@pytest.mark.skipif(os.name == "nt", reason="names are no bytes there")
def test_source_whose_own_name_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(ExportRefused, match=r"\?\.zip is not UTF-8"):
        open_source(write_not_utf8(tmp_path, b"\xff.zip"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_device_in_a_folder_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ExportRefused, match="no ordinary file"):
        open_source(tmp_path)


def test_highly_packed_entry_is_refused_in_little_memory(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("zeros.png", "w") as stream,
    ):
        for _ in range(30):
            stream.write(bytes(10**6))
    tracemalloc.start()
    with pytest.raises(ExportRefused, match=r"zeros\.png.*200 times"):
        open_source(tmp_path / "a.zip")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def declaring(path: Path, size: int, entry_size: int) -> Path:
    """Overwrite the declared unpacked size in both headers of a one-entry zip."""
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<L", entry_size), struct.pack("<L", size)))
    return path


def test_entry_that_declares_too_little_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"zeros.png": bytes(3 * 10**6)})
    declaring(path, 10, 3 * 10**6)
    with pytest.raises(ExportRefused, match=r"zeros\.png.*declares 10 bytes"):
        open_source(path)


def test_stored_entry_with_wrong_size_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": b"x" * 1001}, zipfile.ZIP_STORED)
    data = path.read_bytes()
    at = data.rindex(b"PK\x01\x02") + 24  # the unpacked size in the directory
    path.write_bytes(data[:at] + struct.pack("<L", 999) + data[at + 4 :])
    with pytest.raises(ExportRefused, match="is stored but declares 999"):
        open_source(path)


def test_encrypted_entry_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": b"secret"})
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ExportRefused, match="is encrypted"):
        open_source(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_unusual_packing_is_refused(tmp_path, compression):
    path = write_zip(tmp_path / "a.zip", {"a.png": b"data"}, compression)
    with pytest.raises(ExportRefused, match="packed by a method"):
        open_source(path)


def test_overlapping_entries_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": os.urandom(500), "b.png": os.urandom(500)})
    data = bytearray(path.read_bytes())
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = struct.pack("<L", 0)  # the second entry starts where the first does
    path.write_bytes(data)
    with pytest.raises(ExportRefused, match="overlaps"):
        open_source(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"this is no zip at all",
        lambda data: b"\x1f\x8b" + data[2:200],
        lambda data: data[:-22] + b"PK\x05\x06" + b"\xff" * 18,
    ],
    ids=["cut in half", "empty", "text", "gzip", "nonsense at the end"],
)
def test_no_complete_zip_is_refused(tmp_path, make):
    path = write_zip(tmp_path / "a.zip", {"a.png": picture()})
    path.write_bytes(make(path.read_bytes()))
    with pytest.raises(ExportRefused, match=r"a\.zip"):
        open_source(path)


def test_damaged_data_is_refused_when_read(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": os.urandom(5000)}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[1000] ^= 0xFF
    path.write_bytes(data)
    with open_source(path) as source, pytest.raises(ExportRefused, match=r"a\.png is damaged"):
        source.read("a.png")


@pytest.mark.parametrize("names", [("a.png", "a.png"), ("s/a.png", "s\\a.png"), ("a.png", "./a.png")])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice_is_refused(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"data")
    with pytest.raises(ExportRefused, match="two entries named"):
        open_source(tmp_path / "a.zip")


def test_nested_archive_is_skipped_and_listed(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": b"1", "inner.zip": b"2"})
    with open_source(path) as source:
        assert list(source.members) == ["a.png"]
        assert [(f.kind, f.code, f.where) for f in source.findings] == [("skipped", "nested_archive", "inner.zip")]


@pytest.mark.parametrize(
    ("name", "junk"),
    [
        ("__MACOSX/train/._a.png", True),
        ("train/._a.png", True),
        ("train/.DS_Store", True),
        ("Thumbs.db", True),
        (".ipynb_checkpoints/a-checkpoint.png", True),
        ("train/.__annotations.coco.json", True),
        ("train/.annotations.coco.json", False),  # some exports hide the real one
        ("con.jpg", False),
    ],
)
def test_litter_is_told_from_data(name, junk):
    assert is_junk(name) is junk


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_names_are_labels_and_contents_readable(tmp_path, kind):
    files = {"con.jpg": b"1", "n" * 240 + ".png": b"2", "größe/日本.png": b"3", "__MACOSX/x": b"4", "Thumbs.db": b"5"}
    path = write_zip(tmp_path / "a.zip", files) if kind == "zip" else write_folder(tmp_path / "folder", files)
    with open_source(path) as source:
        assert set(source.members) == {"con.jpg", "n" * 240 + ".png", "größe/日本.png"}
        assert source.read("größe/日本.png") == b"3"
        assert source.total_size == 3
        assert (source.local_path("con.jpg") is None) == (kind == "zip")


def test_name_of_300_bytes_in_a_zip_is_kept(tmp_path):
    name = "n" * 296 + ".png"
    with open_source(write_zip(tmp_path / "a.zip", {name: b"1"})) as source:
        assert source.read(name) == b"1"


@pytest.mark.parametrize(
    ("limit", "value", "match"),
    [("MAX_MEMBERS", 1, "at most 1"), ("MAX_TOTAL_BYTES", 5, "unpacks to"), ("MAX_DIRECTORY_BYTES", 10, "far more")],
)
def test_size_limits_refuse_the_zip(tmp_path, monkeypatch, limit, value, match):
    path = write_zip(tmp_path / "a.zip", {"a.png": b"1234", "b.png": b"1234"})
    monkeypatch.setattr(source_module, limit, value)
    with pytest.raises(ExportRefused, match=match):
        open_source(path)


def test_folder_with_too_many_files_is_refused(tmp_path, monkeypatch):
    write_folder(tmp_path, {"a.png": b"1", "b.png": b"2"})
    monkeypatch.setattr(source_module, "MAX_MEMBERS", 1)
    with pytest.raises(ExportRefused, match="more than 1 files"):
        open_source(tmp_path)


def test_huge_picture_is_skipped_and_huge_json_refused(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.zip", {"a.png": b"12345"})
    monkeypatch.setattr(source_module, "MAX_IMAGE_BYTES", 4)
    with open_source(path) as source:
        assert not source.members
        assert source.findings[0].code == "too_large"
    monkeypatch.setattr(source_module, "MAX_JSON_BYTES", 4)
    with pytest.raises(ExportRefused, match="JSON"):
        open_source(write_zip(tmp_path / "b.zip", {"a.json": b"12345"}))


def test_full_disk_is_refused_before_the_import(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.zip", {"a.png": b"12345"})
    monkeypatch.setattr(source_module.shutil, "disk_usage", lambda _: _Usage(9))
    with open_source(path) as source:
        with pytest.raises(ExportRefused, match="free disk"):
            require_free_space(source, tmp_path / "not" / "yet" / "there")
        monkeypatch.setattr(source_module.shutil, "disk_usage", lambda _: _Usage(10))
        require_free_space(source, tmp_path)


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_nothing_at_the_path_is_refused(tmp_path):
    with pytest.raises(ExportRefused, match="nothing at"):
        open_source(tmp_path / "none")
