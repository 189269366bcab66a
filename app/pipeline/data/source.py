"""A zip or a folder as a safe list of members that can be read. Names are labels: nothing is ever extracted.

Everything that could make reading dangerous (size, ratio, links, encryption, overlap, names that point elsewhere) is
checked on the listing, before a byte of content is decompressed.
"""

import io
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from app.pipeline.data.findings import ExportRefused, Finding

MAX_MEMBERS = 300_000
MAX_TOTAL_BYTES = 20 * 1000**3
MAX_IMAGE_BYTES = 200 * 1000**2
MAX_JSON_BYTES = 1000**3
MAX_RATIO = 200
RATIO_FREE_BYTES = 1000**2  # small files may shrink as much as they like
MAX_DIRECTORY_BYTES = 100 * 1000**2  # of a zip: about 300 bytes for each of MAX_MEMBERS
FREE_SPACE_FACTOR = 2

_JUNK_FOLDERS = {"__MACOSX", ".ipynb_checkpoints", "@eaDir", ".git", ".anchorage"}
_JUNK_FILES = {".ds_store", "thumbs.db", "desktop.ini"}
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
_LOCAL_HEADER_BYTES = 30
_DEFLATE_SLACK = 1.01  # deflate stores what does not shrink in blocks: far less than 1 % more


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the source: ``name`` with forward slashes relative to its root, ``size`` in bytes as declared."""

    name: str
    size: int


class Source:
    """A checked listing with readers; use it as a context manager.

    ``members`` maps clean names to members, junk of operating systems left out. ``findings`` holds what was skipped.
    """

    def __init__(
        self,
        path: Path,
        members: dict[str, Member],
        findings: list[Finding],
        opener: Callable[[str], BinaryIO],
        archive: zipfile.ZipFile | None,
    ) -> None:
        self.path = path
        self.label = path.name
        self.is_zip = archive is not None
        self.members = members
        self.findings = findings
        self.total_size = sum(member.size for member in members.values())
        self._opener = opener
        self._archive = archive

    def __enter__(self) -> "Source":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the archive; a folder has nothing to close."""
        if self._archive is not None:
            self._archive.close()

    def open(self, name: str) -> BinaryIO:
        """A binary stream of a member; damaged zip data raises zipfile.BadZipFile or zlib.error while reading."""
        return self._opener(name)

    def read(self, name: str, limit: int = MAX_IMAGE_BYTES) -> bytes:
        """All bytes of a member; raises ExportRefused when it is larger than ``limit`` or its zip data is damaged."""
        return b"".join(self.chunks(name, limit))

    def chunks(self, name: str, limit: int = MAX_IMAGE_BYTES, size: int = 1 << 20) -> Iterator[bytes]:
        """The bytes of a member in pieces of ``size``; raises as :meth:`read`."""
        total = 0
        try:
            with self.open(name) as stream:
                while chunk := stream.read(size):
                    total += len(chunk)
                    if total > limit:
                        raise ExportRefused(
                            f"{self.label}: {name} is larger than {limit // 1000**2} MB.", "Leave it out of the export."
                        )
                    yield chunk
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ExportRefused(
                f"{self.label}: the entry {name} is damaged ({error}).", "Download or zip the export again."
            ) from error
        except OSError as error:
            raise ExportRefused(f"{self.label}: {name} cannot be read ({error.strerror or error}).") from error

    def local_path(self, name: str) -> Path | None:
        """Where a member of a folder lies on disk; None for a zip."""
        return None if self.is_zip else self.path / name


def open_source(path: Path | str) -> Source:
    """List a zip or a folder and check it as a whole; raises ExportRefused naming the entry that is not acceptable."""
    path = Path(path).expanduser()
    if not _is_utf8(str(path.resolve())):
        raise ExportRefused(f"The name {_shown(str(path))} is not UTF-8.", "Rename it and import again.")
    if path.is_dir():
        return _open_folder(path.resolve())
    if path.is_file():
        return _open_zip(path.resolve())
    raise ExportRefused(f"There is nothing at {path}.", "Give the path of a zip file or a folder on this machine.")


