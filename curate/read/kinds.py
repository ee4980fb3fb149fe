"""Tells what a file is from its first bytes and its name, and opens it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Literal, cast

import pyarrow as pa

from curate.read import json_text
from curate.types import CurateError

Kind = Literal["json", "jsonl", "csv", "parquet", "arrow"]
Compression = Literal["gzip", "zstd"]

BOM = b"\xef\xbb\xbf"
PACKED = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
_PACKED_STARTS: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_ARROW_FILE, _ARROW_STREAM, _PARQUET = b"ARROW1", b"\xff\xff\xff\xff", b"PAR1"

# Files that people have and that cannot be read as records: the first bytes, what it is, what to do. The first match
# counts: UTF-32 must stand before UTF-16, because its mark begins with that of UTF-16.
_UTF8 = "save it as UTF-8 (in Excel: CSV UTF-8)"
_UNPACK = "unpack it and give what is inside"
_RUNS_CODE = "loading it may run code, so write Parquet or JSONL where it was made"
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "an Excel workbook or another zip archive", "save the sheet as CSV UTF-8, or unpack the archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save the sheet as CSV UTF-8"),
    (b"BZh", "packed with bzip2 (only .gz and .zst are read)", _UNPACK),
    (b"\xfd7zXZ", "packed with xz (only .gz and .zst are read)", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"\x04\x22\x4d\x18", "packed with lz4 (only .gz and .zst are read)", _UNPACK),
    (b"\xff\xfe\x00\x00", "UTF-32 text", _UTF8),
    (b"\xff\xfe", "UTF-16 text", _UTF8),
    (b"\xfe\xff", "UTF-16 text", _UTF8),
    *((bytes([0x80, protocol]), "a Python pickle", _RUNS_CODE) for protocol in range(2, 6)),
    (b"\x93NUMPY", "a NumPy array", "write Parquet or JSONL"),
    (b"\x89HDF", "an HDF5 file", "write Parquet or JSONL"),
    (b"SQLite format 3", "an SQLite database", "write the table as CSV or Parquet"),
    (b"Obj\x01", "an Avro file", "write Parquet or JSONL"),
    (b"ORC", "an ORC file", "write Parquet or JSONL"),
    (b"FEA1", "an old Feather file", "write Parquet"),
    (b"%PDF", "a PDF", "write the records as JSONL"),
    (b"version https://git-lfs", "a Git LFS pointer, not the data", "fetch it with git lfs pull"),
    (b"<!DOCTYPE", "a web page, not the data", "download the file itself (on a hub: the link named raw or resolve)"),
    (b"<html", "a web page, not the data", "download the file itself (on a hub: the link named raw or resolve)"),
)


@dataclass(frozen=True, slots=True)
class File:
    """One file of the input, and how it is read.

    path         where it is
    name         its name as the person wrote it, printable
    kind         told from its first bytes, whatever its name is; CSV is told from its name
    compression  what the file is packed with, else None
    delimiter    the character between two cells of a CSV file
    """

    path: Path
    name: str
    kind: Kind
    compression: Compression | None = None
    delimiter: str = ","


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or subfolder beside the data that is not read: its name (printable) and why."""

    name: str
    why: str


Listing = tuple[list[Path], tuple[Skipped, ...]]
"""The files of a folder that are read, in order, and what is not read."""


def inspect_file(path: Path, name: str, *, delimiter: str | None = None) -> File:
    """Return what a file is and how it is read.

    Text is JSON if it starts with `[` and JSONL if it starts with `{`, whatever the file is called. Text is also JSONL
    if its first line is a list of messages: then each line is such a list. CSV has no mark of its own, so it is known
    by its name: .csv or .tsv.

    Args:
        path: the file.
        name: how messages call it.
        delimiter: a key of DELIMITERS, for CSV; None means a tab for .tsv and a comma for all else.

    Raises:
        CurateError: the file is empty or is not read (a workbook, an archive, UTF-16 ...); the message says what to do.
        OSError: the file cannot be opened, or its compression is damaged.
    """
    with path.open("rb") as raw:
        start = raw.read(len(_ARROW_FILE))
    compression = next((packed for magic, packed in _PACKED_STARTS.items() if start.startswith(magic)), None)
    file = File(path, name, "jsonl", compression)
    extensions = [suffix.lower() for suffix in path.suffixes[-2:]]
    extension = next((suffix for suffix in reversed(extensions) if suffix not in PACKED), "")
    with open_file(file) as stream:
        head = stream.read(512)
        refuse_foreign(head, name)
        table = _table_kind(head, extension)
        if table and compression:
            raise CurateError(f"{name} is a packed {table} file: {_UNPACK}")
        if table:
            return File(path, name, table)
        _refuse_utf16(head, name)
        if extension in (".csv", ".tsv"):
            own = "\t" if extension == ".tsv" else ","
            return File(path, name, "csv", compression, DELIMITERS[delimiter] if delimiter else own)
        return File(path, name, _text_kind(stream, head + stream.read(json_text.CHUNK), name), compression)


