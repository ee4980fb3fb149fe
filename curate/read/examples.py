"""Understands records: which format they are in, and each one as a conversation."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence

from curate.config import Data
from curate.read.conversations import turns_of
from curate.read.files import Source, place, read_records
from curate.read.formats import NAMES, OPTIONAL, check_columns, detect_format, key_of, missing
from curate.read.json_text import excerpt
from curate.read.messages import identity, tools_of
from curate.types import CurateError, Example, Format, Record

SAMPLE = 100  # records that the format is recognised from


def to_example(record: Record, format: Format, data: Data) -> Example:
    """A record as a conversation, read with data.columns, data.roles and data.numbers.

    Text is taken as it stands; a missing or null Alpaca `input` is "". Tool calls, tools and what else a message holds
    are brought to one spelling: see `messages`.

    Raises:
        CurateError: "file:line: key: what" for a missing key, a wrong type, an unknown role, no assistant turn.
    """
    fields, columns = record.fields, data.columns
    assert fields is not None, "a record that could not be read has no conversation"
    try:
        lacking = missing(format, fields, columns)
        if lacking:
            keys = ", ".join(map(excerpt, list(fields)[:20]))
            raise ValueError(f"expected the key {lacking} of the {format} format, got the keys {keys or '(none)'}")
        own = {name: fields[key] for name in NAMES if (key := key_of(name, fields, columns)) is not None}
        turns = turns_of(format, own, data)
        tools = tools_of(own.get("tools")) if "tools" in OPTIONAL[format] else None
        return Example(record.row, identity(turns, tools), turns, tools)
    except ValueError as error:
        raise CurateError(f"{place(record.file, record.line, record.row)}: {error}") from None


def open_examples(data: Data, source: Source) -> tuple[Format, Iterator[Example]]:
    """The format of the input, and every record of it as a conversation: one Example per Record, in order.

    The input is read once. With data.format=auto the format is that of the first SAMPLE records, and every further
    one must have it. Under data.on_error=skip a bad record is an Example with `problem` set and no turns.

    Raises:
        CurateError: as `read_records`, `detect_format` and `to_example` say; of records beyond the first SAMPLE only
            when the iterator reaches them.
    """
    records = read_records(source, data)
    head = list(itertools.islice(records, SAMPLE))
    format = _format(head, data)
    return format, (_example_or_problem(record, format, data) for record in itertools.chain(head, records))


def read_examples(data: Data, source: Source) -> Iterator[Example]:
    """Every record of the input as a conversation: see `open_examples`."""
    yield from open_examples(data, source)[1]


def input_format(data: Data, source: Source) -> Format:
    """The format of the input: data.format, or what its first SAMPLE records look like."""
    return open_examples(data, source)[0]


def _format(head: Sequence[Record], data: Data) -> Format:
    readable = [record.fields for record in head if record.fields is not None]
    if not readable:
        raise CurateError(f"none of the first {len(head)} records can be read; the first: {head[0].problem}")
    if data.format == "auto":
        return detect_format(readable, data.columns)
    check_columns(data.columns, readable)
    return data.format


def _example_or_problem(record: Record, format: Format, data: Data) -> Example:
    problem = record.problem
    if problem is None:
        try:
            return to_example(record, format, data)
        except CurateError as error:
            if data.on_error == "fail":
                raise
            problem = str(error)
    raw = b"bad record %d" % record.row if record.raw is None else record.raw
    return Example(record.row, hashlib.sha256(raw).hexdigest(), (), problem=problem)
