"""The conversation in one record, for each format; keys are already called by our names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from curate.read.json_text import excerpt, parse_object
from curate.types import Format, Role, Turn

_OPENAI_ROLES: dict[str, Role] = {"developer": "system", **{role: role for role in get_args(Role)}}
_SHAREGPT_ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}
_EXTRA = ("tool_calls", "name", "tool_call_id")


def turns_of(format: Format, own: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The turns of a record. Text is taken as it stands; a missing or null Alpaca `input` is "".

    Raises:
        ValueError: "key: what" for a wrong type, an unknown role, no assistant turn, a late system message.
    """
    turns = {"alpaca": _alpaca, "messages": _openai, "sharegpt": _sharegpt, "prompt_completion": _prompt_completion}
    conversation = turns[format](own)
    _check(conversation)
    return conversation


def _alpaca(own: Mapping[str, Any]) -> tuple[Turn, ...]:
    earlier = own.get("history") or []
    if not isinstance(earlier, list):
        raise ValueError(f"history: expected a list of [instruction, answer] pairs, got {_kind(earlier)}")
    turns = []
    for pair in earlier:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError("history: expected a list of [instruction, answer] pairs")
        turns += [Turn("user", _text(pair[0], "history")), Turn("assistant", _text(pair[1], "history"))]
    user = Turn("user", _text(own["instruction"], "instruction"), _optional_text(own, "input"))
    answer = Turn("assistant", _text(own["output"] if "output" in own else own["response"], "output"))
    return (*_system(own), *turns, user, answer)


def _prompt_completion(own: Mapping[str, Any]) -> tuple[Turn, ...]:
    answer = own["completion"] if "completion" in own else own["response"]
    return (Turn("user", _text(own["prompt"], "prompt")), Turn("assistant", _text(answer, "completion")))


def _sharegpt(own: Mapping[str, Any]) -> tuple[Turn, ...]:
    turns = []
    for where, message in _messages(own["conversations"], "conversations"):
        role = _role(message, "from", _SHAREGPT_ROLES, where)
        turns.append(Turn(role, _text(message.get("value"), f"{where}.value")))
    return (*_system(own), *turns)


def _openai(own: Mapping[str, Any]) -> tuple[Turn, ...]:
    turns = []
    for where, message in _messages(own["messages"], "messages"):
        role = _role(message, "role", _OPENAI_ROLES, where)
        extra = {key: message[key] for key in _EXTRA if message.get(key) is not None}
        content = message.get("content")
        if content is None and extra.get("tool_calls"):
            content = ""
        turns.append(Turn(role, _content(content, f"{where}.content"), extra=extra))
    return tuple(turns)


def _messages(value: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(value, list):
        raise ValueError(f"{name}: expected a list of messages, got {_kind(value)}")
    for i, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise ValueError(f"{name}[{i}]: expected a message (an object), got {_kind(message)}")
        yield f"{name}[{i}]", message


def _role(message: Mapping[str, Any], key: str, roles: Mapping[str, Role], where: str) -> Role:
    word = message.get(key)
    if not isinstance(word, str) or word not in roles:
        got = excerpt(word) if isinstance(word, str) else f"the keys {', '.join(map(excerpt, message))}"
        raise ValueError(f"{where}.{key}: expected one of {', '.join(roles)}, got {got}")
    return roles[word]


def _content(value: Any, where: str) -> str:
    """A text, or the joined text of a list of parts."""
    if not isinstance(value, list):
        return _text(value, where)
    texts = []
    for part in value:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text":
            raise ValueError(f"{where}: only text parts can be scored, got {excerpt(str(kind))}")
        texts.append(_text(part["text"] if part.get("text") is not None else part.get("value"), where))
    return "".join(texts)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: expected text, got {_kind(value)}")
    return value


def _optional_text(own: Mapping[str, Any], name: str) -> str:
    value = own.get(name)
    return "" if value is None else _text(value, name)


def _system(own: Mapping[str, Any]) -> tuple[Turn, ...]:
    text = _optional_text(own, "system")
    return (Turn("system", text),) if text else ()


def tools_of(value: Any) -> tuple[Mapping[str, Any], ...] | None:
    """Tool definitions from a list or its JSON text; None if there are none."""
    if isinstance(value, str) and value.strip():
        try:
            value = parse_object(b'{"tools":%s}' % value.encode())["tools"]
        except ValueError as error:
            raise ValueError(f"tools: expected a list of tools or its JSON text: {error}") from None
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise ValueError(f"tools: expected a list of objects, got {_kind(value)}")
    return tuple(value)


def _check(turns: Sequence[Turn]) -> None:
    if not any(turn.role == "assistant" for turn in turns):
        raise ValueError("expected at least one assistant turn: there is nothing to score or train on")
    if any(turn.role == "system" for turn in turns[1:]):
        raise ValueError("expected one system message, and it first")


def identity(turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]] | None) -> str:
    """SHA-256 of the canonical record: what the model sees, in one spelling."""
    messages = []
    for turn in turns:
        message: dict[str, Any] = {"role": turn.role, "content": turn.content}
        message |= {"input": turn.input} if turn.input else {}
        message |= {"extra": turn.extra} if turn.extra else {}
        messages.append(message)
    try:
        text = json.dumps({"turns": messages, "tools": tools}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except TypeError:
        raise ValueError("tools or tool calls hold something that is not JSON") from None
    return hashlib.sha256(text.encode()).hexdigest()


def _kind(value: Any) -> str:
    names = {type(None): "null (or nothing)", str: "text", list: "a list", dict: "an object", bool: "true or false"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
