"""Reads the turns of a conversation from one record, for each format. Its fields already have our names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from curate.config import Data
from curate.read.json_text import MESSAGE_KEYS, excerpt, parse
from curate.read.messages import calls_in, extra_of, int_if_whole, is_null
from curate.types import Format, Role, Turn

MESSAGE_LISTS: dict[Format, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation"),
    "sharegpt": ("conversations", "messages", "conversation"),
}
"""Names that the list of messages may have, in the two formats that have one. The first that a record has is read."""

# OpenAI's "developer" is the newer name of "system", its "function" the older one of "tool".
_OPENAI_ROLES: dict[str, Role] = {"developer": "system", "function": "tool", **{role: role for role in get_args(Role)}}
_SHAREGPT_ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "observation": "tool",
    "tool_response": "tool",
    "tool": "tool",
}

_CALL_ROLES = ("function_call", "tool_call")


def turns_of(format: Format, fields: Mapping[str, Any], data: Data) -> tuple[Turn, ...]:
    """Return the turns of a record.

    Text is taken as it is. A missing or null Alpaca `input` is "". With data.numbers=text, a number, true or false that
    stands in place of a text becomes the text that JSON writes for it; 2.0 becomes "2".

    Args:
        format: the format of the record.
        fields: the record, with its keys under our names.
        data: its columns, roles and numbers say how the record is read.

    Raises:
        ValueError: "key: what" for a wrong type, an unknown role, no assistant turn, or a system message that is not
            the first message.
    """
    turns = {"alpaca": _alpaca, "messages": _messages, "sharegpt": _messages, "prompt_completion": _prompt_completion}
    conversation = turns[format](fields, data, format)
    _check_turns(conversation)
    return conversation


def format_of_messages(value: Any, columns: Mapping[str, str]) -> Format | None:
    """Return which of the two formats a list of messages has, by the keys of its first; None if that has neither.

    >>> format_of_messages([{"from": "human", "value": "Hi"}], {})
    'sharegpt'
    """
    messages = as_list(value)
    first = messages[0] if isinstance(messages, list) and messages else None
    keys = first.keys() if isinstance(first, Mapping) else ()
    for format, (role, _) in zip(MESSAGE_LISTS, MESSAGE_KEYS, strict=True):
        if columns.get(role, role) in keys:
            return format
    return None


def _alpaca(fields: Mapping[str, Any], data: Data, format: Format) -> tuple[Turn, ...]:
    """Return the turns of an Alpaca record: system, earlier pairs of instruction and answer, this pair."""
    earlier = fields.get("history") or []  # LLaMA-Factory's key for the turns before this one
    if not isinstance(earlier, list):
        raise ValueError(f"history: expected a list of [instruction, answer] pairs, got {_kind(earlier)}")
    turns = []
    for pair in earlier:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError("history: expected a list of [instruction, answer] pairs")
        turns += [Turn("user", _text(pair[0], "history", data)), Turn("assistant", _text(pair[1], "history", data))]
    user = Turn("user", _text(fields["instruction"], "instruction", data), _optional_text(fields, "input", data))
    answer = Turn("assistant", _text(fields["output"] if "output" in fields else fields["response"], "output", data))
    return (*_system(fields, data), *turns, user, answer)


def _prompt_completion(fields: Mapping[str, Any], data: Data, format: Format) -> tuple[Turn, ...]:
    answer = fields["completion"] if "completion" in fields else fields["response"]
    return (Turn("user", _text(fields["prompt"], "prompt", data)), Turn("assistant", _text(answer, "completion", data)))


def _messages(fields: Mapping[str, Any], data: Data, format: Format) -> tuple[Turn, ...]:
    """Return a turn for each message, and before them ShareGPT's `system` field as the system turn."""
    openai = format == "messages"
    name = next(name for name in MESSAGE_LISTS[format] if name in fields)
    role_key, text_key = (data.columns.get(key, key) for key in MESSAGE_KEYS[not openai])
    turns = []
    for where, message in _each_message(fields[name], name):
        word, role = _role(message, role_key, where, data, format)
        extra = extra_of(message, (role_key, text_key))
        content = message.get(text_key)
        # ShareGPT writes tool calls as the text of a turn. Chat templates want them under tool_calls, not as content.
        if word in _CALL_ROLES and isinstance(content, str) and (calls := calls_in(content)):
            content, extra = "", extra | {"tool_calls": calls}
        if is_null(content) and extra.get("tool_calls"):  # OpenAI's API gives null content beside calls
            content = ""
        turns.append(Turn(role, _content(content, f"{where}.{text_key}", data), extra=extra))
    return (*(_system(fields, data) if not openai else ()), *turns)