def open_file(file: File) -> BinaryIO:
    """Open a file for reading from its start. A packed file is unpacked while it is read.

    Raises:
        OSError: the file cannot be opened. Reading raises it too, where a packed file is damaged or cut off.
    """
    if file.compression is None:
        return file.path.open("rb")
    # pyarrow reads gzip and zstd, also several frames in a row, and raises where a file is cut off. Its streams have
    # no readline and no peek; the buffer adds them.
    stream = pa.CompressedInputStream(pa.OSFile(str(file.path)), file.compression)
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, cast(IO[bytes], stream)), json_text.CHUNK))


def refuse_foreign(head: bytes, name: str) -> None:
    """Refuse a file, by its first bytes, that is of a kind that is not read; the message names the kind."""
    for magic, what, advice in _FOREIGN:
        if head.startswith(magic):
            raise CurateError(f"{name} is {what}: {advice}")
    if head[257:262] == b"ustar":  # a tar file starts with the name of its first member; its mark comes later
        raise CurateError(f"{name} is a tar archive: {_UNPACK}")


def _refuse_utf16(head: bytes, name: str) -> None:
    """Refuse UTF-16 without a byte order mark: every second byte of Latin text is then zero."""
    sample = head[:512]
    fewer, more = sorted((sample[0::2].count(0), sample[1::2].count(0)))
    if len(sample) > 3 and not fewer and more * 3 > len(sample):
        raise CurateError(f"{name} is UTF-16 text: {_UTF8}")


def is_records(path: Path) -> bool:
    """Say whether a file whose name does not look like data starts as records do, or is packed."""
    with path.open("rb") as stream:
        head = stream.read(json_text.CHUNK)
    if head.startswith((_PARQUET, _ARROW_FILE, *_PACKED_STARTS)):
        return True
    text = head.removeprefix(BOM).lstrip(json_text.BLANKS)
    if text.startswith(b"["):
        return isinstance(_first_element(text), dict | list)
    try:
        return text.startswith(b"{") and bool(json_text.parse_record(text.partition(b"\n")[0]))
    except ValueError:
        return False


def _table_kind(head: bytes, extension: str) -> Literal["parquet", "arrow"] | None:
    # By name too: a file that is called .parquet and does not start as one is damaged, and is reported as that.
    if head.startswith(_PARQUET) or extension == ".parquet":
        return "parquet"
    if head.startswith((_ARROW_FILE, _ARROW_STREAM)) or extension in (".arrow", ".feather"):
        return "arrow"
    return None


def _text_kind(stream: BinaryIO, head: bytes, name: str) -> Kind:
    """Return "json" or "jsonl" for a text file that starts with `head`; refuse what starts as neither."""
    line, head = 1, head.removeprefix(BOM)
    while head and not head.strip(json_text.BLANKS):
        line += head.count(b"\n")
        head = stream.read(json_text.CHUNK)
    if not head:
        raise CurateError(f"{name} is empty")
    text = head.lstrip(json_text.BLANKS)
    if text.startswith(b"["):
        return "jsonl" if json_text.is_message(_first_element(text)) and _is_line(text) else "json"
    line += head.count(b"\n", 0, len(head) - len(text))
    if not text.startswith(b"{"):
        got = json_text.excerpt(text)
        raise CurateError(
            f"{name}:{line}: expected a JSON array [...], or a JSON object {{...}} on each line, got {got}"
        )
    first, _, rest = text.partition(b"\n")
    # A first line that is not complete JSON: a record written over several lines, as json.dump(indent=2) does.
    if first.rstrip().endswith((b"{", b"[", b",")) and rest.strip():
        raise CurateError(
            f"{name}:{line}: one JSON object over several lines; expected an array [...] of records (if they stand "
            "under a key, write that list alone), or a record on each line"
        )
    return "jsonl"


def _first_element(text: bytes) -> object:
    """Return the first element of a JSON array, or None if `text` does not hold all of it."""
    try:
        return json.JSONDecoder().raw_decode(text[1:].decode("utf-8", "ignore").lstrip(" \t\r\n"))[0]
    except (ValueError, RecursionError):
        return None


def _is_line(text: bytes) -> bool:
    """Say whether the first line of a text ends a list, or goes on beyond the text so that this is unknown."""
    first, end, _ = text.partition(b"\n")
    return first.rstrip(json_text.BLANKS).endswith(b"]") or not end
