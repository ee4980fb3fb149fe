"""Thoughts in answers that a rendering leaves out, or shows in a form that no such model was trained on."""

from __future__ import annotations

from collections.abc import Sequence

from curate.tokens.rendering import Message

_FIELDS = ("reasoning_content", "reasoning", "thinking")  # of a message, as the makers of templates call them
_LOST = "it is neither scored nor trained on"


def thought_notes(messages: Sequence[Message], text: str) -> list[str]:
    """Say what became of the thoughts of the last answer, where a rendering does not show them as they are.

    Thoughts of earlier answers are dropped by many templates on purpose, and no note is made of them.

    >>> thought_notes([{"role": "assistant", "content": "4", "reasoning_content": "2+2"}], "User: 2+2? Bot: 4")
    []
    >>> thought_notes([{"role": "assistant", "content": "4", "reasoning_content": "two and two"}], "Bot: 4")
    ['the template does not write reasoning_content of the last answer: it is neither scored nor trained on']
    """
    last = next((message for message in reversed(messages) if message["role"] == "assistant"), None)
    if last is None:
        return []
    notes = [
        f"the template does not write {field} of the last answer: {_LOST}"
        for field in _FIELDS
        if isinstance(value := last.get(field), str) and value.strip() not in text
    ]
    rest = last["content"].partition("<think>")[2]
    thought, closing, _ = rest.partition("</think>")
    if closing and thought.strip() not in text:
        notes.append(f"the template leaves out <think> in the last answer: {_LOST}")
    elif closing and text.count("</think>") > sum(message["content"].count("</think>") for message in messages):
        notes.append(
            "the template writes a <think> of its own before the answer's: give the thoughts as reasoning_content "
            "where the template reads that, or take them out"
        )
    return notes
