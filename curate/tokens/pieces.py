"""Shows the tokens of a record as a person reads them, and which are scored or trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.types import END, SCORED, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"  # what a decoder writes for bytes that are no whole character yet


@dataclass(frozen=True, slots=True)
class Piece:
    """One token.

    id      its id
    text    its own part of the text; "" where a later token completes the character that it begins (an emoji)
    scored  whether it is scored, and trained on
    end     whether it is an end token: trained on, not scored
    """

    id: int
    text: str
    scored: bool
    end: bool


def pieces(tokens: Tokens, tokenizer: PreTrainedTokenizerBase) -> list[Piece]:
    """Return the tokens of a record one by one; their joined texts are the decoded record, control tokens included."""
    ids, marks = tokens.input_ids.tolist(), tokens.marks.tolist()
    texts = _texts(ids, tokenizer)
    return [Piece(i, text, m == SCORED, m == END) for i, text, m in zip(ids, texts, marks, strict=True)]


def _texts(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Yield what each token adds to the text before it."""
    # A token cannot be decoded alone: many decoders write its space only after another token. To decode all tokens
    # before it each time would take quadratic time; the piece that was shown last is enough context.

    def decode(start: int, stop: int) -> str:
        text = tokenizer.decode(ids[start:stop], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    context, shown = 0, 0  # tokens up to `shown` were yielded; decoding starts at `context`
    for i in range(len(ids)):
        text = decode(context, i + 1)
        if text.endswith(_UNFINISHED) and i + 1 < len(ids):
            yield ""
            continue
        yield text[len(decode(context, shown)) :]
        context, shown = shown, i + 1
