"""Turns an example into its text, or into the reason why it cannot be scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from curate.tokens.chat import chat
from curate.tokens.control import Codec, disarm, markup_in_answers, write_names
from curate.tokens.encode import surely_exceeds
from curate.tokens.left_out import left_out_notes
from curate.tokens.prompts import (
    Rendered,
    Response,
    alpaca,
    beside_messages,
    has_empty_turn,
    has_response,
    messages_of,
    plain,
)
from curate.tokens.rendering import REFUSALS, Message, RenderRecord, refusal
from curate.tokens.thoughts import thought_notes
from curate.tokens.tool_calls import has_arguments, prints_python, with_json_arguments
from curate.tokens.variables import variable_notes
from curate.types import Example, Status, Template, Tokens

EMPTY_TURN = "an assistant turn among others is empty: nothing of it is scored or trained on"
NO_ANSWER = "no assistant turn says anything"
NEEDS_CHAT = "tools are used, and only a chat template has a place for them"


@dataclass(frozen=True, slots=True)
class Wording:
    """How examples are written as text; the same for all examples of a run.

    codec     the tokenizer's backend, with its control tokens
    template  chat, alpaca or plain
    system    system text for examples without one
    render    the chat template
    reads     variables that it reads beside the messages (`variables_read`); none under alpaca and plain
    omits     what it does not write (`left_out`); none under alpaca and plain
    limit     most tokens of a text, where a longer one is dropped; None where it is trimmed
    """

    codec: Codec
    template: Template
    system: str | None
    render: RenderRecord
    reads: frozenset[str]
    omits: frozenset[str]
    limit: int | None


@dataclass(frozen=True, slots=True)
class Prompt:
    """An example as text, to be encoded.

    control_hits  control tokens in the record's own text
    notes         what a person should know about the record (`Tokens.notes`)
    """

    example: Example
    rendered: Rendered
    control_hits: int
    notes: tuple[str, ...]


def too_long_reason(max_length: int) -> str:
    """Return the reason for a record that is too long."""
    return f"longer than {max_length} tokens (prompt.max_length)"


def prepare(example: Example, wording: Wording, max_length: int) -> Prompt | Tokens:
    """Write an example as text; one that cannot be scored is returned as Tokens, with status and reason."""
    if example.problem is not None:
        return unscored(example, "bad_record", example.problem)
    if not has_response(example):
        return unscored(example, "empty_response", NO_ANSWER)
    notes = [EMPTY_TURN] if has_empty_turn(example) else []
    notes += variable_notes(example, wording.reads) + left_out_notes(example, wording.system, wording.omits)
    if wording.template == "chat":
        try:
            rendered, hits, markup = _write_chat(example, wording)
        except REFUSALS as error:
            return unscored(example, "unscorable", f"the chat template refuses it: {refusal(error)}")
        notes += [_markup_note(markup)] if markup else thought_notes(messages_of(example), rendered.text)
    else:
        written = (alpaca if wording.template == "alpaca" else plain)(example, system=wording.system)
        if written is None:
            return unscored(example, "unscorable", NEEDS_CHAT)
        rendered, hits = written, len(wording.codec.control.findall(written.text))
        notes += thought_notes(messages_of(example), rendered.text)
    # A very long text is refused before it is encoded: encoding megabytes takes seconds and gigabytes.
    if wording.limit is not None and surely_exceeds(rendered.text, rendered.responses, wording.codec, wording.limit):
        return unscored(example, "too_long", too_long_reason(max_length), control_hits=hits)
    return Prompt(example, rendered, hits, tuple(notes))


def unscored(
    example: Example, status: Status, reason: str, *, truncated: bool = False, control_hits: int = 0
) -> Tokens:
    """Return the Tokens of an example that is not scored: no ids, but a status and a reason."""
    nothing = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.uint8)
    return Tokens(example.row, example.id, status, truncated, *nothing, control_hits, reason)


def _write_chat(example: Example, wording: Wording) -> tuple[Rendered, int, list[str]]:
    """Render an example; also return how many control tokens its text held, and those that may be meant as markup."""
    codec = wording.codec
    own = messages_of(example, system=wording.system)
    data, originals, hits = disarm({"messages": own, "beside": beside_messages(example)}, codec)

    def render(messages: Sequence[Message], add_generation_prompt: bool) -> str:
        return write_names(wording.render(messages, data["beside"], add_generation_prompt), codec, originals)

    def restore(content: str) -> str:
        return content.translate(originals)

    def is_too_long(text: str, last: Response) -> bool:
        return wording.limit is not None and surely_exceeds(text, (last,), codec, wording.limit)

    def write(messages: Sequence[Message]) -> Rendered:
        return chat(messages, render, restore=restore, is_too_long=is_too_long)

    # The markup is looked for in the messages as the person wrote them: in `data` it is replaced already.
    rendered = _write_either(data["messages"], write)
    return rendered, hits, markup_in_answers(own, codec) if hits else []


def _write_either(messages: Sequence[Message], write: Callable[[Sequence[Message]], Rendered]) -> Rendered:
    """Render with the arguments of tool calls as objects, or as JSON text where the template cannot write objects.

    A template that cannot write objects refuses them, or shows them as Python prints them.
    """
    if not has_arguments(messages):
        return write(messages)
    try:
        rendered = write(messages)
    except REFUSALS as error:
        try:
            return write(with_json_arguments(messages))
        except REFUSALS:
            raise error from None  # neither form helps, so the form is not what it refuses
    return write(with_json_arguments(messages)) if prints_python(messages, rendered.text) else rendered


def _markup_note(markup: Sequence[str]) -> str:
    setting = f"model.allow_tokens={json.dumps(markup, ensure_ascii=False)}"
    return (
        f"answers hold {', '.join(markup)} as ordinary text, not as control tokens; to let them act, give '{setting}'"
    )
