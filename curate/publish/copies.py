"""Writes kept records in the two formats that most training programs read: messages, or prompt and completion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate.publish.records import KeptRecords
from curate.tokens.prompts import Rendered, alpaca, messages_of, plain
from curate.types import Example, Template

TEXTS = "train.prompt_completion.jsonl"
MESSAGES = "train.messages.jsonl"


def write_messages(records: KeptRecords, path: Path, *, system: str | None) -> None:
    """Write the records as OpenAI messages, one conversation a line.

    Tools are written as JSON text: `datasets` keeps objects in columns of one type, and would add the keys of each tool
    to all others. What else the chat template is given is written under TRL's name for it.

    Args:
        records: what `describe_kept` returned.
        path: the file to write.
        system: system message of conversations that have none; None adds none.
    """
    _write(path, (_conversation(example, system) for example in records.examples()))


def write_texts(records: KeptRecords, path: Path, *, template: Template, system: str | None) -> bool:
    """Write the records as prompt and completion, one a line; return False, and write nothing, if they do not fit.

    Records fit if each has one response, at the end of its text. The texts are exactly those that were tokenised.

    Args:
        records: what `describe_kept` returned.
        path: the file to write.
        template: the prompt template; "chat" does not fit.
        system: prompt.system.
    """
    texts = [_text(example, template, system) for example in records.examples()]
    fitting = [text for text in texts if text is not None]
    if len(fitting) < len(texts):
        return False
    _write(path, iter(fitting))
    return True


def _write(path: Path, lines: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as out:
        for line in lines:
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


def _conversation(example: Example, system: str | None) -> dict[str, Any]:
    # Role and content first, as people expect to read them.
    messages = [{"role": m.pop("role"), "content": m.pop("content"), **m} for m in messages_of(example, system=system)]
    line: dict[str, Any] = {"messages": messages}
    line |= {"tools": json.dumps(example.tools)} if example.tools else {}
    return line | ({"chat_template_kwargs": example.variables} if example.variables else {})


def _text(example: Example, template: Template, system: str | None) -> dict[str, str] | None:
    """Return prompt and completion of a record; None if it is not one text that ends with its only response."""
    rendered: Rendered | None = None
    if template != "chat":
        rendered = (alpaca if template == "alpaca" else plain)(example, system=system)
    if rendered is None or len(rendered.responses) != 1 or rendered.responses[0].stop != len(rendered.text):
        return None
    start = rendered.responses[0].start
    return {"prompt": rendered.text[:start], "completion": rendered.text[start:]}
