"""Finds what a chat template neither writes nor refuses: a record may hold it, and a model never sees it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from curate.tokens.rendering import REFUSALS, Message, RenderRecord
from curate.tokens.tool_calls import with_json_arguments
from curate.types import Example

USERS, SYSTEM, TOOLS, CALLS, REPLIES = (
    "messages of users",
    "system messages",
    "tools that a record offers",
    "tool calls",
    "messages of the role tool",
)
_RARE = "zyx81"  # stands in no template


def left_out(render: RenderRecord) -> list[str]:
    """Return which kinds of content the template does not write, each in words that follow "does not write".

    Each kind is rendered with a word in it that stands nowhere else.
    """
    user, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    calling: Sequence[Message] = [user, {"role": "assistant", "content": "", "tool_calls": [_call(f"call_{_RARE}")]}]
    tool = {"type": "function", "function": {"name": _RARE, "description": "d", "parameters": {"type": "object"}}}
    called = {"role": "assistant", "content": "", "tool_calls": [_call("f")]}
    replying: Sequence[Message] = [user, called, {"role": "tool", "content": _RARE, "name": "f"}, answer]
    plain: Sequence[Message] = [user, answer]
    probes: dict[str, list[tuple[Sequence[Message], Mapping[str, Any]]]] = {
        # A template that reads a content as a list of parts only writes nothing of a text.
        USERS: [([{"role": "user", "content": _RARE}, answer], {})],
        SYSTEM: [([{"role": "system", "content": _RARE}, *plain], {})],
        TOOLS: [(plain, {"tools": [tool]})],
        "documents": [(plain, {"documents": [{"title": _RARE, "text": _RARE, "content": _RARE}]})],
        CALLS: [(calling, {}), (with_json_arguments(calling), {})],
        REPLIES: [(replying, {}), (with_json_arguments(replying), {})],
        "thoughts (reasoning_content)": [
            ([user, {**answer, name: _RARE}], {}) for name in ("reasoning_content", "reasoning", "thinking")
        ],
    }
    kinds = []
    for kind, tries in probes.items():
        texts = [text for messages, beside in tries if (text := _text(render, messages, beside)) is not None]
        if texts and not any(_RARE in text.lower() for text in texts):
            kinds.append(kind)
    return kinds


def left_out_notes(example: Example, system: str | None, kinds: Collection[str]) -> list[str]:
    """Say which of its contents a record is scored without.

    Documents and thoughts have notes of their own: see `variables` and `thoughts`.

    Args:
        example: a record.
        system: system text for a record without one (prompt.system).
        kinds: what the template does not write (`left_out`).

    >>> from curate.types import Turn
    >>> left_out_notes(Example(0, "", (Turn("system", "Be short."), Turn("user", "q"))), None, [SYSTEM])
    ['the template does not write system messages: it is scored and trained on without them']
    """
    roles = {turn.role for turn in example.turns}
    held = {
        USERS: "user" in roles,
        SYSTEM: "system" in roles or bool(system),
        TOOLS: bool(example.tools),
        CALLS: any(turn.role == "assistant" and turn.extra.get("tool_calls") for turn in example.turns),
        REPLIES: "tool" in roles,
    }
    return [
        f"the template does not write {kind}: it is scored and trained on without them"
        for kind, is_held in held.items()
        if is_held and kind in kinds
    ]


def _call(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": {"x": 1}}}


def _text(render: RenderRecord, messages: Sequence[Message], beside: Mapping[str, Any]) -> str | None:
    """Return a conversation as the template writes it; None if the template refuses it."""
    try:
        return render(messages, beside, False)
    except REFUSALS:
        return None
