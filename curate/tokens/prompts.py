"""How a conversation becomes text, and where in that text the responses stand. Text only: no token is seen here.

`alpaca` and `plain` are written out below; for the tokenizer's own chat template see curate.tokens.chat. An assistant
turn that says nothing is no response: a model that is trained on it learns to answer nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from curate.types import CurateError, Example, Template, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_REQUEST = "Write a response that appropriately completes the request."
PREAMBLE = f"Below is an instruction that describes a task. {_REQUEST}"
PREAMBLE_WITH_INPUT = (
    f"Below is an instruction that describes a task, paired with an input that provides further context. {_REQUEST}"
)


@dataclass(frozen=True, slots=True)
class Response:
    """Character positions of one response in a rendered text.

    start, stop  the response: what is scored
    close        where the template's words after the response end (stop, if there are none)
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
    """The template that is used: auto is the tokenizer's chat template where it has one, else alpaca.

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
    """Tell whether any assistant turn has a character that is not white space, or a tool call."""
    return any(turn.role == "assistant" and not _is_empty(turn) for turn in example.turns)


def has_empty_turn(example: Example) -> bool:
    """Tell whether any assistant turn says nothing; no token of it is scored, and its end token is not trained on."""
    return any(turn.role == "assistant" and _is_empty(turn) for turn in example.turns)


def alpaca(example: Example, *, system: str | None = None) -> Rendered | None:
    r"""The example in the wording of Stanford Alpaca; None where tools are used (they need a chat template).

    One turn is exactly the original prompt. A system turn (or `system`, for examples that have none) stands in place
    of the opening sentence; every further user or assistant turn adds its own blocks; blocks are joined by a blank
    line. Source: https://github.com/tatsu-lab/stanford_alpaca, train.py.
    """
    if _uses_tools(example):
        return None
    text, turns = _split_system(example, system)
    opening = text or (PREAMBLE_WITH_INPUT if any(turn.input for turn in turns) else PREAMBLE)
    pieces = [(opening, False)]
    for turn in turns:
        if turn.role == "assistant":
            pieces += [("\n\n### Response:\n", False), (turn.content, not _is_empty(turn))]
        else:
            given = f"\n\n### Input:\n{turn.input}" if turn.input else ""
            pieces.append((f"\n\n### Instruction:\n{turn.content}{given}", False))
    return _join(pieces)


def plain(example: Example, *, system: str | None = None) -> Rendered | None:
    """The contents of all turns one after the other as they stand; None where tools are used.

    An Alpaca input follows its instruction after a blank line.
    """
    if _uses_tools(example):
        return None
    text, turns = _split_system(example, system)
    answers = ((_content(turn), turn.role == "assistant" and not _is_empty(turn)) for turn in turns)
    return _join([(text or "", False), *answers])


def messages_of(example: Example, *, system: str | None = None) -> list[dict[str, Any]]:
    """The messages a chat template is given; `system` opens examples without a system turn."""
    messages = [{**turn.extra, "role": turn.role, "content": _content(turn)} for turn in example.turns]
    if system is None or (example.turns and example.turns[0].role == "system"):
        return messages
    return [{"role": "system", "content": system}, *messages]


def _is_empty(turn: Turn) -> bool:
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
    texts, responses, end = [], [], 0
    for text, is_response in pieces:
        start, end = end, end + len(text)
        texts.append(text)
        if is_response:
            responses.append(Response(start, end, end))
    return Rendered("".join(texts), tuple(responses))
