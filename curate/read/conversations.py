"""The conversation in one record, for each format; keys are already called by our names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from curate.config import Data
from curate.read.json_text import MESSAGE_KEYS, excerpt, parse
from curate.read.messages import calls_in, extra_of, is_null, whole
from curate.types import Format, Role, Turn

CHATS: dict[Format, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation"),
    "sharegpt": ("conversations", "messages", "conversation"),
}
"""What the list of messages may be called in the two formats that have one: the first of them that a record has."""

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

_CALLS = ("function_call", "tool_call")


def turns_of(format: Format, own: Mapping[str, Any], data: Data) -> tuple[Turn, ...]:
    """The turns of a record. Text is taken as it stands; a missing or null Alpaca `input` is "".

    Under data.numbers=text a number, true or false in place of a text is what JSON writes for it, 2.0 as 2.

    Raises:
        ValueError: "key: what" for a wrong type, an unknown role, no assistant turn, a late system message.
    """
    turns = {"alpaca": _alpaca, "messages": _messages, "sharegpt": _messages, "prompt_completion": _prompt_completion}
    conversation = turns[format](own, data, format)
    _check(conversation)
    return conversation


def first_shape(value: Any, columns: Mapping[str, str]) -> Format | None:
    """Which of the two formats a list of messages is in, by the keys of the first; None if there is none to tell."""
    messages = _listed(value)
    first = messages[0] if isinstance(messages, list) and messages else None
    keys = first.keys() if isinstance(first, Mapping) else ()
    for shape, (role, _) in zip(CHATS, MESSAGE_KEYS, strict=True):
        if columns.get(role, role) in keys:
            return shape
    return None


def _alpaca(own: Mapping[str, Any], data: Data, format: Format) -> tuple[Turn, ...]:
    earlier = own.get("history") or []
    if not isinstance(earlier, list):
        raise ValueError(f"history: expected a list of [instruction, answer] pairs, got {_kind(earlier)}")
    turns = []
    for pair in earlier:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError("history: expected a list of [instruction, answer] pairs")
        turns += [Turn("user", _text(pair[0], "history", data)), Turn("assistant", _text(pair[1], "history", data))]
    user = Turn("user", _text(own["instruction"], "instruction", data), _optional_text(own, "input", data))
    answer = Turn("assistant", _text(own["output"] if "output" in own else own["response"], "output", data))
    return (*_system(own, data), *turns, user, answer)


def _prompt_completion(own: Mapping[str, Any], data: Data, format: Format) -> tuple[Turn, ...]:
    answer = own["completion"] if "completion" in own else own["response"]
    return (Turn("user", _text(own["prompt"], "prompt", data)), Turn("assistant", _text(answer, "completion", data)))


def _messages(own: Mapping[str, Any], data: Data, format: Format) -> tuple[Turn, ...]:
    openai = format == "messages"
    name = next(name for name in CHATS[format] if name in own)
    role_key, text_key = (data.columns.get(key, key) for key in MESSAGE_KEYS[not openai])
    turns = []
    for where, message in _each(own[name], name):
        word, role = _role(message, role_key, where, data, format)
        extra = extra_of(message, (role_key, text_key))
        content = message.get(text_key)
        if word in _CALLS and isinstance(content, str) and (calls := calls_in(content)):
            content, extra = "", extra | {"tool_calls": calls}
        if is_null(content) and extra.get("tool_calls"):
            content = ""
        turns.append(Turn(role, _content(content, f"{where}.{text_key}", data), extra=extra))
    return (*(_system(own, data) if not openai else ()), *turns)


def _each(value: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    value = _listed(value)
    if not isinstance(value, list):
        raise ValueError(f"{name}: expected a list of messages, got {_kind(value)}")
    for i, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise ValueError(f"{name}[{i}]: expected a message (an object), got {_kind(message)}")
        yield f"{name}[{i}]", message


def _listed(value: Any) -> Any:
    """A list of messages, also from its JSON text (in CSV), or from one list for each key (as `datasets` had it)."""
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
    roles = (_OPENAI_ROLES if format == "messages" else _SHAREGPT_ROLES) | data.roles
    word = message.get(key)
    if isinstance(word, str) and word in roles:
        return word, roles[word]
    wrong = f"{where}.{key}: expected one of {', '.join(roles)}, got "
    if isinstance(word, str):
        raise ValueError(f"{wrong}{excerpt(word)}; if it is one of them, say which: data.roles.{word[:40]}=assistant")
    other = first_shape([message], data.columns)
    if other and other != format:
        hint = f"messages of this shape are read with data.format={other}"
    else:
        hint = "if these are called differently: data.columns.{}=..., data.columns.{}=...".format(
            *MESSAGE_KEYS[format != "messages"]
        )
    raise ValueError(f"{wrong}the keys {', '.join(map(excerpt, message)) or '(none)'}; {hint}")


def _content(value: Any, where: str, data: Data) -> str:
    """A text, or the joined text of a list of parts."""
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
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not is_null(value):  # a boolean is an int
        written = json.dumps(whole(value))
        if data.numbers == "text":
            return written
        raise ValueError(
            f"{where}: expected text, got {_kind(value)} ({written}); data.numbers=text reads it as that text"
        )
    advice = "; write it as one text" if isinstance(value, list | Mapping) else ""
    raise ValueError(f"{where}: expected text, got {_kind(value)}{advice}")


def _optional_text(own: Mapping[str, Any], name: str, data: Data) -> str:
    value = own.get(name)
    return "" if is_null(value) else _text(value, name, data)


def _system(own: Mapping[str, Any], data: Data) -> tuple[Turn, ...]:
    text = _optional_text(own, "system", data)
    return (Turn("system", text),) if text else ()


def _check(turns: Sequence[Turn]) -> None:
    if not any(turn.role == "assistant" for turn in turns):
        raise ValueError("expected at least one assistant turn: there is nothing to score or train on")
    if any(turn.role == "system" for turn in turns[1:]):
        raise ValueError("expected one system message, and it first")


def _kind(value: Any) -> str:
    if is_null(value):
        return "null (or nothing)"
    names = {str: "text", list: "a list", dict: "an object", bool: "true or false"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
