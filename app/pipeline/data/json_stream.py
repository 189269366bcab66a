"""A large JSON object read entry by entry, so that memory holds a piece of the file instead of all of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

PIECE = 1 << 17  # characters


def stream_entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (key, entry) for each entry of each list of the object in ``path``, (key, value) for its other values.

    Raises ValueError, saying where, for what is no JSON object; NaN and Infinity are no JSON.
    """
    with path.open(encoding="utf-8-sig") as file:
        reader = _Reader(file, path.name)
        reader.take("{")
        while not reader.took("}"):
            key = reader.value()
            reader.take(":")
            if reader.took("["):
                while not reader.took("]"):
                    yield key, reader.value()
                    reader.took(",")
            else:
                yield key, reader.value()
            reader.took(",")


class _Reader:
    """A place in a text of which only a piece is in memory."""

    def __init__(self, file: TextIO, name: str) -> None:
        self._file = file
        self._name = name
        self._decoder = json.JSONDecoder(parse_constant=self._refuse)
        self._text, self._at, self._before = "", 0, 0

    def take(self, mark: str) -> None:
        """Pass the character ``mark``, which must be next."""
        if not self.took(mark):
            self._refuse(self._text[self._at : self._at + 20] or "the end of the file", f"{mark!r} expected")

    def took(self, mark: str) -> bool:
        """Whether ``mark`` is the next character that is no blank; if so, pass it."""
        is_next = self._skip_blanks() and self._text[self._at] == mark
        self._at += is_next
        return is_next

    def value(self) -> Any:
        """The value that comes next, whole; something must follow it."""
        self._skip_blanks()
        while True:
            try:
                found, end = self._decoder.raw_decode(self._text, self._at)
                if end < len(self._text):  # else a number may go on in the next piece
                    self._at = end
                    return found
                reason = "it ends too early"
            except json.JSONDecodeError as error:  # perhaps because the piece ends here
                reason = error.msg
            if not self._read_on():
                self._refuse(self._text[self._at : self._at + 20], reason)

    def _skip_blanks(self) -> bool:
        """Go on to the next character that is no blank; False at the end of the file."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return True
                self._at += 1
            if not self._read_on():
                return False

    def _read_on(self) -> bool:
        piece = self._file.read(PIECE)
        self._before += self._at
        self._text, self._at = self._text[self._at :] + piece, 0
        return bool(piece)

    def _refuse(self, found: str, reason: str = "not a number of JSON") -> None:
        raise ValueError(f"{self._name} is not valid JSON at character {self._before + self._at}: {reason}, {found!r}")
