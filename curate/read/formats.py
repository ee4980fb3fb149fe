"""Recognises the format of records from their keys and first message, or says which settings would name it."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from curate.read.conversations import MESSAGE_LISTS, format_of_messages
from curate.read.json_text import MESSAGE_KEYS, excerpt
from curate.types import CurateError, Format

# Our names of the keys that a record must have (one of each group), and of those that it may have.
REQUIRED: dict[Format, tuple[tuple[str, ...], ...]] = {
    "alpaca": (("instruction",), ("output", "response")),
    "messages": (MESSAGE_LISTS["messages"],),
    "sharegpt": (MESSAGE_LISTS["sharegpt"],),
    "prompt_completion": (("prompt",), ("completion", "response")),
}
OPTIONAL: dict[Format, tuple[str, ...]] = {
    "alpaca": ("input", "system", "history"),
    "messages": ("tools",),
    "sharegpt": ("system", "tools"),
    "prompt_completion": (),
}
BESIDE = ("documents", "enable_thinking", "chat_template_kwargs")
"""What records of every format may have beside: see `curate.read.variables`."""
_OWN = (name for f in REQUIRED for name in (*itertools.chain(*REQUIRED[f]), *OPTIONAL[f]))
NAMES = tuple(dict.fromkeys((*_OWN, *BESIDE)))
_NAMES_IN_MESSAGES = tuple(itertools.chain(*MESSAGE_KEYS))
# Common keys of question and answer, the likeliest first. They are only used in advice, never to read a record.
_QUESTION_KEYS = ("question", "query", "problem", "input", "prompt", "user", "instruction")
_ANSWER_KEYS = ("answer", "output", "response", "completion", "target", "solution", "assistant", "chosen", "label")


def key_of(name: str, fields: Iterable[str], columns: Mapping[str, str]) -> str | None:
    """Return the key under which a record holds what we call `name`, or None if it has no such key.

    >>> key_of("input", ["question", "context"], {"input": "context"})
    'context'
    """
    key = columns.get(name, name)
    # With columns {"instruction": "input"}, the person's `input` is our instruction, and no longer our input.
    claimed = name not in columns and name in columns.values()
    return key if key in fields and not claimed else None


def detect_format(records: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Format:
    """Return the one format whose keys these records have.

    A record that fits no format does not count here; it is refused or skipped when it is read. The list of messages may
    be called messages, conversations or conversation: the keys of its first message (`role` or `from`) decide between
    messages and sharegpt.

    Raises:
        CurateError: no format fits, several do, or different records fit different ones; `columns` has a name that is
            not ours, or a key that no record has.

    >>> detect_format([{"conversations": [{"role": "user", "content": "Hi"}]}], {})
    'messages'
    """
    check_columns(columns, records)
    fits = [tuple(f for f in REQUIRED if _fits(f, fields, columns)) for fields in records]
    if not any(fits):  # perhaps all lists of messages are empty: then the name of the list decides
        fits = [tuple(f for f in REQUIRED if _fits(f, fields, columns, by_name=True)) for fields in records]
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
        seen = _all_keys(records)
        raise CurateError(
            f"the format was not recognised; keys seen: {', '.join(map(excerpt, seen[:20])) or 'none'}; expected "
            f"{_expected()}; {_advice(records, seen)}"
        )
    return formats[0]


def missing_key(format: Format, fields: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    """Return the first required key that a record lacks, quoted, as the person would call it; None if it has all."""
    for names in REQUIRED[format]:
        if all(key_of(name, fields, columns) is None for name in names):
            return excerpt(columns.get(names[0], names[0]))
    return None


def names_of(format: Format) -> tuple[str, ...]:
    """Return our names of all keys that records of a format may have."""
    return (*itertools.chain(*REQUIRED[format]), *OPTIONAL[format], *BESIDE)


def check_columns(columns: Mapping[str, str], records: Sequence[Mapping[str, Any]]) -> None:
    """Refuse data.columns if it has a name that is not ours, or a key that none of the records has.

    Raises:
        CurateError: that name or key, with the nearest valid one.
    """
    seen = _all_keys(records)
    for name, key in columns.items():
        if name not in NAMES and name not in _NAMES_IN_MESSAGES:
            near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"valid: {', '.join((*NAMES, *_NAMES_IN_MESSAGES))}"
            raise CurateError(f"unknown key data.columns.{name} (it is our name: your name); {hint}")
        if key not in seen and name not in _NAMES_IN_MESSAGES:  # keys in messages are checked where these are read
            keys = ", ".join(map(excerpt, seen[:20]))
            raise CurateError(f"data.columns.{name}={key}: none of the first records has that key; keys seen: {keys}")


def _all_keys(records: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for fields in records for key in fields))


def _fits(format: Format, fields: Mapping[str, Any], columns: Mapping[str, str], *, by_name: bool = False) -> bool:
    """Say whether a record has the keys of a format; `by_name` lets the name of an empty list of messages decide."""
    if missing_key(format, fields, columns):
        return False
    if format not in ("messages", "sharegpt"):
        return True
    names = REQUIRED[format][0]
    name = next(name for name in names if key_of(name, fields, columns) is not None)
    found = format_of_messages(fields[columns.get(name, name)], columns)
    return found == format if found else by_name and name == names[0]


def _expected() -> str:
    return " or ".join("+".join(names[0] for names in groups) for groups in REQUIRED.values())


def _advice(records: Sequence[Mapping[str, Any]], seen: Sequence[str]) -> str:
    """Return which setting would help, as exactly as the first record shows it."""
    first = records[0]
    chat = next((key for key, value in first.items() if format_of_messages(value, {})), None)
    if chat is not None:
        found = format_of_messages(first[chat], {})
        return f"{excerpt(chat)} holds messages: data.columns.{REQUIRED[found or 'messages'][0][0]}={chat}"
    if any({role, text} <= first.keys() for role, text in MESSAGE_KEYS):
        return "each record is a single message: write the messages of a conversation as one list, under messages"
    question, answer = (next((key for key in keys if key in seen), None) for keys in (_QUESTION_KEYS, _ANSWER_KEYS))
    if question and answer:
        return f"say what your keys are called, e.g. data.columns.instruction={question} data.columns.output={answer}"
    return f"say what your keys are called, e.g. data.columns.instruction=question{_hint_if_wrapped(records)}"


def _hint_if_wrapped(records: Sequence[Mapping[str, Any]]) -> str:
    """Return a hint if the only record holds all the others, as in {"data": [{...}, ...]}; else nothing."""
    lists = [
        key for key, value in records[0].items() if isinstance(value, list) and value and isinstance(value[0], dict)
    ]
    return (
        f"; if the records stand under {excerpt(lists[0])}, write that list alone"
        if len(records) == 1 and lists
        else ""
    )
