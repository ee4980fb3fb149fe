"""Kept records once more, in the two forms that most training programs read: messages, or prompt and completion."""

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
    """Write a conversation a line, as OpenAI messages; `system` opens those without a system message of their own.

    Tools are JSON text: Arrow would fill the keys that one tool has into all others.
    """
    _write(path, (_conversation(example, system) for example in records.examples()))


def write_texts(records: KeptRecords, path: Path, *, template: Template, system: str | None) -> bool:
    """Write a record a line, as the text before its response and its response; False, and no file, if they do not fit.

    They fit where every record has one response, at its end. The texts are those that were tokenised.
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
    messages = [{"role": m.pop("role"), "content": m.pop("content"), **m} for m in messages_of(example, system=system)]
    return {"messages": messages} | ({"tools": json.dumps(example.tools)} if example.tools else {})


def _text(example: Example, template: Template, system: str | None) -> dict[str, str] | None:
    rendered: Rendered | None = None
    if template != "chat":
        rendered = (alpaca if template == "alpaca" else plain)(example, system=system)
    if rendered is None or len(rendered.responses) != 1 or rendered.responses[0].stop != len(rendered.text):
        return None
    start = rendered.responses[0].start
    return {"prompt": rendered.text[:start], "completion": rendered.text[start:]}
