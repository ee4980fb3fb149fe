"""The elements of a JSON array of any size, found without loading or parsing it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from curate.read.json_text import CHUNK, excerpt
from curate.types import CurateError

_CLOSING = {b"{": b"}", b"[": b"]"}
_BLANK = re.compile(rb"[ \t\r\n]*+")
_SCALAR = re.compile(rb"(?:true|false|null|NaN|Infinity|[-+.0-9eE]++)*+")
_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
# What may stand between two brackets. A lost quote turns strings inside out, and then words stand here: this is
# how the reader notices that it no longer knows where a record ends.
_BETWEEN = re.compile(rb'(?:[ \t\r\n:,]++|"(?:[^"\\]++|\\.)*+"|true|false|null|NaN|Infinity|[-+.0-9eE]++)*+', re.DOTALL)
_LONGEST_LITERAL = len(b"Infinity")


def elements(file: BinaryIO, name: str, *, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Each element of the JSON array in a file: the line it starts on (from 1) and its bytes, not parsed.

    Holds at most `limit` bytes and a chunk; an element longer than `limit` is given as None and passed over.

    Raises:
        CurateError: the array itself is broken (cut off, a comma missing, text after it, a lost quote or bracket), so
            that nobody can say where the next element begins.
    """
    window = _Window(file, name)
    window.take(b"[")
    if window.peek() == b"]":
        window.take(b"]")
    else:
        while True:
            yield window.begin(), window.element(limit)
            window.finish()
            if window.take(b",", b"]") == b"]":
                break
            if window.peek() == b"]":
                raise window.broken("a record after the comma")
    if window.peek():
        raise window.broken("nothing after the end of the array")


class _Window:
    """The part of a file that is in memory: `at` is where the element starts, `eye` how far it has been read."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._data = b""
        self._at = self._eye = 0
        self._line = 1  # of `at`
        self._open = bytearray()  # the brackets that the open ones wait for
        self._quoted = False

    def peek(self) -> bytes:
        """The next byte that is not blank, b"" at the end of the file."""
        while True:
            self._eye = _end(_BLANK, self._data, self._eye)
            self._pass()
            if self._eye < len(self._data) or not self._more():
                return self._data[self._eye : self._eye + 1]

    def take(self, *marks: bytes) -> bytes:
        mark = self.peek()
        if mark not in marks:
            raise self.broken(" or ".join(repr(mark.decode()) for mark in marks))
        self._eye += 1
        self._pass()
        return mark

    def begin(self) -> int:
        """Goes to the start of the next element and returns its line."""
        mark = self.peek()
        self._quoted = mark == b'"'
        self._open += _CLOSING.get(mark, b"")
        self._eye += 1 if self._open or self._quoted else 0
        return self._line

    def element(self, limit: int) -> bytes | None:
        """The element's bytes; None if there are more than `limit`."""
        whole = self._scan(limit)
        return self._data[self._at : self._eye] if whole else None

    def finish(self) -> None:
        """Passes over the element, or what is left of it."""
        while self._open or self._quoted:
            self._pass()
            self._scan(CHUNK)
        self._pass()

    def _scan(self, limit: int) -> bool:
        """Reads to the end of the element; False as soon as that is more than `limit` bytes away."""
        while self._eye - self._at <= limit:
            text = _STRING if self._quoted else _BETWEEN if self._open else _SCALAR
            self._eye = _end(text, self._data, self._eye)
            mark = self._data[self._eye : self._eye + 1]
            if len(self._data) - self._eye < _LONGEST_LITERAL and self._cut(mark) and self._more():
                continue
            if not self._open and not self._quoted:
                if self._eye == self._at or mark not in (b",", b"]", b" ", b"\t", b"\r", b"\n"):
                    raise self.broken("a record")
                break
            self._step(mark)
            if not self._open and not self._quoted:
                break
        return self._eye - self._at <= limit

    def _cut(self, mark: bytes) -> bool:
        """Whether the text at the eye may only look strange because the rest of it is not in memory yet."""
        return not mark or mark == b"\\" or mark.isalpha()

    def _step(self, mark: bytes) -> None:
        """Steps over one quote or bracket."""
        if mark == b'"':
            self._quoted = not self._quoted
        elif not self._quoted and mark in _CLOSING:
            self._open += _CLOSING[mark]
        elif not self._quoted and mark == self._open[-1:]:
            del self._open[-1:]
        else:
            raise self.broken("a key, a value or a bracket")
        self._eye += 1

    def _pass(self) -> None:
        self._line += self._data.count(b"\n", self._at, self._eye)
        self._at = self._eye

    def _more(self) -> bool:
        chunk = self._file.read(CHUNK)
        self._data = self._data[self._at :] + chunk
        self._eye -= self._at
        self._at = 0
        return bool(chunk)

    def broken(self, expected: str) -> CurateError:
        line = self._line + self._data.count(b"\n", self._at, self._eye)
        rest = self._data[self._eye : self._eye + 80]
        got = excerpt(rest) if rest else "the end of the file"
        since = f" (in the record from line {self._line})" if self._eye > self._at else ""
        return CurateError(
            f"{self._name}:{line}: broken JSON array: expected {expected}, got {got}{since}; where the next record "
            "begins is unknown, so data.on_error=skip does not help: mend the file"
        )


def _end(pattern: re.Pattern[bytes], data: bytes, start: int) -> int:
    match = pattern.match(data, start)
    assert match is not None  # every pattern above matches the empty text
    return match.end()
