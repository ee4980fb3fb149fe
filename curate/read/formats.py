"""Which format records are in, told from their keys and their first message; or what to say so that it is known."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from curate.read.conversations import CHATS, first_shape
from curate.read.json_text import MESSAGE_KEYS, excerpt
from curate.types import CurateError, Format

# Our names of the keys: those a record must have (one of each group), and those it may have.
REQUIRED: dict[Format, tuple[tuple[str, ...], ...]] = {
    "alpaca": (("instruction",), ("output", "response")),
    "messages": (CHATS["messages"],),
    "sharegpt": (CHATS["sharegpt"],),
    "prompt_completion": (("prompt",), ("completion", "response")),
}
OPTIONAL: dict[Format, tuple[str, ...]] = {
    "alpaca": ("input", "system", "history"),
    "messages": ("tools",),
    "sharegpt": ("system", "tools"),
    "prompt_completion": (),
}
NAMES = tuple(dict.fromkeys(name for f in REQUIRED for name in (*itertools.chain(*REQUIRED[f]), *OPTIONAL[f])))
_OF_MESSAGES = tuple(itertools.chain(*MESSAGE_KEYS))
_ASKED = ("question", "query", "problem", "input", "prompt", "user", "instruction")
_ANSWERED = ("answer", "output", "response", "completion", "target", "solution", "assistant", "chosen", "label")


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

    A list of messages may be called messages, conversations or conversation; the keys of its first message (role or
    from) decide.

    Raises:
        CurateError: no format fits, several do, different records fit different ones; `columns` names something that
            is not ours, or a key that no record has.
    """
    check_columns(columns, records)
    fits = [tuple(f for f in REQUIRED if _fits(f, fields, columns)) for fields in records]
    if not any(fits):  # no list of messages has a first one: what it is called must do
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
        seen = _keys(records)
        raise CurateError(
            f"the format was not recognised; keys seen: {', '.join(map(excerpt, seen[:20])) or 'none'}; expected "
            f"{_expected()}; {_advice(records, seen)}"
        )
    return formats[0]


def missing(format: Format, fields: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    """The first required key that a record lacks, by the name it should have there."""
    for names in REQUIRED[format]:
        if all(key_of(name, fields, columns) is None for name in names):
            return excerpt(columns.get(names[0], names[0]))
    return None


def check_columns(columns: Mapping[str, str], records: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what `columns` says of names that are not ours, or of keys that none of the records has."""
    seen = _keys(records)
    for name, key in columns.items():
        if name not in NAMES and name not in _OF_MESSAGES:
            near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"valid: {', '.join((*NAMES, *_OF_MESSAGES))}"
            raise CurateError(f"unknown key data.columns.{name} (it is our name: your name); {hint}")
        if key not in seen and name not in _OF_MESSAGES:  # a message that lacks its keys is refused by itself
            keys = ", ".join(map(excerpt, seen[:20]))
            raise CurateError(f"data.columns.{name}={key}: none of the first records has that key; keys seen: {keys}")


def _keys(records: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for fields in records for key in fields))


def _fits(format: Format, fields: Mapping[str, Any], columns: Mapping[str, str], *, by_name: bool = False) -> bool:
    if missing(format, fields, columns):
        return False
    if format not in ("messages", "sharegpt"):
        return True
    names = REQUIRED[format][0]
    name = next(name for name in names if key_of(name, fields, columns) is not None)
    shape = first_shape(fields[columns.get(name, name)], columns)
    return shape == format if shape else by_name and name == names[0]


def _expected() -> str:
    return " or ".join("+".join(names[0] for names in groups) for groups in REQUIRED.values())


def _advice(records: Sequence[Mapping[str, Any]], seen: Sequence[str]) -> str:
    """What to write, as exactly as the first record allows."""
    first = records[0]
    chat = next((key for key, value in first.items() if first_shape(value, {})), None)
    if chat is not None:
        shape = first_shape(first[chat], {})
        return f"{excerpt(chat)} holds messages: data.columns.{REQUIRED[shape or 'messages'][0][0]}={chat}"
    if any({role, text} <= first.keys() for role, text in MESSAGE_KEYS):
        return "each record is a single message: write the messages of a conversation as one list, under messages"
    asked, answered = (next((key for key in names if key in seen), None) for names in (_ASKED, _ANSWERED))
    if asked and answered:
        return f"say what your keys are called, e.g. data.columns.instruction={asked} data.columns.output={answered}"
    return f"say what your keys are called, e.g. data.columns.instruction=question{_wrapped(records)}"


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
