"""Finds the positions of the responses in a conversation that a chat template wrote. Works on text, not on tokens.

A template is a program, and none is known here by name. What it writes around a response is found by rendering other
responses in its place. That takes about five renderings a response; for long chats `alike` saves most of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from curate.tokens.alike import Alike, common_prefix, locate_alike
from curate.tokens.prompts import Rendered, Response
from curate.tokens.rendering import Message, Render

FEW = 8
"""Up to this many responses of a conversation are located one by one; of more, `alike` locates most."""


def chat(
    messages: Sequence[Message],
    render: Render,
    *,
    restore: Callable[[str], str] = str,
    is_too_long: Callable[[str, Response], bool] | None = None,
) -> Rendered:
    r"""Render the whole conversation and find the position of every response in it.

    A response is an assistant turn that is not empty (`is_empty`) and that the template shows. It starts where the
    rendering of the earlier turns with a generation prompt ends. It stops before what the template writes after it. If
    the text does not begin with that rendering (the template has no generation prompt, or writes another one there),
    the response starts at the first character that depends on it.

    Some templates rewrite history: they drop the thoughts of earlier turns, or move the system text to the last turn.
    The text is then what the model reads when it writes the last turn, and an earlier response is taken as it stands
    there.

    Args:
        messages: the conversation.
        render: the chat template, as a function (messages, add_generation_prompt) -> text.
        restore: what `render` makes of a message's content, where it does not write the content as it is.
        is_too_long: a function (text, last response) that says whether the conversation is dropped anyway; then only
            its last response is returned.

    >>> def render(messages, add_generation_prompt):
    ...     turns = "".join(f"<{m['role']}> {m['content']}\n" for m in messages)
    ...     return turns + "<assistant> " if add_generation_prompt else turns
    >>> conversation = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2."}]
    >>> rendered = chat(conversation, render)
    >>> rendered.text
    '<user> 1 + 1?\n<assistant> 2.\n'
    >>> [(r.start, r.stop, rendered.text[r.start : r.stop]) for r in rendered.responses]
    [(26, 28, '2.')]

    Raises:
        jinja2.TemplateError: the template refuses the conversation (whatever `render` raises comes through).
    """
    text = render(messages, False)
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant" and not is_empty(message)]

    def locate(i: int) -> Response | None:
        return _response(messages, i, text, render)

    if len(answers) <= FEW:
        found = {i: locate(i) for i in answers}
    elif is_too_long and (last := locate(answers[-1])) and is_too_long(text, last):
        found = {answers[-1]: last}
    else:
        found = locate_alike(Alike(messages, text, render, restore, _surroundings), answers, locate)
    return Rendered(text, tuple(response for response in found.values() if response is not None))


def is_empty(message: Message) -> bool:
    """Return whether an assistant's message says nothing: only white space, and no tool call."""
    return not message["content"].strip() and not message.get("tool_calls")


def _response(messages: Sequence[Message], i: int, text: str, render: Render) -> Response | None:
    """Locate message i in the text of the whole conversation; None where the template does not show it."""
    before, after = messages[:i], messages[i + 1 :]
    whole = render(messages[: i + 1], False) if after else text
    header, tail = _surroundings(before, (), render)
    if text.startswith(whole):
        close = len(whole)
        stop = close - _common_suffix(whole, tail)
    else:  # later turns change how this one is written: what stands around it must be found with them in place
        header, rest = _surroundings(before, after, render)
        if len(header) + len(rest) == len(text) and header + rest == text:
            return None  # the template shows nothing of this turn
        stop = len(text) - _common_suffix(text, rest)
        close = stop + common_prefix(text[stop:], tail)
    return Response(min(_start(before, text, header, render), stop), stop, close)


def _start(before: Sequence[Message], text: str, header: str, render: Render) -> int:
    """Find where a response starts: after the generation prompt, else where the text begins to depend on it."""
    header_length = common_prefix(text, header)
    if not any(message["role"] != "system" for message in before):
        return header_length  # many templates refuse a conversation without a user
    prompt = render(before, True)
    if not text.startswith(prompt):
        return header_length
    if header_length > len(prompt) and render(before, False) == prompt:
        return header_length  # the template knows no generation prompt: its header is no part of the response
    return len(prompt)


def _surroundings(before: Sequence[Message], after: Sequence[Message], render: Render) -> tuple[str, str]:
    """Return what the template writes before and after a response, whatever the response is."""
    # Two responses that share no character: what both renderings have in common is exactly what surrounds them.
    one, two = (render([*before, {"role": "assistant", "content": c}, *after], False) for c in ("x", "Q"))
    prefix = common_prefix(one, two)
    suffix = _common_suffix(one[prefix:], two[prefix:])
    return one[:prefix], one[len(one) - suffix :]


def _common_suffix(a: str, b: str) -> int:
    return common_prefix(a[::-1], b[::-1])
