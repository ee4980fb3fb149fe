"""Turns records into examples: finds the format of the input, and reads each record as a conversation."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from curate.config import Data
from curate.read.arrow_files import num_rows
from curate.read.conversations import turns_of
from curate.read.files import Source, load_hub, place, read_records
from curate.read.formats import NAMES, OPTIONAL, check_columns, detect_format, key_of, missing_key, names_of
from curate.read.json_text import excerpt
from curate.read.messages import identity, is_null, tools_of
from curate.read.variables import variables_of
from curate.types import CurateError, Example, Format, Record

_EMPTY: tuple[Any, ...] = ("", [], {})
SAMPLE = 100  # the format is recognised from so many records at the start


def to_example(record: Record, format: Format, data: Data) -> Example:
    """Return a record as a conversation, read with data.columns, data.roles and data.numbers.

    Text is taken as it is; a missing or null Alpaca `input` is "". Tool calls, tools and all else that a message holds
    are brought to one form: see `curate.read.messages`.

    Raises:
        CurateError: "file:line: key: what" for a missing key, a wrong type, an unknown role, no assistant turn.
    """
    fields, columns = record.fields, data.columns
    assert fields is not None, "a record that could not be read has no conversation"
    try:
        lacking = missing_key(format, fields, columns)
        if lacking:
            keys = ", ".join(map(excerpt, list(fields)[:20]))
            raise ValueError(f"expected the key {lacking} of the {format} format, got the keys {keys or '(none)'}")
        renamed = {name: fields[key] for name in NAMES if (key := key_of(name, fields, columns)) is not None}
        turns = turns_of(format, renamed, data)
        variables = variables_of(renamed)
        tools = tools_of(renamed.get("tools")) if "tools" in OPTIONAL[format] else None
        tools = tools_of(variables.pop("tools", None)) or tools
        unread = _unread(fields, format, columns, variables)
        return Example(record.row, identity(turns, tools, variables), turns, tools, variables=variables, unread=unread)
    except ValueError as error:
        raise CurateError(f"{place(record.file, record.line, record.row)}: {error}") from None


def open_examples(data: Data, source: Source) -> tuple[Format, Iterator[Example]]:
    """Return the format of the input, and an iterator of its examples: one for each record, in order.

    The input is read once. With data.format=auto the first SAMPLE records decide the format, and every further record
    must have it. With data.on_error=skip a bad record is an Example with `problem` set and no turns.

    Raises:
        CurateError: see `read_records`, `detect_format` and `to_example`. Faults in records after the first SAMPLE are
            raised when the iterator reaches them.
    """
    # The records that decided the format are not read again: that could mean to unpack a file a second time.
    records = read_records(source, data)
    head = list(itertools.islice(records, SAMPLE))
    format = _format(head, data)
    return format, (_example_or_problem(record, format, data) for record in itertools.chain(head, records))


def read_examples(data: Data, source: Source) -> Iterator[Example]:
    """Yield every record of the input as a conversation: see `open_examples`."""
    yield from open_examples(data, source)[1]


def expected_count(data: Data, source: Source) -> int | None:
    """Return about how many records the input has, without reading it to the end; None where that cannot be told.

    Parquet and hub data sets say it. Of text it is the size of the files over the mean size of the first SAMPLE
    records, to two digits. Packed text and Arrow files do not say how much they hold.
    """
    count: int | None = None
    if source.kind == "hub":
        count = len(load_hub(source))
    elif all(file.kind == "parquet" for file in source.files):
        count = sum(map(num_rows, source.files))
    elif all(file.compression is None and file.kind not in ("parquet", "arrow") for file in source.files):
        sizes = [len(record.raw or b"") for record in itertools.islice(read_records(source, data), SAMPLE)]
        between = 2  # bytes from one record to the next: a comma or two, a line end
        count = round(sum(file.path.stat().st_size for file in source.files) / (fmean(sizes) + between))
        count = int(float(f"{count:.1e}"))
    return count if count is None or data.limit is None else min(count, data.limit)


def input_format(data: Data, source: Source) -> Format:
    """Return the format of the input: data.format, or for auto the one of its first SAMPLE records."""
    return open_examples(data, source)[0]


def _format(head: Sequence[Record], data: Data) -> Format:
    readable = [record.fields for record in head if record.fields is not None]
    if not readable:
        raise CurateError(f"none of the first {len(head)} records can be read; the first: {head[0].problem}")
    if data.format == "auto":
        return detect_format(readable, data.columns)
    check_columns(data.columns, readable)
    return data.format


def _unread(
    fields: Mapping[str, Any], format: Format, columns: Mapping[str, str], variables: Mapping[str, Any]
) -> frozenset[str]:
    """Return the names of the fields that hold something and of which nothing was made.

    `documents` that are no documents are among them.
    """
    names = (name for name in names_of(format) if name in variables or name not in ("documents", "enable_thinking"))
    read = {key_of(name, fields, columns) for name in names}
    # Arrow gives a record the fields of all others, as null: they must not count.
    return frozenset(
        key for key, value in fields.items() if key not in read and not (is_null(value) or value in _EMPTY)
    )


def _example_or_problem(record: Record, format: Format, data: Data) -> Example:
    """Return a record as an example; a bad one as an example with `problem` set, if data.on_error says skip."""
    problem = record.problem
    if problem is None:
        try:
            return to_example(record, format, data)
        except CurateError as error:
            if data.on_error == "fail":
                raise
            problem = str(error)
    # A bad record needs an id too. Rows of tables and records that are too large have no bytes here, only a row number.
    raw = b"bad record %d" % record.row if record.raw is None else record.raw
    return Example(record.row, hashlib.sha256(raw).hexdigest(), (), problem=problem)
