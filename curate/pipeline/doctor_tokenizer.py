"""The doctor's checks of a tokenizer and its chat template. No weights are needed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from curate.probe.findings import Finding, verdict
from curate.tokens.left_out import left_out
from curate.tokens.rendering import REFUSALS, Message, RenderRecord, renderer, writes_date
from curate.tokens.tokenize import tokenize
from curate.tokens.vocabulary import tokens_beyond
from curate.types import END, Example, Tokens, Turn

_WORD = "answer"
# What end tokens look like: <|im_end|>, </s>, [/INST].
_CONTROL = re.compile(r"<\|[^<>|]+\|>|</?[A-Za-z_]+>|\[/?[A-Z]+\]")
_USER = {"role": "user", "content": "a"}
_ASSISTANT = {"role": "assistant", "content": "b"}
_CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
_CONVERSATIONS: dict[str, Sequence[Message]] = {
    "a system message": [{"role": "system", "content": "s"}, _USER, _ASSISTANT],
    "two user messages in a row": [_USER, _USER, _ASSISTANT],
    "an assistant that begins": [_ASSISTANT, _USER, _ASSISTANT],
    "a tool's answer": [
        _USER,
        {"role": "assistant", "content": "", "tool_calls": [_CALL]},
        {"role": "tool", "content": "1", "name": "f"},
        _ASSISTANT,
    ],
}


def examine_tokenizer(tokenizer: Any, *, rows: int, end_ids: frozenset[int]) -> Iterator[Finding]:
    """Yield findings about a tokenizer: its vocabulary, and what its chat template writes.

    Args:
        tokenizer: as loaded.
        rows: rows of the model's embedding.
        end_ids: tokens at which generation stops, by the model's own settings.
    """
    yield _vocabulary(tokenizer, rows)
    if not tokenizer.chat_template:
        yield Finding("note", "chat template", "there is none; prompt.template=auto writes the words of Alpaca")
        return
    render = renderer(tokenizer, datetime(2026, 1, 2, 3, 4, 5))  # any date: findings must not change from day to day
    example = Example(0, "0" * 64, (Turn("user", "a"), Turn("assistant", "b")))
    record = next(tokenize([example], tokenizer, template="chat", max_length=1 << 20))
    # Without this conversation the checks that follow have nothing to look at.
    if record.status != "scored":
        yield Finding("fail", "chat template", f"one question and one answer cannot be scored: {record.reason}")
        return
    yield verdict(True, "chat template", "one question and one answer can be scored")
    yield _end_token(tokenizer, record, end_ids, written=_after_answer(render))
    yield _generation_prompt(render)
    yield _opening(tokenizer, record)
    yield _roles(render)
    yield from _left_out(render)
    if writes_date(tokenizer):
        yield Finding(
            "note", "date", "the template writes date or time; a run keeps those of its beginning (prompt.now)"
        )
    else:
        yield verdict(True, "date", "the template writes neither date nor time")


def _vocabulary(tokenizer: Any, rows: int) -> Finding:
    """Say whether every token has a row in the embedding. Spare rows are usual: sizes are rounded up for speed."""
    beyond, name = tokens_beyond(tokenizer, rows), "tokenizer and embedding"
    if beyond:
        token, token_id = next(iter(beyond.items()))
        what = f"{len(beyond)} tokens lie beyond the embedding's {rows:,} rows, {token!r} (id {token_id}) first"
        return Finding("fail", name, f"{what}: use the tokenizer that belongs to the model, or resize and train it")
    highest = max(tokenizer.get_vocab().values())
    spare = rows - highest - 1
    return Finding("pass", name, f"{len(tokenizer):,} tokens, {rows:,} rows" + (f", {spare:,} spare" if spare else ""))


def _end_token(tokenizer: Any, record: Tokens, end_ids: frozenset[int], *, written: str) -> Finding:
    """Say whether the template writes a token after a response, and whether generation stops there."""
    ends, name = record.input_ids[record.marks == END], "end token"
    own = tokenizer.eos_token_id
    if len(ends):
        token = tokenizer.convert_ids_to_tokens(int(ends[0]))
        if int(ends[0]) in end_ids | {own}:
            return Finding("pass", name, f"the template writes {token!r}, and generation stops there")
        return Finding(
            "note",
            name,
            f"the template writes {token!r}, but generation stops at {tokenizer.eos_token!r}: a trained model ends its "
            f"answers with {token!r}, so name that as eos_token_id when you generate",
        )
    if _CONTROL.fullmatch(written):
        return Finding(
            "fail",
            name,
            f"the template writes {written!r}, which this tokenizer does not know as a token: a model would see its "
            "letters. Use the template and the tokenizer of one model, or add the token and train its row",
        )
    if own is None:
        return Finding(
            "fail", name, "the template writes none and the tokenizer has none: a model cannot learn to stop"
        )
    return Finding("note", name, f"the template writes none; training adds {tokenizer.eos_token!r}")


def _after_answer(render: RenderRecord) -> str:
    """Return what the template writes after an answer, without spaces; "" if it refuses."""
    return (_text(render, [_USER, {"role": "assistant", "content": _WORD}]) or "").rpartition(_WORD)[2].strip()


def _generation_prompt(render: RenderRecord) -> Finding:
    """Say what the template writes to begin an answer, and whether conversations in the data begin answers so."""
    name, asked = "generation prompt", _text(render, [_USER], generation_prompt=True)
    plain, whole = _text(render, [_USER]), _text(render, [_USER, _ASSISTANT])
    if asked is None or asked == plain:
        return Finding(
            "note", name, "the template knows none; where a response starts is found by comparing renderings"
        )
    # Some templates open a block of thoughts for the answer, which data without thoughts does not have.
    if whole is not None and not whole.startswith(asked):
        return Finding("note", name, "a conversation does not go on with it; what a model generates differs from data")
    added = asked.removeprefix(plain or "")
    return Finding("pass", name, repr(added if len(added) <= 60 else added[:57] + "..."))


def _opening(tokenizer: Any, record: Tokens) -> Finding:
    """Say whether a conversation would begin with two BOS tokens."""
    bos, name = tokenizer.bos_token_id, "beginning of the text"
    adds = bos is not None and bos in tokenizer("a")["input_ids"][:1]
    if bos is not None and np.array_equal(record.input_ids[:2], [bos, bos]):
        return Finding("fail", name, f"the template writes {tokenizer.bos_token!r} twice")
    if bos is not None and len(record.input_ids) and record.input_ids[0] == bos:
        also = "; the tokenizer would add another, which is left out here and in no other program" if adds else ""
        return Finding("note" if adds else "pass", name, f"the template writes {tokenizer.bos_token!r}{also}")
    if adds:
        return Finding(
            "note", name, f"the tokenizer adds {tokenizer.bos_token!r} to a text, its chat template does not"
        )
    return Finding("pass", name, "neither the template nor the tokenizer writes BOS")


def _roles(render: RenderRecord) -> Finding:
    """Say which kinds of conversation the template refuses to write."""
    refused = [name for name, messages in _CONVERSATIONS.items() if _text(render, messages) is None]
    if refused:
        return Finding("note", "roles", f"the template refuses {', '.join(refused)}: such records are unscorable")
    return Finding("pass", "roles", "none is refused: system, consecutive users, an assistant that begins, tools")


def _left_out(render: RenderRecord) -> Iterator[Finding]:
    """Yield what a record may hold and the template neither writes nor refuses."""
    for what in left_out(render):
        yield Finding("note", "left out", f"the template does not write {what}: records are scored without them")


def _text(render: RenderRecord, messages: Sequence[Message], *, generation_prompt: bool = False) -> str | None:
    """Return a conversation as the template writes it; None if the template refuses it."""
    try:
        return render(messages, {}, generation_prompt)
    except REFUSALS:
        return None
