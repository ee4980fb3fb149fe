"""From text to token ids with the characters they cover; of a very long text, no more than is needed.

Encoding 5 MB takes seconds and gigabytes, only to see that the record is too long. The beginning of a text has the same
tokens as the whole text where the tokenizer cuts the text into words first: no token reaches across words, and which
words there are depends on what stands close by.
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

_CHARACTERS = 16  # a token; the first guess how much text makes the tokens that are needed
_MARGIN = 256  # characters before the cut whose words may depend on what was cut off
_END_OF_WORD = re.compile(r"(?<=\w)\W")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokens of a text.

    ids    ids in the copy of `Codec`
    start  the first character that each token covers
    end    one past the last; never falls
    """

    ids: IntArray
    start: IntArray
    end: IntArray


def encoded(encoding: Encoding) -> Encoded:
    """Give an encoding as arrays."""
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    return Encoded(np.array(encoding.ids, dtype=np.int64), offsets[:, 0], offsets[:, 1])


def beginning(text: str, codec: Codec, limit: int) -> Encoded | None:
    """Encode the beginning of a long text: more than `limit` tokens, exactly as in the whole text.

    None where that is no gain or not certain: a text of few characters, one without ends of words, a tokenizer that
    takes a text for one word (Llama 2).
    """
    for size in (_CHARACTERS * limit + _MARGIN, 8 * _CHARACTERS * limit):
        if (cut := _cut(text, size, codec)) is None:
            return None
        encoding = codec.backend.encode(text[:cut], add_special_tokens=False)
        words = np.array([-1 if word is None else word for word in encoding.word_ids])
        part = encoded(encoding)
        is_certain = (words < words.max(initial=0) - 1) & (part.end <= cut - _MARGIN)
        certain = len(words) if is_certain.all() else int(np.argmin(is_certain))
        if certain > limit:
            return Encoded(part.ids[:certain], part.start[:certain], part.end[:certain])
    return None


def _cut(text: str, size: int, codec: Codec) -> int | None:
    """Where a text may be cut: after a whole word or number, not inside the name of a control token."""
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
    """Give `beginning` where a response is sure to have a token beyond it; None where that is not certain."""
    stop = _last_certain_stop(text, responses, codec)
    part = beginning(text, codec, limit) if stop > _CHARACTERS * limit else None
    return part if part is not None and part.end[-1] < stop else None


def surely_exceeds(text: str, responses: Sequence[Response], codec: Codec, limit: int) -> bool:
    """Tell early whether the tokens up to the last response are more than `limit`; False where it is not certain."""
    stop = _last_certain_stop(text, responses, codec)
    if stop <= _CHARACTERS * limit:
        return False
    return fewest_tokens(text[:stop], codec) > limit + 1 or needed_beginning(text, responses, codec, limit) is not None


def _last_certain_stop(text: str, responses: Sequence[Response], codec: Codec) -> int:
    return max((r.stop for r in responses if _has_last_token(text, r, codec)), default=0)


def _has_last_token(text: str, response: Response, codec: Codec) -> bool:
    """Whether a token is sure to end with this response: it ends the text, or a control token follows it."""
    ends = response.stop == len(text) or text.startswith(codec.mark, response.stop)
    return ends and bool(text[response.start : response.stop].strip())


def fewest_tokens(text: str, codec: Codec) -> int:
    """Count the tokens that a text has at least: its bytes, but for white space, by those of the longest token.

    0 where nothing is certain (`Codec.longest`).
    """
    if codec.longest is None:
        return 0
    bare = re.sub(f"{codec.mark}(?:{codec.control.pattern})", "", text)
    normalizer = codec.backend.normalizer
    shown = normalizer.normalize_str(bare) if normalizer else bare
    return len(re.sub(r"[\s▁]+", "", shown).encode()) // codec.longest


def mark_tokens(part: Encoded, responses: Sequence[Response], codec: Codec) -> npt.NDArray[np.uint8]:
    """Give the marks of tokens: a token is SCORED when its last character lies in a response.

    Several tokens may share one character (bytes of an emoji): all end where it ends. A control token that begins
    before a response may reach into it by swallowing white space, and stays context. The first control token after a
    response is its END, unless nothing of the response is scored.
    """
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
