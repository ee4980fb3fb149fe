"""Writes the arguments of tool calls as objects or as JSON text, whichever a chat template can write.

Most templates take objects and write them as JSON. Some (DeepSeek's) join them to a text, and need JSON text. The
reader makes objects of both, so a call gives the same tokens whichever its record had.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from curate.tokens.rendering import Message


def with_json_arguments(messages: Sequence[Message]) -> list[Message]:
    """Write the arguments of every tool call as JSON text, spaced as a template's own `tojson` does."""
    return [
        {**message, "tool_calls": [_spelled(call) for call in calls]} if (calls := _calls(message)) else message
        for message in messages
    ]


def prints_python(messages: Sequence[Message], text: str) -> bool:
    """Return whether a rendering shows the arguments of a tool call as Python prints an object: {'a': 1}.

    A template does so where it writes an object in place of a text. The same words in a message's content do not count.
    """
    # Arguments that Python and JSON write alike ({}) tell nothing.
    spellings = {str(a) for message in messages for a in _arguments(message) if str(a) != _json(a)}
    said = [message["content"] for message in messages]
    return any(text.count(words) > sum(content.count(words) for content in said) for words in spellings)


def has_arguments(messages: Sequence[Message]) -> bool:
    """Return whether any tool call has its arguments as an object."""
    return any(True for message in messages for _ in _arguments(message))


def _calls(message: Message) -> Sequence[Any]:
    calls = message.get("tool_calls")
    return calls if isinstance(calls, list | tuple) else ()


def _arguments(message: Message) -> Iterator[Mapping[str, Any]]:
    for call in _calls(message):
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if isinstance(function, Mapping) and isinstance(function.get("arguments"), Mapping):
            yield function["arguments"]


def _spelled(call: Any) -> Any:
    """Return a tool call with its arguments as JSON text; a call without such arguments as it is."""
    if not isinstance(call, Mapping):
        return call
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _spelled(call["function"])}
    if isinstance(call.get("arguments"), Mapping):
        return {**call, "arguments": _json(call["arguments"])}
    return call


def _json(arguments: Mapping[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False)
