"""What one file is, told from its first bytes and its name, and how it is opened."""

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

# What people have and nobody can read as records: the first bytes, what it is, what to do.
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
    """One file of the input: where it is, its name as the person wrote it (printable), and how it is read.

    kind         decided by the first bytes, whatever the file is called; CSV by its name
    compression  what the file is packed with, else None
    delimiter    the character between two cells of a CSV file
    """

    path: Path
    name: str
    kind: Kind
    compression: Compression | None = None
    delimiter: str = ","


def inspect_file(path: Path, name: str, *, delimiter: str | None = None) -> File:
    """Tell what a file is. A text file is JSON if it starts with `[` and JSONL if with `{`, whatever it is called.

    A text that starts with a list of messages is JSONL too: each of its lines is such a list.

    Raises:
        CurateError: an empty file, or one that is not read (a workbook, an archive, UTF-16 ...), with what to do.
        OSError: the file cannot be read.
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
    """Open a file for reading from its start; what is packed is unpacked as it is read.

    Raises:
        OSError: the file cannot be read; on reading, that what is packed is damaged or cut off.
    """
    if file.compression is None:
        return file.path.open("rb")
    # pyarrow's codecs (both, and several frames one after the other) tell a cut file; buffered, for readline and peek
    stream = pa.CompressedInputStream(pa.OSFile(str(file.path)), file.compression)
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, cast(IO[bytes], stream)), json_text.CHUNK))


def refuse_foreign(head: bytes, name: str) -> None:
    """Refuse the first bytes of a file that is no text, no Parquet and no Arrow file, naming what it is."""
    for magic, what, advice in _FOREIGN:
        if head.startswith(magic):
            raise CurateError(f"{name} is {what}: {advice}")
    if head[257:262] == b"ustar":
        raise CurateError(f"{name} is a tar archive: {_UNPACK}")


def _refuse_utf16(head: bytes, name: str) -> None:
    """Refuse UTF-16 without its mark: every second byte of Latin text is zero."""
    sample = head[:512]
    fewer, more = sorted((sample[0::2].count(0), sample[1::2].count(0)))
    if len(sample) > 3 and not fewer and more * 3 > len(sample):
        raise CurateError(f"{name} is UTF-16 text: {_UTF8}")


def is_records(path: Path) -> bool:
    """Say whether a file holds what looks like records, whatever it is called: for files that nobody would read."""
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
    if head.startswith(_PARQUET) or extension == ".parquet":
        return "parquet"
    if head.startswith((_ARROW_FILE, _ARROW_STREAM)) or extension in (".arrow", ".feather"):
        return "arrow"
    return None


def _text_kind(stream: BinaryIO, head: bytes, name: str) -> Kind:
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
    if first.rstrip().endswith((b"{", b"[", b",")) and rest.strip():
        raise CurateError(
            f"{name}:{line}: one JSON object over several lines; expected an array [...] of records (if they stand "
            "under a key, write that list alone), or a record on each line"
        )
    return "jsonl"


def _first_element(text: bytes) -> object:
    """The first element of a JSON array, or None if it is not whole in `text`."""
    try:
        return json.JSONDecoder().raw_decode(text[1:].decode("utf-8", "ignore").lstrip(" \t\r\n"))[0]
    except (ValueError, RecursionError):
        return None


def _is_line(text: bytes) -> bool:
    """Whether the text's first line is a whole list, or too long to tell."""
    first, end, _ = text.partition(b"\n")
    return first.rstrip(json_text.BLANKS).endswith(b"]") or not end
