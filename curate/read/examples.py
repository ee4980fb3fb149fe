"""Understands records: which format they are in, and each one as a conversation."""

from __future__ import annotations

import difflib
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from curate.config import Data
from curate.read.conversations import identity, tools_of, turns_of
from curate.read.files import Source, place, read_records
from curate.read.json_text import excerpt
from curate.types import CurateError, Example, Format, Record

SAMPLE = 100  # records that the format is recognised from

# Our names of the keys: those a record must have (one of each group), and those it may have.
_REQUIRED: dict[Format, tuple[tuple[str, ...], ...]] = {
    "alpaca": (("instruction",), ("output", "response")),
    "messages": (("messages",),),
    "sharegpt": (("conversations",),),
    "prompt_completion": (("prompt",), ("completion", "response")),
}
_OPTIONAL: dict[Format, tuple[str, ...]] = {
    "alpaca": ("input", "system", "history"),
    "messages": ("tools",),
    "sharegpt": ("system", "tools"),
    "prompt_completion": (),
}
NAMES = tuple(dict.fromkeys(name for f in _REQUIRED for name in (*itertools.chain(*_REQUIRED[f]), *_OPTIONAL[f])))


def key_of(name: str, fields: Iterable[str], columns: Mapping[str, str]) -> str | None:
    """The key under which a record holds what we call `name`, or None if it has no such key.

    >>> key_of("input", ["question", "context"], {"input": "context"})
    'context'
    """
    key = columns.get(name, name)
    claimed = name not in columns and name in columns.values()
    return key if key in fields and not claimed else None


def detect_format(records: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Format:
    """The one format whose keys these records have; records that fit none are left to be judged one by one.

    Raises:
        CurateError: no format fits, several do, different records fit different ones; `columns` names something that
            is not ours, or a key that no record has.
    """
    seen = list(dict.fromkeys(key for fields in records for key in fields))
    _check_columns(columns, seen)
    fits = [tuple(f for f in _REQUIRED if not _missing(f, fields, columns)) for fields in records]
    several = next((fit for fit in fits if len(fit) > 1), None)
    if several:
        raise CurateError(
            f"the records fit several formats ({', '.join(several)}): say which: data.format={several[0]}"
        )
    formats = list(dict.fromkeys(fit[0] for fit in fits if fit))
    if len(formats) > 1:
        which = ", ".join(f"record {fits.index((format,)) + 1} is {format}" for format in formats)
        raise CurateError(
            f"the records are in mixed formats ({which}): split them, or say data.format={formats[0]} and "
            "data.on_error=skip to leave the others out"
        )
    if not formats:
        raise CurateError(
            f"the format was not recognised; keys seen: {', '.join(map(excerpt, seen[:20])) or 'none'}; expected "
            f"{_expected()}; say what your keys are called, e.g. data.columns.instruction=question{_wrapped(records)}"
        )
    return formats[0]


def to_example(record: Record, format: Format, columns: Mapping[str, str]) -> Example:
    """A record as a conversation. Text is taken as it stands; a missing or null Alpaca `input` is "".

    Raises:
        CurateError: "file:line: key: what" for a missing key, a wrong type, an unknown role, no assistant turn.
    """
    fields = record.fields
    assert fields is not None, "a record that could not be read has no conversation"
    try:
        missing = _missing(format, fields, columns)
        if missing:
            keys = ", ".join(map(excerpt, list(fields)[:20]))
            raise ValueError(f"expected the key {missing} of the {format} format, got the keys {keys or '(none)'}")
        own = {name: fields[key] for name in NAMES if (key := key_of(name, fields, columns)) is not None}
        turns = turns_of(format, own)
        tools = tools_of(own.get("tools")) if "tools" in _OPTIONAL[format] else None
        return Example(record.row, identity(turns, tools), turns, tools)
    except ValueError as error:
        raise CurateError(f"{place(record.file, record.line, record.row)}: {error}") from None


def read_examples(data: Data, source: Source) -> Iterator[Example]:
    """Every record of the input as a conversation, one Example per Record, in order.

    With data.format=auto the format is that of the first SAMPLE records, and every further one must have it. Under
    data.on_error=skip a bad record is an Example with `problem` set and no turns.

    Raises:
        CurateError: as `read_records`, `detect_format` and `to_example` say.
    """
    records = read_records(source, data)
    head = list(itertools.islice(records, SAMPLE))
    format = _format(head, data)
    for record in itertools.chain(head, records):
        yield _example_or_problem(record, format, data)


def input_format(data: Data, source: Source) -> Format:
    """The format of the input: data.format, or what its first SAMPLE records look like."""
    return _format(list(itertools.islice(read_records(source, data), SAMPLE)), data)


def _format(head: Sequence[Record], data: Data) -> Format:
    readable = [record.fields for record in head if record.fields is not None]
    if not readable:
        raise CurateError(f"none of the first {len(head)} records can be read; the first: {head[0].problem}")
    if data.format == "auto":
        return detect_format(readable, data.columns)
    _check_columns(data.columns, [key for fields in readable for key in fields])
    return data.format


def _example_or_problem(record: Record, format: Format, data: Data) -> Example:
    problem = record.problem
    if problem is None:
        try:
            return to_example(record, format, data.columns)
        except CurateError as error:
            if data.on_error == "fail":
                raise
            problem = str(error)
    raw = b"bad record %d" % record.row if record.raw is None else record.raw
    return Example(record.row, hashlib.sha256(raw).hexdigest(), (), problem=problem)


def _missing(format: Format, fields: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    """The first required key that a record lacks, by the name it should have there."""
    for names in _REQUIRED[format]:
        if all(key_of(name, fields, columns) is None for name in names):
            return excerpt(columns.get(names[0], names[0]))
    return None


def _check_columns(columns: Mapping[str, str], seen: Sequence[str]) -> None:
    for name, key in columns.items():
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"valid: {', '.join(NAMES)}"
            raise CurateError(f"unknown key data.columns.{name} (it is our name: your name); {hint}")
        if key not in seen:
            keys = ", ".join(map(excerpt, dict.fromkeys(seen[:20])))
            raise CurateError(f"data.columns.{name}={key}: none of the first records has that key; keys seen: {keys}")


def _expected() -> str:
    return " or ".join("+".join(names[0] for names in groups) for groups in _REQUIRED.values())


def _wrapped(records: Sequence[Mapping[str, Any]]) -> str:
    """A hint for {"data": [{...}, ...]}."""
    lists = [
        key for key, value in records[0].items() if isinstance(value, list) and value and isinstance(value[0], dict)
    ]
    return (
        f"; if the records stand under {excerpt(lists[0])}, write that list alone"
        if len(records) == 1 and lists
        else ""
    )
