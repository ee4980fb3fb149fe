"""Reads CSV strictly: the header, and each row with its exact bytes in the file."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from curate.read.json_text import BadRecordError, excerpt
from curate.read.kinds import BOM, DELIMITERS
from curate.types import CurateError

_DELIMITER_NAMES = {mark: name for name, mark in DELIMITERS.items()}  # as data.delimiter calls them


class Row(NamedTuple):
    """One row of a CSV file.

    line     its first line in the file, from 1
    raw      its bytes, without the line end
    fields   its cells by column name; None if the row is bad
    problem  what is wrong with a bad row, else None
    """

    line: int
    raw: bytes
    fields: dict[str, str] | None
    problem: BadRecordError | None


def rows(file: BinaryIO, name: str, *, limit: int, delimiter: str = ",") -> Iterator[Row]:
    r"""Yield each row of a CSV file with a header (RFC 4180; double quotes, UTF-8). Blank lines are left out.

    Raises:
        CurateError: there is no header, or it has another delimiter; a column name is empty or duplicate. Also if
            it is unknown where the next row begins: a row is longer than `limit` bytes, or a quote is never closed or
            is closed in the middle of a cell.

    >>> import io
    >>> [(row.line, row.fields) for row in rows(io.BytesIO(b'a,b\n1,"two\nlines"\n3,4\n'), "a.csv", limit=100)]
    [(2, {'a': '1', 'b': 'two\nlines'}), (4, {'a': '3', 'b': '4'})]
    """
    # The csv module has one limit for the whole process, so it is only ever raised. `_Lines` enforces ours.
    csv.field_size_limit(max(csv.field_size_limit(), limit))
    lines = _Lines(file, name, limit)
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    columns = _header(reader, lines, delimiter)
    while (cells := _next_row(reader, lines)) is not None:
        if cells:
            raw = b"".join(lines.row)
            problem = _row_problem(cells, columns)
            fields = None if problem else dict(zip(columns, cells, strict=True))
            yield Row(lines.first, raw.removesuffix(b"\n").removesuffix(b"\r"), fields, problem)


def read_header(file: BinaryIO, name: str, *, limit: int, delimiter: str = ",") -> bytes:
    """Return the exact bytes of a CSV file's header, with its byte order mark and its line end if it has them.

    Raises:
        CurateError: there is no header that `rows` would take.
    """
    lines = _Lines(file, name, limit)
    _header(csv.reader(lines, strict=True, delimiter=delimiter), lines, delimiter)
    return b"".join(lines.row)


class _Lines:
    """The lines of a file for `csv.reader`, which asks for one at a time; the bytes of the present row are kept.

    row    the lines of the present row as they stand in the file; a quoted cell may go on over several lines
    first  the number of the row's first line, from 1
    """

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
        """Return the next line; raise if the row is now larger than the limit."""
        line = self._file.readline(self._limit + 3)
        if not line:
            raise StopIteration
        self.row.append(line)
        self._read += 1
        self._size += len(line)
        if self._size > self._limit + 2:  # two for the line end, which may be \r\n
            raise CurateError(
                f"{self.name}:{self.first}: a row of more than {self._limit:,} bytes: a quote left open, or raise "
                "data.max_record_bytes"
            )
        text = line.removeprefix(BOM) if self._read == 1 else line
        # A bad byte must not end the reading: it becomes a surrogate, and `_row_problem` refuses that row alone.
        return text.decode("utf-8", "surrogateescape")


def _next_row(reader: Iterator[list[str]], lines: _Lines) -> list[str] | None:
    """Return the cells of the next row, [] for a blank line, None at the end of the file."""
    lines.start_row()
    try:
        return next(reader, None)
    except csv.Error as error:
        raise CurateError(
            f"{lines.name}:{lines.first}: broken CSV: {error}; where the next row begins is unknown, so "
            "data.on_error=skip does not help: mend the quotes of this row"
        ) from None


def _header(reader: Iterator[list[str]], lines: _Lines, delimiter: str) -> list[str]:
    """Return the column names; raise if the header is no such list of names."""
    where = f"{lines.name}:1"
    try:
        columns = _next_row(reader, lines)
    except CurateError:
        _refuse_delimiter(lines, delimiter)  # with another delimiter quotes look broken: this is the better message
        raise
    _refuse_delimiter(lines, delimiter)
    if not columns or _row_problem(columns, columns):
        raise CurateError(f"{where}: expected a header line with column names, in UTF-8")
    if "" in map(str.strip, columns):
        raise CurateError(f"{where}: the name of column {list(map(str.strip, columns)).index('') + 1} is empty")
    twice = [column for i, column in enumerate(columns) if column in columns[:i]]
    if twice:
        raise CurateError(f"{where}: the column {twice[0]!r} stands twice")
    return columns


def _refuse_delimiter(lines: _Lines, delimiter: str) -> None:
    """Refuse a header without `delimiter` but with another one, and the line "sep=;" that Excel puts before one."""
    header = b"".join(lines.row).removeprefix(BOM).strip(b"\r\n")
    says = re.fullmatch(rb'"?sep=(.)"?', header, re.IGNORECASE)
    found = (says[1].decode("latin-1"),) if says else [mark for mark in _DELIMITER_NAMES if mark.encode() in header]
    others = [_DELIMITER_NAMES[mark] for mark in found if mark in _DELIMITER_NAMES and mark != delimiter]
    setting = f"data.delimiter={others[0]}" if others else ""
    if says:
        hint = f", and say {setting}" if setting else ""
        raise CurateError(f"{lines.name}:1: expected a header, got Excel's line {excerpt(header)}: delete it{hint}")
    if delimiter.encode() not in header and setting:
        raise CurateError(
            f"{lines.name}:1: no {_DELIMITER_NAMES[delimiter]} in the header {excerpt(header)}: if its cells are told "
            f"apart by something else, say {setting}"
        )


def _row_problem(cells: list[str], columns: list[str]) -> BadRecordError | None:
    """Return what is wrong with a row: bytes that are not UTF-8, or another number of cells than the header has."""
    try:
        "".join(cells).encode("utf-8")
    except UnicodeEncodeError:
        byte = re.search("[\udc80-\udcff]", "".join(cells))  # bytes 0x80 to 0xff, as surrogateescape writes them
        what = f" (byte {ord(byte[0]) - 0xDC00:#04x})" if byte else ""
        return BadRecordError(f"invalid UTF-8{what}: if it was saved in Windows-1252 or Latin-1, save it as CSV UTF-8")
    if len(cells) != len(columns):
        return BadRecordError(f"expected {len(columns)} cells as in the header, got {len(cells)}")
    return None
