"""Encodes text to token ids, with the characters that each token covers; of a very long text only what is needed.

Encoding 5 MB takes seconds and gigabytes, only to see that the record is too long. Most tokenizers cut a text into
words first; no token reaches across words, and where words are cut depends only on the characters nearby. So the
beginning of a text has the same tokens alone as in the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

from curate.tokens.control import Codec
from curate.tokens.prompts import Response
from curate.types import CONTEXT, END, SCORED, IntArray

_CHARACTERS = 16  # characters a token: a first guess at how much text makes the tokens that are needed
_MARGIN = 256  # characters before the cut whose words may depend on what was cut off
_END_OF_WORD = re.compile(r"(?<=\w)\W")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokens of a text.

    ids    int64 [T], ids in the codec's copy of the tokenizer
    start  int64 [T], the first character that each token covers
    end    int64 [T], one past the last character; never decreases
    """

    ids: IntArray
    start: IntArray
    end: IntArray


def encoded(encoding: Encoding) -> Encoded:
    """Return an encoding as arrays."""
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    return Encoded(np.array(encoding.ids, dtype=np.int64), offsets[:, 0], offsets[:, 1])


def beginning(text: str, codec: Codec, limit: int) -> Encoded | None:
    """Encode the beginning of a long text: more than `limit` tokens, the same as in the whole text.

    None where that saves nothing or is not certain: for a short text, one without ends of words, or a tokenizer that
    does not cut into words (Llama 2).
    """
    for size in (_CHARACTERS * limit + _MARGIN, 8 * _CHARACTERS * limit):
        if (cut := _cut(text, size, codec)) is None:
            return None
        encoding = codec.backend.encode(text[:cut], add_special_tokens=False)
        words = np.array([-1 if word is None else word for word in encoding.word_ids])
        part = encoded(encoding)
        # The last two words and the margin may be cut otherwise in the whole text: only what comes before is certain.
        is_certain = (words < words.max(initial=0) - 1) & (part.end <= cut - _MARGIN)
        certain = len(words) if is_certain.all() else int(np.argmin(is_certain))
        if certain > limit:
            return Encoded(part.ids[:certain], part.start[:certain], part.end[:certain])
    return None


def _cut(text: str, size: int, codec: Codec) -> int | None:
    """Find where a text may be cut: after a whole word or number, not inside the name of a control token."""
    if len(text) <= 2 * size:
        return None
    boundary = _END_OF_WORD.search(text, size, size + size // 2)
    if boundary is None:
        return None
    cut = boundary.start()
    name = text.rfind(codec.mark, 0, cut)
    token = codec.control.match(text, name + len(codec.mark)) if name >= 0 else None
    return name if token and token.end() > cut else cut


def needed_beginning(text: str, responses: Sequence[Response], codec: Codec, limit: int) -> Encoded | None:
    """Return `beginning` if a response surely has a token after it; None where that is not certain."""
    stop = _last_certain_stop(text, responses, codec)
    part = beginning(text, codec, limit) if stop > _CHARACTERS * limit else None
    return part if part is not None and part.end[-1] < stop else None


def surely_exceeds(text: str, responses: Sequence[Response], codec: Codec, limit: int) -> bool:
    """Return whether the tokens up to the last response are surely more than `limit`, without encoding all of them.

    False where that is not certain.
    """
    stop = _last_certain_stop(text, responses, codec)
    if stop <= _CHARACTERS * limit:
        return False
    return fewest_tokens(text[:stop], codec) > limit + 1 or needed_beginning(text, responses, codec, limit) is not None


def _last_certain_stop(text: str, responses: Sequence[Response], codec: Codec) -> int:
    """Return where the last response stops that surely has a token ending there; 0 if there is none."""
    return max((r.stop for r in responses if _has_last_token(text, r, codec)), default=0)


def _has_last_token(text: str, response: Response, codec: Codec) -> bool:
    """Return whether a token surely ends where this response does: at the text's end or before a control token."""
    ends = response.stop == len(text) or text.startswith(codec.mark, response.stop)
    return ends and bool(text[response.start : response.stop].strip())


def fewest_tokens(text: str, codec: Codec) -> int:
    """Return a lower bound on the number of tokens: the text's bytes divided by those of the longest token.

    White space is not counted, since one token may stand for any amount of it. 0 where no bound is known
    (`Codec.longest`).
    """
    if codec.longest is None:
        return 0
    bare = re.sub(f"{codec.mark}(?:{codec.control.pattern})", "", text)
    normalizer = codec.backend.normalizer
    shown = normalizer.normalize_str(bare) if normalizer else bare
    return len(re.sub(r"[\s▁]+", "", shown).encode()) // codec.longest


def mark_tokens(part: Encoded, responses: Sequence[Response], codec: Codec) -> npt.NDArray[np.uint8]:
    """Mark tokens: a token is SCORED if its last character lies in a response. uint8 [T].

    The first control token that the template writes after a response is its END, unless no token of the response is
    scored. A control token that begins before a response is CONTEXT, even if it swallows white space of the response.

    In "Hi Bob<end>" the response is "Bob", characters 3 to 6. The token " Bob" (2 to 6) ends in it and so is scored,
    although its first character does not belong to the response; <end> is its end token.
    """
    # Several tokens may share a character (the bytes of an emoji). All have its end, so they are marked alike.
    is_control = codec.is_name[part.ids]
    marks = np.full(len(part.ids), CONTEXT, dtype=np.uint8)
    edges = [(r.start, r.stop, r.close) for r in responses]
    for (start, _, _), (first, last, close) in zip(edges, np.searchsorted(part.end, edges, "right"), strict=True):
        scored = ~(is_control[first:last] & (part.start[first:last] < start))
        marks[first:last][scored] = SCORED
        closing = np.flatnonzero(is_control[last:close])
        if scored.any():
            marks[last:close][closing[:1]] = END
    return marks
