"""The tokens of a record as a person reads them, with what happens to each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.types import END, SCORED, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"


@dataclass(frozen=True, slots=True)
class Piece:
    """One token.

    text    its own part of the text; "" where the character it begins ends in a later token (an emoji of several)
    scored  whether it is scored, and trained on
    end     whether it is an end token: trained on, not scored
    """

    id: int
    text: str
    scored: bool
    end: bool


def pieces(tokens: Tokens, tokenizer: PreTrainedTokenizerBase) -> list[Piece]:
    """Give the tokens of a record one by one; their texts joined are the decoded record, control tokens included."""
    ids, marks = tokens.input_ids.tolist(), tokens.marks.tolist()
    texts = _texts(ids, tokenizer)
    return [Piece(i, text, m == SCORED, m == END) for i, text, m in zip(ids, texts, marks, strict=True)]


def _texts(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """What each token adds to the text before it: many decoders write a space or not according to what stands before.

    Decoding all tokens before each one would take quadratic time; the last piece that was shown is enough.
    """

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
