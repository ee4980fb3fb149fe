"""Finds the elements of a JSON array of any size, without loading or parsing the array.

Written by hand because a record that cannot be used must not end the reading: this reader only looks for the end of
each element. It keeps the element's exact bytes and its line. Streaming parsers such as ijson stop at the first fault
and give neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from curate.read.json_text import CHUNK, excerpt
from curate.types import CurateError

_CLOSING = {b"{": b"}", b"[": b"]"}
# `*+` and `++` never give back what they matched, so a broken file costs no quadratic time.
_BLANK = re.compile(rb"[ \t\r\n]*+")
_SCALAR = re.compile(rb"(?:true|false|null|NaN|Infinity|[-+.0-9eE]++)*+")
_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
# What may stand between two brackets. After a lost quote, strings are taken for what is between them and the other way
# round. Words that are no literals then stand here, and the reader notices that it no longer knows where records end.
_BETWEEN = re.compile(rb'(?:[ \t\r\n:,]++|"(?:[^"\\]++|\\.)*+"|true|false|null|NaN|Infinity|[-+.0-9eE]++)*+', re.DOTALL)
_LONGEST_LITERAL = len(b"Infinity")


def elements(file: BinaryIO, name: str, *, limit: int) -> Iterator[tuple[int, bytes | None]]:
    r"""Yield each element of the JSON array in a file: the line it starts on (from 1), and its bytes, not parsed.

    An element of more than `limit` bytes is given as None. Memory: `limit` bytes and a chunk.

    Raises:
        CurateError: the array itself is broken, so that it is unknown where the next element begins: it is cut off, a
            comma, quote or bracket is missing, or text follows the array.

    >>> import io
    >>> list(elements(io.BytesIO(b'[{"a": 1},\n{"a": "a long text"}, 3]'), "a.json", limit=10))
    [(1, b'{"a": 1}'), (2, None), (2, b'3')]
    """
    window = _Window(file, name)
    window.expect(b"[")
    if window.peek() == b"]":
        window.expect(b"]")
    else:
        while True:
            yield window.begin(), window.element(limit)
            window.finish()
            if window.expect(b",", b"]") == b"]":
                break
            if window.peek() == b"]":
                raise window.broken("a record after the comma")
    if window.peek():
        raise window.broken("nothing after the end of the array")


class _Window:
    """The part of a file that is in memory, and how far the present element has been scanned.

    An element is read by `begin`, `element` and `finish`, in this order.

    _start      place in memory where the element (or what is left of it) starts; bytes before it are dropped
    _cursor     place up to which it has been scanned
    _line       line of `_start` in the file, from 1
    _closers    the closing brackets still to come, the outermost first; empty outside of objects and lists
    _in_string  whether the cursor stands inside of a string
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._data = b""
        self._start = self._cursor = 0
        self._line = 1
        self._closers = bytearray()
        self._in_string = False

    def peek(self) -> bytes:
        """Return the next byte that is not blank without passing it, b"" at the end of the file."""
        while True:
            self._cursor = _end(_BLANK, self._data, self._cursor)
            self._drop()
            if self._cursor < len(self._data) or not self._load():
                return self._data[self._cursor : self._cursor + 1]

    def expect(self, *marks: bytes) -> bytes:
        """Pass the next byte that is not blank and return it; raise if it is none of `marks`."""
        mark = self.peek()
        if mark not in marks:
            raise self.broken(" or ".join(repr(mark.decode()) for mark in marks))
        self._cursor += 1
        self._drop()
        return mark

    def begin(self) -> int:
        """Go to the start of the next element and return its line."""
        mark = self.peek()
        self._in_string = mark == b'"'
        self._closers += _CLOSING.get(mark, b"")
        self._cursor += 1 if self._closers or self._in_string else 0
        return self._line

    def element(self, limit: int) -> bytes | None:
        """Return the element's bytes, or None if there are more than `limit`."""
        whole = self._scan(limit)
        return self._data[self._start : self._cursor] if whole else None

    def finish(self) -> None:
        """Pass the element. One that is too large is scanned to its end a chunk at a time, and dropped."""
        while self._closers or self._in_string:
            self._drop()
            self._scan(CHUNK)
        self._drop()

    def _scan(self, limit: int) -> bool:
        """Move the cursor to the end of the element; False as soon as that is more than `limit` bytes away."""
        while self._cursor - self._start <= limit:
            text = _STRING if self._in_string else _BETWEEN if self._closers else _SCALAR
            self._cursor = _end(text, self._data, self._cursor)
            mark = self._data[self._cursor : self._cursor + 1]
            # Near the end of what is in memory: load more and scan on from here before anything is called broken.
            if len(self._data) - self._cursor < _LONGEST_LITERAL and self._may_be_cut(mark) and self._load():
                continue
            if not self._closers and not self._in_string:
                if self._cursor == self._start or mark not in (b",", b"]", b" ", b"\t", b"\r", b"\n"):
                    raise self.broken("a record")
                break
            self._step(mark)
            if not self._closers and not self._in_string:
                break
        return self._cursor - self._start <= limit

    def _may_be_cut(self, mark: bytes) -> bool:
        """Say whether the text at the cursor may be the start of an escape or a literal that is not in memory yet."""
        return not mark or mark == b"\\" or mark.isalpha()

    def _step(self, mark: bytes) -> None:
        """Pass one quote or bracket."""
        if mark == b'"':
            self._in_string = not self._in_string
        elif not self._in_string and mark in _CLOSING:
            self._closers += _CLOSING[mark]
        elif not self._in_string and mark == self._closers[-1:]:
            del self._closers[-1:]
        else:
            raise self.broken("a key, a value or a bracket")
        self._cursor += 1

    def _drop(self) -> None:
        """Give up what is before the cursor, and count its lines."""
        self._line += self._data.count(b"\n", self._start, self._cursor)
        self._start = self._cursor

    def _load(self) -> bool:
        """Load a chunk of the file behind what is still needed; False at the end of the file."""
        chunk = self._file.read(CHUNK)
        self._data = self._data[self._start :] + chunk
        self._cursor -= self._start
        self._start = 0
        return bool(chunk)

    def broken(self, expected: str) -> CurateError:
        """Return the error for an array that is broken at the cursor."""
        line = self._line + self._data.count(b"\n", self._start, self._cursor)
        rest = self._data[self._cursor : self._cursor + 80]
        got = excerpt(rest) if rest else "the end of the file"
        since = f" (in the record from line {self._line})" if self._cursor > self._start else ""
        return CurateError(
            f"{self._name}:{line}: broken JSON array: expected {expected}, got {got}{since}; where the next record "
            "begins is unknown, so data.on_error=skip does not help: mend the file"
        )


def _end(pattern: re.Pattern[bytes], data: bytes, start: int) -> int:
    """Return where the match of a pattern that starts at `start` ends."""
    match = pattern.match(data, start)
    assert match is not None  # every pattern above matches the empty text
    return match.end()