def _each_message(value: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every message of a list, and its place for error messages, such as "messages[0]"."""
    value = as_list(value)
    if not isinstance(value, list):
        raise ValueError(f"{name}: expected a list of messages, got {_kind(value)}")
    for i, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise ValueError(f"{name}[{i}]: expected a message (an object), got {_kind(message)}")
        yield f"{name}[{i}]", message


def as_list(value: Any) -> Any:
    """Return a list of messages as a list, whatever form it came in; any other value as it is.

    The list may be JSON text (as in a cell of a CSV file), or an object with one list for each key: `datasets` made
    such objects of the lists of objects that it had declared as `Sequence`.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return parse(value.encode())
        except ValueError:
            return value
    if isinstance(value, Mapping) and value and all(isinstance(column, list) for column in value.values()):
        columns = [[(key, inner) for inner in column] for key, column in value.items()]
        if len({len(column) for column in columns}) == 1:
            return [dict(message) for message in zip(*columns, strict=True)]
    return value


def _role(message: Mapping[str, Any], key: str, where: str, data: Data, format: Format) -> tuple[str, Role]:
    """Return a message's role, in the person's word and in ours; raise with a hint if it has none that is known."""
    roles = (_OPENAI_ROLES if format == "messages" else _SHAREGPT_ROLES) | data.roles
    word = message.get(key)
    if isinstance(word, str) and word in roles:
        return word, roles[word]
    wrong = f"{where}.{key}: expected one of {', '.join(roles)}, got "
    if isinstance(word, str):
        raise ValueError(f"{wrong}{excerpt(word)}; if it is one of them, say which: data.roles.{word[:40]}=assistant")
    # The role is missing. Perhaps this one message is in the other format, or the keys have other names.
    other = format_of_messages([message], data.columns)
    if other and other != format:
        hint = f"messages of this shape are read with data.format={other}"
    else:
        hint = "if these are called differently: data.columns.{}=..., data.columns.{}=...".format(
            *MESSAGE_KEYS[format != "messages"]
        )
    raise ValueError(f"{wrong}the keys {', '.join(map(excerpt, message)) or '(none)'}; {hint}")


def _content(value: Any, where: str, data: Data) -> str:
    """Return the text of a message: its content, or the joined texts of a list of parts of type "text"."""
    if not isinstance(value, list):
        return _text(value, where, data)
    texts = []
    for part in value:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text":
            raise ValueError(f"{where}: only text parts can be scored, got {excerpt(str(kind))}")
        texts.append(_text(part["text"] if part.get("text") is not None else part.get("value"), where, data))
    return "".join(texts)


def _text(value: Any, where: str, data: Data) -> str:
    """Return a text as it is, and a number or boolean as text if data.numbers allows that; refuse all else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not is_null(value):  # a boolean is an int
        written = json.dumps(int_if_whole(value))
        if data.numbers == "text":
            return written
        raise ValueError(
            f"{where}: expected text, got {_kind(value)} ({written}); data.numbers=text reads it as that text"
        )
    advice = "; write it as one text" if isinstance(value, list | Mapping) else ""
    raise ValueError(f"{where}: expected text, got {_kind(value)}{advice}")


def _optional_text(fields: Mapping[str, Any], name: str, data: Data) -> str:
    value = fields.get(name)
    return "" if is_null(value) else _text(value, name, data)


def _system(fields: Mapping[str, Any], data: Data) -> tuple[Turn, ...]:
    text = _optional_text(fields, "system", data)
    return (Turn("system", text),) if text else ()


def _check_turns(turns: Sequence[Turn]) -> None:
    if not any(turn.role == "assistant" for turn in turns):
        raise ValueError("expected at least one assistant turn: there is nothing to score or train on")
    if any(turn.role == "system" for turn in turns[1:]):
        raise ValueError("expected at most one system message, as the first message")


def _kind(value: Any) -> str:
    """Return what a value is, in words for a person who knows JSON or tables rather than Python."""
    if is_null(value):
        return "null (or nothing)"
    names = {str: "text", list: "a list", dict: "an object", bool: "true or false"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
