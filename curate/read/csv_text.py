"""CSV read strictly: the header, and each row with the exact text it came from."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from curate.read.json_text import BadRecordError, excerpt
from curate.read.kinds import BOM, DELIMITERS
from curate.types import CurateError

_WORDS = {mark: word for word, mark in DELIMITERS.items()}  # what stands between cells, and its name in data.delimiter


class Row(NamedTuple):
    """One row: its first line in the file (from 1), its bytes without the line end, its fields or what is wrong."""

    line: int
    raw: bytes
    fields: dict[str, str] | None
    problem: BadRecordError | None


def rows(file: BinaryIO, name: str, *, limit: int, delimiter: str = ",") -> Iterator[Row]:
    """Each row of a CSV file with a header (RFC 4180; double quotes, UTF-8); blank lines are passed over.

    Raises:
        CurateError: no header, one that has another delimiter, a column name that is empty or stands twice, a row
            longer than `limit` bytes, a quote that is never closed or closed in the middle of a cell: where the next
            row begins is then unknown.
    """
    csv.field_size_limit(max(csv.field_size_limit(), limit))  # of the process; rows are bounded by `limit` below
    lines = _Lines(file, name, limit)
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    columns = _header(reader, lines, delimiter)
    while (cells := _next(reader, lines)) is not None:
        if cells:
            raw = b"".join(lines.row)
            problem = _problem(cells, columns)
            fields = None if problem else dict(zip(columns, cells, strict=True))
            yield Row(lines.first, raw.removesuffix(b"\n").removesuffix(b"\r"), fields, problem)


def read_header(file: BinaryIO, name: str, *, limit: int, delimiter: str = ",") -> bytes:
    """The header of a CSV file as it stands: with its byte order mark and its line end, if it has them."""
    lines = _Lines(file, name, limit)
    _header(csv.reader(lines, strict=True, delimiter=delimiter), lines, delimiter)
    return b"".join(lines.row)


class _Lines:
    """The lines of a file as `csv.reader` asks for them, with those of the present row kept."""

    def __init__(self, file: BinaryIO, name: str, limit: int) -> None:
        self._file, self.name, self._limit = file, name, limit
        self.row: list[bytes] = []
        self._size = 0
        self._read = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def start_row(self) -> None:
        self.row, self._size = [], 0

    @property
    def first(self) -> int:
        return self._read - len(self.row) + 1

    def __next__(self) -> str:
        line = self._file.readline(self._limit + 3)
        if not line:
            raise StopIteration
        self.row.append(line)
        self._read += 1
        self._size += len(line)
        if self._size > self._limit + 2:  # two for the line end
            raise CurateError(
                f"{self.name}:{self.first}: a row of more than {self._limit:,} bytes: a quote left open, or raise "
                "data.max_record_bytes"
            )
        text = line.removeprefix(BOM) if self._read == 1 else line
        return text.decode("utf-8", "surrogateescape")  # looked at per row, when its end is known


def _next(reader: Iterator[list[str]], lines: _Lines) -> list[str] | None:
    lines.start_row()
    try:
        return next(reader, None)
    except csv.Error as error:
        raise CurateError(
            f"{lines.name}:{lines.first}: broken CSV: {error}; where the next row begins is unknown, so "
            "data.on_error=skip does not help: mend the quotes of this row"
        ) from None


def _header(reader: Iterator[list[str]], lines: _Lines, delimiter: str) -> list[str]:
    where = f"{lines.name}:1"
    try:
        columns = _next(reader, lines)
    except CurateError:
        _refuse_delimiter(lines, delimiter)  # quotes look broken where another character stands between the cells
        raise
    _refuse_delimiter(lines, delimiter)
    if not columns or _problem(columns, columns):
        raise CurateError(f"{where}: expected a header line with column names, in UTF-8")
    if "" in map(str.strip, columns):
        raise CurateError(f"{where}: the name of column {list(map(str.strip, columns)).index('') + 1} is empty")
    twice = [column for i, column in enumerate(columns) if column in columns[:i]]
    if twice:
        raise CurateError(f"{where}: the column {twice[0]!r} stands twice")
    return columns


def _refuse_delimiter(lines: _Lines, delimiter: str) -> None:
    """Refuse a header whose cells are not told apart by `delimiter`, and Excel's line that says what does."""
    header = b"".join(lines.row).removeprefix(BOM).strip(b"\r\n")
    says = re.fullmatch(rb'"?sep=(.)"?', header, re.IGNORECASE)
    found = (says[1].decode("latin-1"),) if says else [mark for mark in _WORDS if mark.encode() in header]
    setting = next((f"data.delimiter={_WORDS[mark]}" for mark in found if mark in _WORDS and mark != delimiter), "")
    if says:
        hint = f", and say {setting}" if setting else ""
        raise CurateError(f"{lines.name}:1: expected a header, got Excel's line {excerpt(header)}: delete it{hint}")
    if delimiter.encode() not in header and setting:
        raise CurateError(
            f"{lines.name}:1: no {_WORDS[delimiter]} in the header {excerpt(header)}: if its cells are told apart by "
            f"something else, say {setting}"
        )


def _problem(cells: list[str], columns: list[str]) -> BadRecordError | None:
    try:
        "".join(cells).encode("utf-8")
    except UnicodeEncodeError:
        byte = re.search("[\udc80-\udcff]", "".join(cells))
        what = f" (byte {ord(byte[0]) - 0xDC00:#04x})" if byte else ""
        return BadRecordError(f"invalid UTF-8{what}: if it was saved in Windows-1252 or Latin-1, save it as CSV UTF-8")
    if len(cells) != len(columns):
        return BadRecordError(f"expected {len(columns)} cells as in the header, got {len(cells)}")
    return None
