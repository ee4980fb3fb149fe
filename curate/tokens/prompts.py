"""How a conversation becomes text, and where in that text the responses stand. Text only: no token is seen here.

`alpaca` and `plain` are written out below. `chat` asks the tokenizer's own template, which is a program: what it wrote
around a response is found by rendering other responses in its place, never by knowing the template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from curate.types import CurateError, Example, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template = Literal["chat", "alpaca", "plain"]
Message = Mapping[str, Any]
Render = Callable[[Sequence[Message], bool], str]
"""(messages, add_generation_prompt) -> text; raises what the template raises."""

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
    """Whether any assistant turn has a character that is not white space, or a tool call."""
    return any(t.role == "assistant" and (t.content.strip() or t.extra.get("tool_calls")) for t in example.turns)


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
            pieces += [("\n\n### Response:\n", False), (turn.content, True)]
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
    return _join([(text or "", False), *((_content(turn), turn.role == "assistant") for turn in turns)])


def messages_of(example: Example, *, system: str | None = None) -> list[dict[str, Any]]:
    """The messages a chat template is given; `system` opens examples without a system turn."""
    messages = [{**turn.extra, "role": turn.role, "content": _content(turn)} for turn in example.turns]
    if system is None or (example.turns and example.turns[0].role == "system"):
        return messages
    return [{"role": "system", "content": system}, *messages]


def chat(messages: Sequence[Message], render: Render) -> Rendered:
    """The whole conversation as the template renders it, with every assistant turn that can be seen in it.

    A response starts where the earlier turns with a generation prompt end; it stops before what the template writes
    after it. Where the rendering has no such prompt (the template knows none, or writes something else there), it
    starts where the rendering begins to depend on the response.

    Templates that rewrite history (drop earlier thoughts, move the system text to the last turn) are followed: the
    text is what the model reads when it writes the last turn, and an earlier response is taken as it stands there.

    Raises:
        jinja2.TemplateError: the template refuses the conversation (whatever `render` raises comes through).
    """
    text = render(messages, False)
    found = (_response(messages, i, text, render) for i, m in enumerate(messages) if m["role"] == "assistant")
    return Rendered(text, tuple(response for response in found if response is not None))


def _response(messages: Sequence[Message], i: int, text: str, render: Render) -> Response | None:
    before, after = messages[:i], messages[i + 1 :]
    whole = render(messages[: i + 1], False) if after else text
    header, tail = _surroundings(before, (), render)
    if text.startswith(whole):
        close = len(whole)
        stop = close - _common_suffix(whole, tail)
    else:
        header, rest = _surroundings(before, after, render)
        if len(header) + len(rest) == len(text) and header + rest == text:
            return None  # the template shows nothing of this turn
        stop = len(text) - _common_suffix(text, rest)
        close = stop + _common_prefix(text[stop:], tail)
    return Response(min(_start(before, text, header, render), stop), stop, close)


def _start(before: Sequence[Message], text: str, header: str, render: Render) -> int:
    header_length = _common_prefix(text, header)
    if not any(message["role"] != "system" for message in before):
        return header_length  # many templates refuse a conversation without a user
    prompt = render(before, True)
    if not text.startswith(prompt):
        return header_length
    if header_length > len(prompt) and render(before, False) == prompt:
        return header_length  # the template knows no generation prompt: its header is no part of the response
    return len(prompt)


def _surroundings(before: Sequence[Message], after: Sequence[Message], render: Render) -> tuple[str, str]:
    """What the template writes before and after a response, whatever the response is.

    The stand-ins share no character, so exactly the surroundings are common to both renderings.
    """
    one, two = (render([*before, {"role": "assistant", "content": c}, *after], False) for c in ("x", "Q"))
    prefix = _common_prefix(one, two)
    suffix = _common_suffix(one[prefix:], two[prefix:])
    return one[:prefix], one[len(one) - suffix :]


def _common_prefix(a: str, b: str) -> int:
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle - 1)
    return low


def _common_suffix(a: str, b: str) -> int:
    return _common_prefix(a[::-1], b[::-1])


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