def require_free_space(source: Source, folder: Path) -> None:
    """Raise ExportRefused unless the disk of ``folder`` has twice the declared size of the source free."""
    existing = next(parent for parent in [folder, *folder.parents] if parent.exists())
    free, needed = shutil.disk_usage(existing).free, FREE_SPACE_FACTOR * source.total_size
    if free < needed:
        raise ExportRefused(
            f"{source.label} needs {needed / 1000**3:.1f} GB of free disk; {existing} has {free / 1000**3:.1f} GB.",
            "Free some space or choose another projects folder.",
        )


def _open_folder(root: Path) -> Source:
    members: dict[str, Member] = {}
    findings: list[Finding] = []
    for name, status in _walk(root):
        if not _is_utf8(name):
            message = "its name is not UTF-8; rename it and import again to have it"
            findings.append(Finding("skipped", "name_encoding", message, where=_shown(name)))
            continue
        if stat.S_ISLNK(status.st_mode) or not stat.S_ISREG(status.st_mode):
            kind = "a link" if stat.S_ISLNK(status.st_mode) else "no ordinary file"
            raise ExportRefused(f"{root.name}: {name} is {kind}.", "Replace it with the file itself or remove it.")
        _add(members, findings, root.name, name, status.st_size)
    _require_total(root.name, members)
    return Source(root, members, findings, lambda name: (root / name).open("rb"), None)


def _is_utf8(name: str) -> bool:
    """Python keeps other bytes of a file's name as lone surrogates, which no database and no JSON takes."""
    return _shown(name) == name


