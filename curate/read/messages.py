"""Reads what a message holds beside its text: tool calls, tools, and all else that a template may read.

The same records must be the same examples, whether they come from JSONL or from Parquet. So everything is brought to
one form, and two things are lost:

* Keys that are null are dropped. In Arrow (so in Parquet, and in `datasets`) every object of a column has the keys of
  all others, as null, and these cannot be told from nulls that were written. A `"default": null` in a tool's schema is
  lost with them.
* Whole numbers have no decimal point: 100.0 is 100, as in RFC 8785. If one number of an Arrow column is a float, all
  are.
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
    """Return a value without the null keys of its objects, at any depth. Nulls in lists stay.

    NaN counts as null, because pandas writes it for a missing value. Dates become ISO 8601 text, since JSON has no
    dates; a moment at midnight is a date, because `datasets` and pandas make moments of the text 2024-01-02. Floats
    that are whole numbers become integers: see `int_if_whole`. Keys are text.

    >>> without_nulls({"a": None, "b": [{"c": None}, None], "n": 2.0})
    {'b': [{}, None], 'n': 2}
    """
    if isinstance(value, Mapping):
        return {str(key): without_nulls(inner) for key, inner in value.items() if not is_null(inner)}
    if isinstance(value, list):
        return [None if is_null(inner) else without_nulls(inner) for inner in value]
    if isinstance(value, datetime.datetime) and value.tzinfo is None and value.time() == datetime.time.min:
        value = value.date()
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else int_if_whole(value)


def int_if_whole(value: Any) -> Any:
    """Return a float that is a whole number as an integer, and any other value as it is.

    Floats of 2**53 and more stay: they cannot hold every whole number, so it is unknown which one was meant. -0.0 stays
    too, as an integer has no sign of zero.

    >>> int_if_whole(100.0), int_if_whole(12.5), int_if_whole("1.0")
    (100, 12.5, '1.0')
    """
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return int(value) if is_whole and str(value) != "-0.0" else value


def is_null(value: Any) -> bool:
    """Say whether a value is null, or NaN, which pandas writes for a missing value."""
    return value is None or (isinstance(value, float) and value != value)


def extra_of(message: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """Return all fields of a message but the `known` ones, with its tool calls in one form.

    That form is `{"type": "function", "function": {"name": ..., "arguments": {...}}}`. Other forms are brought to it:
    arguments as JSON text (OpenAI's API), a call that is only its name and arguments, and `function_call`, which was
    OpenAI's older key.
    """
    extra: dict[str, Any] = without_nulls({key: value for key, value in message.items() if key not in known})
    calls = extra.get("tool_calls")
    if isinstance(calls, str):  # as in a cell of a CSV file
        calls = parsed(calls)
    if calls is None and isinstance(extra.get("function_call"), dict):
        calls = [extra.pop("function_call")]
    if isinstance(calls, list):
        extra["tool_calls"] = [_call(call) for call in calls]
    return extra


def calls_in(text: str) -> list[dict[str, Any]] | None:
    """Return the tool calls in the text of a ShareGPT `function_call` turn, or None if it is other text.

    The text of a call is JSON: an object with `name` and `arguments`, or a list of such objects. LLaMA-Factory reads
    these turns in the same way. Every chat template writes calls in a form of its own, so it must be given calls and
    not their text.

    >>> calls_in('{"name": "add", "arguments": {"a": 1}}')
    [{'type': 'function', 'function': {'name': 'add', 'arguments': {'a': 1}}}]
    """
    value = parsed(text)
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(call, dict) and {"name", "arguments"} <= call.keys() for call in calls):
        return None
    return [_call(without_nulls(call)) for call in calls]


def tools_of(value: Any) -> tuple[Mapping[str, Any], ...] | None:
    """Return tool definitions from a list or its JSON text, with parameters as objects; None if there are none.

    Raises:
        ValueError: "tools: what" for any other value.
    """
    if isinstance(value, str) and value.strip():
        try:
            value = parse(value.encode())
        except ValueError as error:
            raise ValueError(f"tools: expected a list of tools or its JSON text: {error}") from None
    if is_null(value) or not value:
        return None
    tools = [parsed(tool) for tool in value] if isinstance(value, list) else value
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise ValueError("tools: expected a list of objects")
    return tuple(_tool(without_nulls(tool)) for tool in tools)


def identity(
    turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]] | None, variables: Mapping[str, Any] | None = None
) -> str:
    """Return the id of an example: SHA-256 (hexadecimal) of its turns, tools and variables as canonical JSON.

    Raises:
        ValueError: turns or tools hold something that is not JSON.
    """
    messages = []
    for turn in turns:
        message: dict[str, Any] = {"role": turn.role, "content": turn.content}
        # Empty parts are left out, so that an empty input and a missing one give the same id.
        message |= {"input": turn.input} if turn.input else {}
        message |= {"extra": turn.extra} if turn.extra else {}
        messages.append(message)
    record: dict[str, Any] = {"turns": messages, "tools": tools}
    record |= {"variables": variables} if variables else {}
    try:
        # Sorted keys, no blanks: the same example always gives the same text, and so the same id.
        text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("tools or messages hold something that is not JSON") from None
    return hashlib.sha256(text.encode()).hexdigest()


def _call(call: Any) -> Any:
    """Return a tool call in the form that `extra_of` describes; what is no call stays as it is."""
    if not isinstance(call, dict):
        return call
    if "function" not in call and "name" in call:
        function = {key: call[key] for key in ("name", "arguments") if key in call}
        rest = {key: value for key, value in call.items() if key not in function}
        call = {"type": "function", **rest, "function": function}
    function = call.get("function")
    if not isinstance(function, dict):
        return call
    if "name" in function:  # a call without arguments has an empty object: Arrow would have made the key null
        function = function if "arguments" in function else {**function, "arguments": {}}
    return {"type": "function", **call, "function": _with_object(function, "arguments")}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if isinstance(function, dict):
        return tool | {"function": _with_object(function, "parameters")}
    return _with_object(tool, "parameters")


def _with_object(function: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a function with the JSON text under `key` replaced by its object, if it is one.

    Some data sets encode arguments twice, so the JSON text of a JSON text is understood too.
    """
    text = function.get(key)
    if not isinstance(text, str):
        return function
    value = parsed(parsed(text)) if text.strip() else {}
    return function | {key: without_nulls(value)} if isinstance(value, dict) else function


def parsed(value: Any) -> Any:
    """Return the value of a JSON text; any other value, and a text that is not JSON, as it is."""
    if not isinstance(value, str):
        return value
    try:
        return parse(value.encode())
    except ValueError:
        return value
