"""Writes a conversation as text, with the positions of the responses in it. Works on text, not on tokens.

`alpaca` and `plain` are below; for the tokenizer's own chat template see curate.tokens.chat. An empty assistant turn is
no response: a model that is trained on it learns to answer nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from curate.types import CurateError, Example, Template, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Word for word from Stanford Alpaca: models that were tuned on it know these very sentences.
_REQUEST = "Write a response that appropriately completes the request."
PREAMBLE = f"Below is an instruction that describes a task. {_REQUEST}"
PREAMBLE_WITH_INPUT = (
    f"Below is an instruction that describes a task, paired with an input that provides further context. {_REQUEST}"
)


@dataclass(frozen=True, slots=True)
class Response:
    """Character positions of one response in a rendered text.

    start, stop  the response, text[start:stop]: this is what is scored
    close        where the words that the template writes after the response end (stop, if there are none)
    """

    start: int
    stop: int
    close: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as one text, with its responses in order."""

    text: str
    responses: tuple[Response, ...]


def resolve_template(template: str, tokenizer: PreTrainedTokenizerBase) -> Template:
    """Return the template to use: auto means the tokenizer's chat template where it has one, else alpaca.

    Raises:
        CurateError: an unknown template, or chat without a chat template.
    """
    has_chat = bool(tokenizer.chat_template)
    if template == "auto":
        return "chat" if has_chat else "alpaca"
    if template == "chat" and not has_chat:
        raise CurateError("prompt.template is chat, but the tokenizer has no chat template; use alpaca or plain")
    for known in get_args(Template):
        if template == known:
            return known  # type: ignore[no-any-return]  # get_args is untyped
    raise CurateError(f"prompt.template is auto, {', '.join(get_args(Template))}, got {template!r}")


def has_response(example: Example) -> bool:
    """Return whether any assistant turn has a character that is not white space, or a tool call."""
    return any(turn.role == "assistant" and not _is_empty(turn) for turn in example.turns)


def has_empty_turn(example: Example) -> bool:
    """Return whether any assistant turn is empty: no token of it is scored, and its end token is not trained on."""
    return any(turn.role == "assistant" and _is_empty(turn) for turn in example.turns)


def alpaca(example: Example, *, system: str | None = None) -> Rendered | None:
    r"""Write an example in the wording of Stanford Alpaca; None where tools are used (they need a chat template).

    An instruction with one response gives exactly the original prompt. A system turn (or `system`, for an example
    without one) replaces the opening sentence. Further user and assistant turns add blocks of their own. A blank line
    stands between blocks.

    Source: https://github.com/tatsu-lab/stanford_alpaca, train.py.

    >>> example = Example(0, "", (Turn("system", "Be short."), Turn("user", "1 + 1?"), Turn("assistant", "2.")))
    >>> rendered = alpaca(example)
    >>> rendered.text
    'Be short.\n\n### Instruction:\n1 + 1?\n\n### Response:\n2.'
    >>> [rendered.text[r.start : r.stop] for r in rendered.responses]
    ['2.']
    """
    if _uses_tools(example):
        return None
    text, turns = _split_system(example, system)
    opening = text or (PREAMBLE_WITH_INPUT if any(turn.input for turn in turns) else PREAMBLE)
    pieces = [(opening, False)]  # (text, whether it is a response)
    for turn in turns:
        if turn.role == "assistant":
            pieces += [("\n\n### Response:\n", False), (turn.content, not _is_empty(turn))]
        else:
            given = f"\n\n### Input:\n{turn.input}" if turn.input else ""
            pieces.append((f"\n\n### Instruction:\n{turn.content}{given}", False))
    return _join(pieces)


def plain(example: Example, *, system: str | None = None) -> Rendered | None:
    """Join the contents of all turns as they are, with nothing between; None where tools are used.

    An Alpaca input follows its instruction after a blank line.
    """
    if _uses_tools(example):
        return None
    text, turns = _split_system(example, system)
    answers = ((_content(turn), turn.role == "assistant" and not _is_empty(turn)) for turn in turns)
    return _join([(text or "", False), *answers])


def messages_of(example: Example, *, system: str | None = None) -> list[dict[str, Any]]:
    """Return the messages that a chat template is given; `system` is put before an example without a system turn."""
    # `extra` first: a record's own key of the same name must not replace role or content.
    messages = [{**turn.extra, "role": turn.role, "content": _content(turn)} for turn in example.turns]
    if system is None or (example.turns and example.turns[0].role == "system"):
        return messages
    return [{"role": "system", "content": system}, *messages]


def beside_messages(example: Example) -> dict[str, Any]:
    """Return what a chat template is given beside the messages, by name: tools, documents, variables."""
    return {**example.variables, **({"tools": list(example.tools)} if example.tools else {})}


def _is_empty(turn: Turn) -> bool:
    # A tool call without words is a response: the template writes the call.
    return not turn.content.strip() and not turn.extra.get("tool_calls")


def _uses_tools(example: Example) -> bool:
    return bool(example.tools) or any(turn.role == "tool" or turn.extra.get("tool_calls") for turn in example.turns)


def _split_system(example: Example, system: str | None) -> tuple[str | None, tuple[Turn, ...]]:
    if example.turns and example.turns[0].role == "system":
        return example.turns[0].content, example.turns[1:]
    return system, example.turns


def _content(turn: Turn) -> str:
    return f"{turn.content}\n\n{turn.input}" if turn.input else turn.content


def _join(pieces: Iterable[tuple[str, bool]]) -> Rendered:
    """Join (text, is it a response) pieces into one text with the positions of its responses."""
    texts, responses, end = [], [], 0
    for text, is_response in pieces:
        start, end = end, end + len(text)
        texts.append(text)
        if is_response:
            responses.append(Response(start, end, end))
    return Rendered("".join(texts), tuple(responses))
