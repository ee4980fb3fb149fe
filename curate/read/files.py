"""Finds the input and reads it, record by record and strictly; understands nothing of conversations."""

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
from curate.read.folders import Skipped, list_folder, list_pattern
from curate.read.json_text import BadRecordError
from curate.read.kinds import BOM, File, inspect_file, open_file
from curate.types import CurateError, Record

_HUB_ID = re.compile(r"(?P<name>[\w-][\w.-]*(/[\w-][\w.-]*)?)(@(?P<revision>[\w./-]+))?")
_FILE_LIKE = re.compile(r".*\.(jsonl?|ndjson|csv|tsv|parquet|arrow)(\.(gz|zst))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """The input: a file, a folder of files in sorted order, or a hub data set (which has no files here).

    path      data.path as the person wrote it
    kind      of a file what it is; a name with `*` and a data set saved by `datasets` are folders too
    split     of a hub data set, else None
    revision  of a hub data set: what stands after @ in data.path, else None
    skipped   what lies in the folder and is not read, and why
    """

    path: str
    kind: Literal["json", "jsonl", "csv", "parquet", "arrow", "folder", "hub"]
    files: tuple[File, ...]
    split: str | None = None
    revision: str | None = None
    skipped: tuple[Skipped, ...] = ()


def open_source(data: Data) -> Source:
    """Find what `data.path` names, and which files are read: see `kinds.inspect_file` and `folders.list_folder`.

    Raises:
        CurateError: nothing there (with the nearest name), an empty or unreadable file, one JSON object instead of
            records, a folder without readable files, or with files that must not be read together.
    """
    if not data.path:
        raise CurateError("data.path is not set: expected a file, a folder of files, or a hub id")
    path = Path(data.path)
    try:
        if path.is_dir() or ("*" in path.name and not path.exists() and path.parent.is_dir()):
            paths, skipped = list_folder(path, data.split) if path.is_dir() else list_pattern(path)
            files = tuple(_file(one, str(one), data) for one in paths)
            return Source(data.path, "folder", files, skipped=skipped)
        if path.exists():
            file = _file(path, data.path, data)
            return Source(data.path, file.kind, (file,))
    except (OSError, ValueError) as error:  # a name too long, a NUL in it, no permission
        raise CurateError(f"cannot read {json_text.excerpt(data.path)}: {json_text.one_line(error)}") from None
    hub = _HUB_ID.fullmatch(data.path)
    if not hub or _FILE_LIKE.fullmatch(path.name) or (len(path.parts) > 1 and path.parent.is_dir()):
        raise CurateError(f"no such file or folder: {data.path}{_nearest(path)}")
    return Source(data.path, "hub", (), data.split, hub["revision"])


def _file(path: Path, name: str, data: Data) -> File:
    name = json_text.printable(name)
    if not path.is_file():
        raise CurateError(f"{name} is not a regular file; curate reads its input more than once")
    try:
        return inspect_file(path, name, delimiter=data.delimiter)
    except OSError as error:  # no permission; or what is packed is cut off
        raise _unreadable(name, error) from None


def read_records(source: Source, data: Data) -> Iterator[Record]:
    """Every record of the input in order, at most `data.limit`, in memory that does not grow with the input.

    Under data.on_error=skip a record that cannot be read is given with `problem` set ("file:line: what").

    Raises:
        CurateError: "file:line: what" for a record that cannot be read (on_error=fail), for a file whose records can
            no longer be told apart (always), for an input without records.
    """
    row = -1
    for row, (name, found) in enumerate(itertools.islice(_found(source, data), data.limit)):
        if found.problem is None:
            yield Record(row, name, found.line, found.raw, found.fields)
            continue
        at = found.line + found.problem.line if found.line else 0
        problem = f"{place(name, at, row)}: {found.problem}"
        if data.on_error == "fail":
            raise CurateError(problem)
        yield Record(row, name, found.line, found.raw, None, problem)
    if row < 0:
        raise CurateError(f"{source.path} holds no records")


def source_sha256(source: Source) -> str:
    """SHA-256 of the content, whatever the files are called: of a file its own, of several that of their digests.

    A hub data set is known by the commit it came from, or by the fingerprint `datasets` gives it.
    """
    if source.kind == "hub":
        commit = arrow.commit(load_hub(source))
        return hashlib.sha256(f"{commit}\n{source.split}".encode()).hexdigest()
    digests = [_sha256(file.path) for file in source.files]
    return digests[0].hex() if len(digests) == 1 else hashlib.sha256(b"".join(digests)).hexdigest()


def load_hub(source: Source) -> Any:
    """The hub data set as a `datasets.Dataset`.

    Raises:
        CurateError: not there, not reachable, no such split; names the nearest file too, in case one was meant.
    """
    what = f"{source.path} is no file or folder{_nearest(Path(source.path))}"
    return arrow.load_hub(source.path.partition("@")[0], source.split, source.revision, what=what)


def place(name: str, line: int, row: int) -> str:
    """Where a record stands, for messages: file:line, or the row (from 0) where a file has no lines."""
    return f"{name}:{line}" if line else f"{name}: row {row}"


def record_limit(data: Data) -> int:
    """data.max_record_bytes, as far as files and the csv module can count."""
    return min(data.max_record_bytes, 1 << 40)


class _Found(NamedTuple):
    line: int
    raw: bytes | None
    fields: dict[str, Any] | None
    problem: BadRecordError | None = None


def _found(source: Source, data: Data) -> Iterator[tuple[str, _Found]]:
    limit = record_limit(data)
    if source.kind == "hub":
        for fields in load_hub(source):
            yield source.path, _Found(0, None, fields)
    for file in source.files:
        try:
            for found in _read(file, limit):
                yield file.name, found
        except OSError as error:
            raise _unreadable(file.name, error) from None


def _read(file: File, limit: int) -> Iterator[_Found]:
    if file.kind in ("parquet", "arrow"):
        for fields, problem in arrow.rows(file, limit=limit):
            bad = _too_large(limit) if problem == arrow.TOO_LARGE else BadRecordError(problem) if problem else None
            yield _Found(0, None, fields, bad)
        return
    with open_file(file) as stream:
        if file.kind == "csv":
            found = csv_text.rows(stream, file.name, limit=limit, delimiter=file.delimiter)
            yield from itertools.starmap(_Found, found)
            return
        text = _without_bom(stream)
        if file.kind == "json":
            pieces = json_array.elements(text, file.name, limit=limit)
        else:
            pieces = json_text.lines(text, limit=limit)
        for line, raw in pieces:
            yield _parsed(line, raw, limit)


def _unreadable(name: str, error: OSError) -> CurateError:
    return CurateError(f"cannot read {name}: {error.strerror or json_text.one_line(error)}")


def _without_bom(stream: BinaryIO) -> BinaryIO:
    buffered = cast(io.BufferedReader, stream)
    if buffered.peek(len(BOM)).startswith(BOM):
        stream.read(len(BOM))
    return stream


def _parsed(line: int, raw: bytes | None, limit: int) -> _Found:
    if raw is None:
        return _Found(line, None, None, _too_large(limit))
    try:
        return _Found(line, raw, json_text.parse_record(raw))
    except BadRecordError as problem:
        return _Found(line, raw, None, problem)


def _too_large(limit: int) -> BadRecordError:
    return BadRecordError(f"a record of more than {limit:,} bytes; raise data.max_record_bytes to read it")


def _sha256(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise CurateError(f"cannot read {path}: {error.strerror}") from None


def _nearest(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f" (nor is there a folder {path.parent})"
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f"; did you mean {path.parent / near[0]}?" if near else ""
