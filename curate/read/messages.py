"""What a message holds beside its text, in one spelling: tool calls, tools, and whatever else a template may read.

Arrow (so Parquet, and every `datasets` data set) gives each object the keys of all others, as null. Nobody can tell
these nulls from written ones, so a null is no key here, whatever file it came from: that JSONL and Parquet of the
same records are the same examples weighs more than a `"default": null` in a tool's schema. Arrow also makes all numbers
of a column floats where one of them is, so a whole number has no point here: 100.0 is 100 (as in RFC 8785).
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from curate.read.json_text import parse
from curate.types import Turn


def without_nulls(value: Any) -> Any:
    """Return a value without the null keys of its objects, at any depth; nulls in lists stay.

    A NaN is a null (pandas writes one for the other). Dates become ISO 8601 text, as JSON has them, and whole numbers
    lose their point (see `whole`).

    >>> without_nulls({"a": None, "b": [{"c": None}, None], "n": 2.0})
    {'b': [{}, None], 'n': 2}
    """
    if isinstance(value, Mapping):
        return {key: without_nulls(inner) for key, inner in value.items() if not is_null(inner)}
    if isinstance(value, list):
        return [None if is_null(inner) else without_nulls(inner) for inner in value]
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else whole(value)


def whole(value: Any) -> Any:
    """Return a float that is a whole number as an integer, where floats tell all of these apart; all else as it is.

    >>> whole(100.0), whole(12.5), whole("1.0")
    (100, 12.5, '1.0')
    """
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return int(value) if is_whole and str(value) != "-0.0" else value


def is_null(value: Any) -> bool:
    """Say whether a value is null, or the NaN that stands for it."""
    return value is None or (isinstance(value, float) and value != value)


def extra_of(message: Mapping[str, Any], own: Sequence[str]) -> dict[str, Any]:
    """All that a message says beside the keys `own`, with its tool calls in one spelling.

    A call is `{"type": "function", "function": {"name", "arguments"}}` with arguments as an object, also where the
    arguments came as JSON text (OpenAI's form), the call without `function` around it, or as `function_call`.
    """
    extra: dict[str, Any] = without_nulls({key: value for key, value in message.items() if key not in own})
    calls = extra.get("tool_calls")
    if isinstance(calls, str):
        calls = _parsed(calls)
    if calls is None and isinstance(extra.get("function_call"), dict):
        calls = [extra.pop("function_call")]
    if isinstance(calls, list):
        extra["tool_calls"] = [_call(call) for call in calls]
    return extra


def calls_in(text: str) -> list[dict[str, Any]] | None:
    """The tool calls that ShareGPT's `function_call` turns are: an object, or a list, of name and arguments.

    None for any other text, which then is the turn's content. LLaMA-Factory reads them in the same way, and each chat
    template has a form of its own for calls, so they must not reach it as plain text.
    """
    value = _parsed(text)
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(call, dict) and {"name", "arguments"} <= call.keys() for call in calls):
        return None
    return [_call(without_nulls(call)) for call in calls]


def tools_of(value: Any) -> tuple[Mapping[str, Any], ...] | None:
    """Tool definitions from a list or its JSON text, their parameters as objects; None if there are none.

    Raises:
        ValueError: "tools: what" for anything else.
    """
    if isinstance(value, str) and value.strip():
        try:
            value = parse(value.encode())
        except ValueError as error:
            raise ValueError(f"tools: expected a list of tools or its JSON text: {error}") from None
    if is_null(value) or not value:
        return None
    tools = [_parsed(tool) for tool in value] if isinstance(value, list) else value
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise ValueError("tools: expected a list of objects")
    return tuple(_tool(without_nulls(tool)) for tool in tools)


def identity(turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]] | None) -> str:
    """SHA-256 of the canonical record: what the model sees, in one spelling.

    Raises:
        ValueError: something in it is not JSON.
    """
    messages = []
    for turn in turns:
        message: dict[str, Any] = {"role": turn.role, "content": turn.content}
        message |= {"input": turn.input} if turn.input else {}
        message |= {"extra": turn.extra} if turn.extra else {}
        messages.append(message)
    try:
        text = json.dumps({"turns": messages, "tools": tools}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("tools or messages hold something that is not JSON") from None
    return hashlib.sha256(text.encode()).hexdigest()


def _call(call: Any) -> Any:
    if not isinstance(call, dict):
        return call
    if "function" not in call and "name" in call:
        function = {key: call[key] for key in ("name", "arguments") if key in call}
        rest = {key: value for key, value in call.items() if key not in function}
        call = {"type": "function", **rest, "function": function}
    function = call.get("function")
    if not isinstance(function, dict):
        return call
    if "name" in function:  # a call without arguments, however that is said
        function = function if "arguments" in function else {**function, "arguments": {}}
    return {"type": "function", **call, "function": _with_object(function, "arguments")}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if isinstance(function, dict):
        return tool | {"function": _with_object(function, "parameters")}
    return _with_object(tool, "parameters")


def _with_object(function: dict[str, Any], key: str) -> dict[str, Any]:
    """A function whose `key` is an object, where it was the JSON text of one, or the JSON text of that text."""
    text = function.get(key)
    if not isinstance(text, str):
        return function
    value = _parsed(_parsed(text)) if text.strip() else {}
    return function | {key: without_nulls(value)} if isinstance(value, dict) else function


def _parsed(value: Any) -> Any:
    """What a JSON text says; any other value, and a text that is not JSON, as it is."""
    if not isinstance(value, str):
        return value
    try:
        return parse(value.encode())
    except ValueError:
        return value
