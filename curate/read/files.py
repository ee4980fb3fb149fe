"""Finds the input and reads its records, one by one and strictly. What a record means is not known here."""

from __future__ import annotations

import difflib
import hashlib
import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

from curate.config import Data
from curate.read import arrow, csv_text, json_array, json_text
from curate.read.folders import list_folder, list_pattern
from curate.read.json_text import BadRecordError
from curate.read.kinds import BOM, File, Skipped, inspect_file, open_file
from curate.types import CurateError, Record

_HUB_ID = re.compile(r"(?P<name>[\w-][\w.-]*(/[\w-][\w.-]*)?)(@(?P<revision>[\w./-]+))?")
_FILE_LIKE = re.compile(r".*\.(jsonl?|ndjson|csv|tsv|parquet|arrow)(\.(gz|zst))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """The input: a file, a folder of files, or a hub data set.

    path      data.path as the person wrote it
    kind      what the file is; "folder" also for a name with `*` and for a data set saved by `datasets`
    files     the files to read, in order; none for a hub data set
    split     of a hub data set, else None
    revision  of a hub data set: what stands after @ in data.path, else None
    skipped   what is in the folder and is not read, and why
    """

    path: str
    kind: Literal["json", "jsonl", "csv", "parquet", "arrow", "folder", "hub"]
    files: tuple[File, ...]
    split: str | None = None
    revision: str | None = None
    skipped: tuple[Skipped, ...] = ()


def open_source(data: Data) -> Source:
    """Find what `data.path` names, and which files are read.

    A path that does not exist and looks like a hub id (`name` or `owner/name`, with `@revision` if wanted) is taken for
    one; it is not loaded yet. See `kinds.inspect_file` for files, `folders.list_folder` for folders.

    Raises:
        CurateError: there is nothing (with the nearest name); a file is empty, cannot be read, or holds one JSON object
            instead of records; a folder has no files to read, or files that must not be read together.
    """
    if not data.path:
        raise CurateError("data.path is not set: expected a file, a folder of files, or a hub id")
    path = Path(data.path)
    try:
        if path.is_dir() or ("*" in path.name and not path.exists() and path.parent.is_dir()):
            paths, skipped = list_folder(path, data.split) if path.is_dir() else list_pattern(path)
            files = tuple(_inspect(one, str(one), data) for one in paths)
            return Source(data.path, "folder", files, skipped=skipped)
        if path.exists():
            file = _inspect(path, data.path, data)
            return Source(data.path, file.kind, (file,))
    except (OSError, ValueError) as error:  # ValueError: the name has a NUL character
        raise CurateError(f"cannot read {json_text.excerpt(data.path)}: {json_text.one_line(error)}") from None
    # A path that ends like a data file, or whose folder exists, is a mistyped file and not a hub id.
    hub = _HUB_ID.fullmatch(data.path)
    if not hub or _FILE_LIKE.fullmatch(path.name) or (len(path.parts) > 1 and path.parent.is_dir()):
        raise CurateError(f"no such file or folder: {data.path}{_nearest(path)}")
    return Source(data.path, "hub", (), data.split, hub["revision"])


def _inspect(path: Path, name: str, data: Data) -> File:
    name = json_text.printable(name)
    if not path.is_file():
        raise CurateError(f"{name} is not a regular file; curate reads its input more than once")
    try:
        return inspect_file(path, name, delimiter=data.delimiter)
    except OSError as error:  # no permission, or a packed file that is cut off
        raise _unreadable(name, error) from None


def read_records(source: Source, data: Data) -> Iterator[Record]:
    """Yield every record of the input in order, at most `data.limit`. Memory does not grow with the input.

    With data.on_error=skip a record that cannot be read is given with `problem` set ("file:line: what").

    Raises:
        CurateError: "file:line: what" for a record that cannot be read (on_error=fail); for a file in which it is
            unknown where the next record begins (always); for an input without records.
    """
    row = -1
    for row, (name, piece) in enumerate(itertools.islice(_pieces(source, data), data.limit)):
        if piece.problem is None:
            yield Record(row, name, piece.line, piece.raw, piece.fields)
            continue
        # A record of JSON or CSV may have several lines; the message names the line of the fault.
        at = piece.line + piece.problem.line if piece.line else 0
        problem = f"{place(name, at, row)}: {piece.problem}"
        if data.on_error == "fail":
            raise CurateError(problem)
        yield Record(row, name, piece.line, piece.raw, None, problem)
    if row < 0:
        raise CurateError(f"{source.path} holds no records")


def source_sha256(source: Source) -> str:
    """Return the SHA-256 (hexadecimal) of the input's content; names of files do not matter.

    For one file it is that of its bytes, for several that of their digests in order. For a hub data set it is that of
    the commit it came from, or of the fingerprint that `datasets` gives it, and of the split.

    Raises:
        CurateError: a file cannot be read, or the hub data set cannot be loaded.
    """
    if source.kind == "hub":
        version = arrow.version(load_hub(source))
        return hashlib.sha256(f"{version}\n{source.split}".encode()).hexdigest()
    digests = [_sha256(file.path) for file in source.files]
    return digests[0].hex() if len(digests) == 1 else hashlib.sha256(b"".join(digests)).hexdigest()


def load_hub(source: Source) -> Any:
    """Load the hub data set as a `datasets.Dataset`.

    Raises:
        CurateError: it does not exist, cannot be reached or has no such split. The message also names the file with the
            nearest name, in case that was meant.
    """
    what = f"{source.path} is no file or folder{_nearest(Path(source.path))}"
    return arrow.load_hub(source.path.partition("@")[0], source.split, source.revision, what=what)


def place(name: str, line: int, row: int) -> str:
    """Return the place of a record for error messages: file:line, or the row (from 0) if its file has no lines.

    >>> place("a.jsonl", 3, 2), place("a.parquet", 0, 2)
    ('a.jsonl:3', 'a.parquet: row 2')
    """
    return f"{name}:{line}" if line else f"{name}: row {row}"


def record_limit(data: Data) -> int:
    """Return data.max_record_bytes, bounded by 2**40: the csv module and `readline` fail on larger numbers."""
    return min(data.max_record_bytes, 1 << 40)


class _Piece(NamedTuple):
    """A record as one file gives it: see `Record`. `line` is 0 where the file has no lines."""

    line: int
    raw: bytes | None
    fields: dict[str, Any] | None
    problem: BadRecordError | None = None


def _pieces(source: Source, data: Data) -> Iterator[tuple[str, _Piece]]:
    """Yield the records of all files in order, each with the name of its file."""
    limit = record_limit(data)
    if source.kind == "hub":
        for fields in load_hub(source):
            yield source.path, _Piece(0, None, fields)
    for file in source.files:
        try:
            for piece in _read(file, limit):
                yield file.name, piece
        except OSError as error:  # also a packed file that turns out to be damaged as it is read
            raise _unreadable(file.name, error) from None


def _read(file: File, limit: int) -> Iterator[_Piece]:
    """Yield the records of one file with the reader of its kind."""
    if file.kind in ("parquet", "arrow"):
        for fields, problem in arrow.rows(file, limit=limit):
            bad = _too_large(limit) if problem == arrow.TOO_LARGE else BadRecordError(problem) if problem else None
            yield _Piece(0, None, fields, bad)
        return
    with open_file(file) as stream:
        if file.kind == "csv":
            rows = csv_text.rows(stream, file.name, limit=limit, delimiter=file.delimiter)
            yield from itertools.starmap(_Piece, rows)
            return
        text = _without_bom(stream)
        if file.kind == "json":
            found = json_array.elements(text, file.name, limit=limit)
        else:
            found = json_text.lines(text, limit=limit)
        for line, raw in found:
            yield _parsed(line, raw, limit)


def _unreadable(name: str, error: OSError) -> CurateError:
    return CurateError(f"cannot read {name}: {error.strerror or json_text.one_line(error)}")


def _without_bom(stream: BinaryIO) -> BinaryIO:
    buffered = cast(io.BufferedReader, stream)
    if buffered.peek(len(BOM)).startswith(BOM):  # peek, as a packed stream cannot go back
        stream.read(len(BOM))
    return stream


def _parsed(line: int, raw: bytes | None, limit: int) -> _Piece:
    if raw is None:
        return _Piece(line, None, None, _too_large(limit))
    try:
        return _Piece(line, raw, json_text.parse_record(raw))
    except BadRecordError as problem:
        return _Piece(line, raw, None, problem)


def _too_large(limit: int) -> BadRecordError:
    return BadRecordError(f"a record of more than {limit:,} bytes; raise data.max_record_bytes to read it")


def _sha256(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise CurateError(f"cannot read {path}: {error.strerror}") from None


def _nearest(path: Path) -> str:
    """Return the end of a message: the name in the same folder that is nearest to this one, if any is near."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f" (nor is there a folder {path.parent})"
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f"; did you mean {path.parent / near[0]}?" if near else ""