def _shown(name: str) -> str:
    """A name with a question mark for each byte that is not UTF-8."""
    return name.encode("utf-8", "replace").decode()


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Name and lstat of every file and every link under ``root``, sorted, junk left out."""
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise ExportRefused(f"{_shown(str(folder))} cannot be listed ({error.strerror}).") from error
        for entry in entries:
            name = Path(entry.path).relative_to(root).as_posix()
            if is_junk(name):
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
            else:
                yield name, entry.stat(follow_symlinks=False)


def _open_zip(path: Path) -> Source:
    _require_sane_directory(path)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error) as error:
        raise ExportRefused(
            f"{path.name} is no complete zip file ({error}).", "Download it again, or give the unpacked folder."
        ) from error
    try:
        return _list_zip(path, archive)
    except BaseException:
        archive.close()
        raise


def _list_zip(path: Path, archive: zipfile.ZipFile) -> Source:
    members: dict[str, Member] = {}
    findings: list[Finding] = []
    infos: dict[str, zipfile.ZipInfo] = {}
    seen: set[str] = set()
    entries = archive.infolist()
    if len(entries) > MAX_MEMBERS:
        raise ExportRefused(f"{path.name} has {len(entries)} entries; at most {MAX_MEMBERS} are accepted.")
    for info in entries:
        name = _clean_name(path.name, info.orig_filename)
        _require_safe_entry(path.name, name, info)
        if info.is_dir() or not name:
            continue
        if name in seen:
            raise ExportRefused(f"{path.name} holds two entries named {name!r}.", "Zip the export again.")
        seen.add(name)
        if not is_junk(name) and _add(members, findings, path.name, name, info.file_size):
            infos[name] = info
    _require_no_overlap(path.name, entries, archive.start_dir)
    _require_total(path.name, members)
    return Source(path, members, findings, lambda name: _open_entry(archive, infos[name]), archive)


def _open_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> BinaryIO:
    try:
        return archive.open(info)
    except (NotImplementedError, RuntimeError, struct.error) as error:
        raise zipfile.BadZipFile(str(error)) from error


def _add(members: dict[str, Member], findings: list[Finding], label: str, name: str, size: int) -> bool:
    """List a file, or say why it is left out; raises ExportRefused where the whole source is too large."""
    if len(members) >= MAX_MEMBERS:
        raise ExportRefused(f"{label} has more than {MAX_MEMBERS} files.", "Import a part of it.")
    lower = name.lower()
    if lower.endswith(_ARCHIVES):
        findings.append(Finding("skipped", "nested_archive", "an archive inside the export is not opened", where=name))
        return False
    if lower.endswith(".json"):
        if size > MAX_JSON_BYTES:
            raise ExportRefused(f"{label}: {name} has {size} bytes; at most 1 GB of JSON is accepted.")
    elif size > MAX_IMAGE_BYTES:
        message = f"it has {size / 1000**2:.0f} MB; at most {MAX_IMAGE_BYTES // 1000**2} MB are accepted"
        findings.append(Finding("skipped", "too_large", message, where=name))
        return False
    members[name] = Member(name, size)
    return True


def is_junk(name: str) -> bool:
    """Whether a member is litter of an operating system or tool: __MACOSX, ._*, .DS_Store, Thumbs.db, checkpoints."""
    *folders, file = name.split("/")
    if file.startswith("._") or file.lower() in _JUNK_FILES or file in _JUNK_FOLDERS:
        return True
    return any(folder in _JUNK_FOLDERS for folder in folders)


def has_unsafe_parts(name: str) -> bool:
    """Whether a name could point outside its folder: NUL, absolute, drive, UNC, or a ``..`` part."""
    slashed = name.replace("\\", "/")
    return (
        "\x00" in name
        or slashed.startswith("/")
        or re.match(r"[A-Za-z]:", slashed) is not None
        or ".." in slashed.split("/")
    )


def _clean_name(label: str, name: str) -> str:
    if has_unsafe_parts(name):
        raise ExportRefused(
            f"{label} holds an entry named {name!r}, which points outside the archive.", "Do not trust this file."
        )
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _require_safe_entry(label: str, name: str, info: zipfile.ZipInfo) -> None:
    mode = info.external_attr >> 16
    file_type = stat.S_IFMT(mode)
    if info.flag_bits & 0x1:
        reason = "is encrypted"
    elif file_type not in (0, stat.S_IFREG, stat.S_IFDIR):
        reason = "is a link or a device"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        reason = "is packed by a method other than stored or deflated"
    elif info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        reason = f"is stored but declares {info.file_size} bytes for {info.compress_size}"
    elif info.compress_size > info.file_size * _DEFLATE_SLACK + 64:
        reason = f"declares {info.file_size} bytes, fewer than its {info.compress_size} packed ones"
    elif info.file_size > RATIO_FREE_BYTES and info.file_size > MAX_RATIO * max(info.compress_size, 1):
        reason = f"unpacks to more than {MAX_RATIO} times its size ({info.file_size} bytes)"
    else:
        return
    raise ExportRefused(f"{label}: the entry {name!r} {reason}.", "Zip the export again without it.")


def _require_no_overlap(label: str, entries: Iterable[zipfile.ZipInfo], directory_start: int) -> None:
    """Entries must not share packed bytes: that is how a small zip unpacks to a huge one."""
    ordered = sorted(entries, key=lambda info: info.header_offset)
    ends = [info.header_offset for info in ordered[1:]] + [directory_start]
    for info, end in zip(ordered, ends, strict=False):
        name_bytes = len(info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437", "replace"))
        if info.header_offset + _LOCAL_HEADER_BYTES + name_bytes + info.compress_size > end:
            raise ExportRefused(f"{label}: the entry {info.filename!r} overlaps another.", "Do not trust this file.")


def _require_total(label: str, members: dict[str, Member]) -> None:
    total = sum(member.size for member in members.values())
    if total > MAX_TOTAL_BYTES:
        raise ExportRefused(
            f"{label} unpacks to {total / 1000**3:.1f} GB; at most {MAX_TOTAL_BYTES // 1000**3} GB are accepted.",
            "Import it in parts.",
        )


def _require_sane_directory(path: Path) -> None:
    """Refuse a zip whose list of entries alone is huge: the library would read all of it into memory."""
    with path.open("rb") as file:
        file.seek(0, io.SEEK_END)
        size = file.tell()
        file.seek(max(0, size - 65_557))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise ExportRefused(
            f"{path.name} is no complete zip file (its end is missing).",
            "Give a zip or a folder; download the zip again if it was cut off.",
        )
    num_bytes = struct.unpack("<L", tail[at + 12 : at + 16])[0]
    locator = at - 20
    if num_bytes == 0xFFFFFFFF and locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
        with path.open("rb") as file:
            file.seek(min(struct.unpack("<Q", tail[locator + 8 : locator + 16])[0], size))
            record = file.read(56)
        num_bytes = struct.unpack("<Q", record[40:48])[0] if len(record) == 56 else num_bytes
    if num_bytes > MAX_DIRECTORY_BYTES:
        raise ExportRefused(f"{path.name} lists far more than {MAX_MEMBERS} entries.", "Import it in parts.")
