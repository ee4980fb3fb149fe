"""Turns examples into token ids and the response mask; scoring and training use the same mask.

Two facts decide the mask: where the responses stand in the text (curate.tokens.prompts, curate.tokens.chat), and which
characters each token covers (curate.tokens.encode). A token is scored if its last character lies in a response. So a
token that reaches across the start of a response is scored, and one that reaches across its end is not.

Text of a record never acts as a control token: see curate.tokens.control.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from curate.tokens.control import Codec, make_codec
from curate.tokens.encode import Encoded, encoded, mark_tokens, needed_beginning
from curate.tokens.left_out import left_out
from curate.tokens.prepare import Prompt, Wording, prepare, too_long_reason, unscored
from curate.tokens.prompts import resolve_template
from curate.tokens.rendering import renderer
from curate.tokens.variables import variables_read
from curate.tokens.vocabulary import beyond_embedding
from curate.types import CONTEXT, SCORED, CurateError, Example, IntArray, Tokens, TooLong, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 256  # records encoded at a time
_BATCH_CHARACTERS = 4_000_000
UNREADABLE = "the tokenizer does not read a control token that its chat template writes"
NOTHING_LEFT = "no token of a response is left to score"
ONLY_PROMPT = "the prompt alone fills prompt.max_length"


@dataclass(frozen=True, slots=True)
class _Plan:
    """Settings of the encoding, the same for every record.

    opening  ids before every text (BOS); empty under chat, where the template writes them
    trim     whether a long text is cut (else it is dropped)
    rows     rows of the model's embedding; None if ids are not checked against them
    """

    tokenizer: PreTrainedTokenizerBase
    codec: Codec
    opening: IntArray
    max_length: int
    trim: bool
    rows: int | None


def tokenize(
    examples: Iterable[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    template: str,
    system: str | None = None,
    max_length: int,
    too_long: TooLong = "drop",
    allow_tokens: Sequence[str] = (),
    now: datetime | None = None,
    vocabulary_rows: int | None = None,
) -> Iterator[Tokens]:
    """Yield one Tokens per example, in order; an example's tokens do not depend on the other examples.

    Under plain and alpaca the text is encoded once, prompt and response together, with what the tokenizer itself writes
    before a text (BOS) and nothing after it. Under chat it is the rendering of the whole conversation; the first
    control token that the template writes after a response is marked END.

    The first token of a sequence has no prediction and is never scored. An empty assistant turn among others is
    neither scored nor trained on.

    Args:
        examples: what to tokenize.
        tokenizer: one with a Rust backend.
        template: auto, chat, alpaca or plain.
        system: system text for examples without a system turn.
        max_length: most tokens of a sequence, counted up to its last response or end token.
        too_long: what happens to a longer one: drop (status too_long), or trim (its end is cut, `truncated` is set).
        allow_tokens: control tokens that keep their meaning in a record's text; they are no `control_hits`.
        now: what a chat template reads as date and time (default: the moment of this call).
        vocabulary_rows: rows of the model's embedding; a scored record may hold no id beyond them. None: not checked.

    Statuses other than scored, each with its `reason`:

    * bad_record: the example has a problem;
    * empty_response: no response has a character that is not white space, or a tool call;
    * unscorable: the chat template refuses the conversation, tools are used without a chat template, or no scored token
      is left, for example because trim leaves only the prompt;
    * too_long.

    Raises:
        CurateError: an option is unknown, chat is asked for without a chat template or with one that is no valid
            Jinja, the tokenizer has no offsets, allow_tokens names what the tokenizer does not have, or a token lies
            beyond vocabulary_rows.
    """
    resolved = resolve_template(template, tokenizer)
    if too_long not in ("drop", "trim"):
        raise CurateError(f"prompt.too_long is drop or trim, got {too_long!r}")
    codec = make_codec(tokenizer, allow_tokens)
    opening = codec.opening[: 0 if resolved == "chat" else None]  # a chat template writes BOS itself
    trim = too_long == "trim"
    limit = None if trim else max_length - len(opening)
    render = renderer(tokenizer, now or datetime.now())
    reads, omits = frozenset[str](), frozenset[str]()
    if resolved == "chat":
        reads, omits = variables_read(tokenizer), frozenset(left_out(render))
    wording = Wording(codec, resolved, system, render, reads, omits, limit)
    plan = _Plan(tokenizer, codec, opening, max_length, trim, vocabulary_rows)
    return _tokenize((prepare(example, wording, max_length) for example in examples), plan)


def check_template(
    tokenizer: PreTrainedTokenizerBase, rows: int, *, template: str, allow_tokens: Sequence[str] = ()
) -> None:
    """Raise if the template writes a token that the model's embedding of `rows` rows does not have.

    Raises:
        CurateError: as `tokenize` does for a record that holds such a token.
    """
    # A short conversation, written and encoded like any record, before any record is read.
    probe = Example(-1, "", (Turn("user", "a"), Turn("assistant", "b c")))
    for _ in tokenize(
        [probe], tokenizer, template=template, max_length=1 << 20, allow_tokens=allow_tokens, vocabulary_rows=rows
    ):
        pass


def _tokenize(prompts: Iterator[Prompt | Tokens], plan: _Plan) -> Iterator[Tokens]:
    for batch in _batches(_begin_long(prompts, plan)):
        texts = [prompt.rendered.text for prompt in batch if isinstance(prompt, Prompt)]
        encodings = iter(plan.codec.backend.encode_batch(texts, add_special_tokens=False))
        for prompt in batch:
            yield prompt if isinstance(prompt, Tokens) else _finish(prompt, encoded(next(encodings)), plan, whole=True)


def _begin_long(prompts: Iterator[Prompt | Tokens], plan: _Plan) -> Iterator[Prompt | Tokens]:
    """Finish very long texts that are trimmed: encode only their beginning, and release the text."""
    for prompt in prompts:
        part = None
        if plan.trim and isinstance(prompt, Prompt):
            part = needed_beginning(prompt.rendered.text, prompt.rendered.responses, plan.codec, plan.max_length)
        yield _finish(prompt, part, plan, whole=False) if part and isinstance(prompt, Prompt) else prompt


def _batches(prompts: Iterator[Prompt | Tokens]) -> Iterator[list[Prompt | Tokens]]:
    """Yield lists of up to 256 records, fewer where they are long: their texts and encodings are in memory together."""
    batch: list[Prompt | Tokens] = []
    characters = 0
    for prompt in prompts:
        batch.append(prompt)
        characters += len(prompt.rendered.text) if isinstance(prompt, Prompt) else 0
        if len(batch) == _BATCH or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    yield batch


def _finish(prompt: Prompt, part: Encoded, plan: _Plan, *, whole: bool) -> Tokens:
    """Make the Tokens of a prompt from its encoded text.

    If `whole` is false, `part` is the beginning of the text; it has more than max_length tokens.
    """
    example, hits = prompt.example, prompt.control_hits
    codec, text = plan.codec, prompt.rendered.text
    names = text.count(codec.mark, 0, None if whole else int(part.end[-1]))
    if names != int(codec.is_name[part.ids].sum()):  # each private name in the text must have become one token
        return unscored(example, "unscorable", UNREADABLE, control_hits=hits)
    ids = np.concatenate([plan.opening, codec.ids[part.ids]])
    context = np.full(len(plan.opening), CONTEXT, dtype=np.uint8)
    marks = np.concatenate([context, mark_tokens(part, prompt.rendered.responses, codec)])
    marks[:1] = CONTEXT  # nothing predicts the first token
    needed = int(np.flatnonzero(marks)[-1]) + 1 if marks.any() else 0
    truncated = not whole or needed > plan.max_length
    if truncated and not plan.trim:
        return unscored(example, "too_long", too_long_reason(plan.max_length), control_hits=hits)
    ids, marks = ids[: plan.max_length], marks[: plan.max_length]
    if not np.any(marks == SCORED):
        reason = f"{ONLY_PROMPT} ({plan.max_length})" if truncated else NOTHING_LEFT
        return unscored(example, "unscorable", reason, truncated=truncated, control_hits=hits)
    if plan.rows is not None and ids.max() >= plan.rows:
        raise beyond_embedding(plan.tokenizer, int(ids[ids >= plan.rows][0]), example.row, plan.rows)
    return Tokens(example.row, example.id, "scored", truncated, ids.astype(np.int32), marks, hits, notes=prompt.notes)
