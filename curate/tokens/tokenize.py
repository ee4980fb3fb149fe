"""From examples to token ids and the only response mask of this project: scoring and training both read it.

Two facts decide a mask: where the response stands in the rendered text (curate.tokens.prompts), and which characters a
token covers. A token is scored when its last character lies in a response, so tokens that merge across the start of a
response count, and those that merge across its end do not.

Text of a record never acts as markup: see curate.tokens.control.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from jinja2 import TemplateError
from tokenizers import Encoding

from curate.tokens.control import Codec, disarm, make_codec, write_names
from curate.tokens.prompts import (
    Message,
    Rendered,
    Template,
    alpaca,
    chat,
    has_response,
    messages_of,
    plain,
    resolve_template,
)
from curate.types import CONTEXT, END, SCORED, CurateError, Example, IntArray, Status, Tokens

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

DEFAULT_MAX_LENGTH = 2048
IGNORED = -100
"""The label that PyTorch's cross entropy leaves out."""

_BATCH = 256
_REFUSALS = (TemplateError, TypeError, ValueError, LookupError)  # a template is a program run on the record


@dataclass(frozen=True, slots=True)
class _Prompt:
    """An example as text; `rendered` is None unless status is "scored"."""

    example: Example
    status: Status
    rendered: Rendered | None = None
    control_hits: int = 0


def tokenize(
    examples: Iterable[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    template: str,
    system: str | None = None,
    max_length: int,
    too_long: Literal["drop", "trim"] = "drop",
    allow_tokens: Sequence[str] = (),
) -> Iterator[Tokens]:
    """One Tokens per example, in order; what an example becomes does not depend on its neighbours.

    plain, alpaca  the text is encoded once, with what the tokenizer itself writes before a text (BOS) and nothing
                   after it
    chat           the rendering of the whole conversation; the first control token that the template writes after a
                   response is marked END

    The first token of a sequence has no prediction and is never scored. max_length bounds the sequence up to its last
    response or end token; a longer one is dropped (too_long), or loses its end (trim sets `truncated`).

    Statuses other than scored: bad_record (the example has a problem); empty_response (no response has a character
    that is not white space, nor a tool call); unscorable (the chat template refuses the conversation, tools are used
    without a chat template, or no scored token is left, as when trim leaves only the prompt); too_long.
    control_hits counts the control tokens that were made ordinary text; allowed ones are no hits.

    Raises:
        CurateError: an option is unknown, chat is asked for without a chat template, the tokenizer has no offsets,
            or allow_tokens names what the tokenizer does not have.
    """
    resolved = resolve_template(template, tokenizer)
    if too_long not in ("drop", "trim"):
        raise CurateError(f"prompt.too_long is drop or trim, got {too_long!r}")
    codec = make_codec(tokenizer, allow_tokens)
    prepare = partial(_prepare, codec=codec, tokenizer=tokenizer, template=resolved, system=system)
    return _tokenize(map(prepare, examples), codec, resolved, max_length, trim=too_long == "trim")


def training_labels(tokens: Tokens, eos_token_id: int | None) -> tuple[list[int], list[int]]:
    """(input_ids, labels) to train on: the scored tokens and their end tokens; -100 elsewhere.

    Where the template writes no end token, eos_token_id is added with a label (one token beyond max_length is
    possible), unless the response was truncated: its end is not known.
    """
    assert tokens.status == "scored"
    ids = tokens.input_ids.tolist()
    labels = np.where(tokens.marks == CONTEXT, IGNORED, tokens.input_ids).tolist()
    if eos_token_id is not None and not tokens.truncated and not np.any(tokens.marks == END):
        ids.append(eos_token_id)
        labels.append(eos_token_id)
    return ids, labels


def default_max_length(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """The smaller of 2048 and what the model and its tokenizer say they can take, in tokens."""
    return int(min(DEFAULT_MAX_LENGTH, own_max_length(tokenizer, config), fixed_rotary_length(config)))


def fixed_rotary_length(config: PretrainedConfig) -> float:
    """Up to how many tokens a position is encoded the same whatever stands beside it in a batch; mostly infinite.

    Rotary embeddings of the types dynamic and longrope (Phi-3's for 128k tokens) change for a whole batch once one of
    its records is longer than what the model was first trained on.
    """
    text_config = config.get_text_config()
    rotary = getattr(text_config, "rope_parameters", None) or {}
    by_layer = [rotary] if "rope_type" in rotary else [part for part in rotary.values() if isinstance(part, dict)]
    trained = {
        "dynamic": lambda part: text_config.max_position_embeddings,
        "longrope": lambda part: part["original_max_position_embeddings"],
    }
    return min(
        (trained[kind](part) for part in by_layer if (kind := part.get("rope_type")) in trained), default=math.inf
    )


def own_max_length(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> float:
    """What the model and its tokenizer say they can take, in tokens; infinite where neither says."""
    text_config = config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
    limits = [getattr(text_config, name, None) for name in names] + [tokenizer.model_max_length]
    return min([limit for limit in limits if limit is not None and limit > 1], default=math.inf)


def _prepare(
    example: Example, *, codec: Codec, tokenizer: PreTrainedTokenizerBase, template: Template, system: str | None
) -> _Prompt:
    if example.problem is not None:
        return _Prompt(example, "bad_record")
    if not has_response(example):
        return _Prompt(example, "empty_response")
    if template == "chat":
        return _prepare_chat(example, codec, tokenizer, system)
    rendered = (alpaca if template == "alpaca" else plain)(example, system=system)
    if rendered is None:
        return _Prompt(example, "unscorable")
    return _Prompt(example, "scored", rendered, control_hits=len(codec.control.findall(rendered.text)))


def _prepare_chat(example: Example, codec: Codec, tokenizer: PreTrainedTokenizerBase, system: str | None) -> _Prompt:
    tools = list(example.tools) if example.tools else None
    data, originals, hits = disarm({"messages": messages_of(example, system=system), "tools": tools}, codec)

    def render(messages: Sequence[Message], add_generation_prompt: bool) -> str:
        rendering = tokenizer.apply_chat_template(
            list(messages), tools=data["tools"], tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return write_names(rendering, codec, originals)

    try:
        return _Prompt(example, "scored", chat(data["messages"], render), hits)
    except _REFUSALS as error:
        logger.info("row %d: the chat template refuses the conversation: %s", example.row, error)
        return _Prompt(example, "unscorable", control_hits=hits)


def _tokenize(
    prompts: Iterator[_Prompt], codec: Codec, template: Template, max_length: int, *, trim: bool
) -> Iterator[Tokens]:
    opening = codec.opening[: 0 if template == "chat" else None]
    while batch := list(islice(prompts, _BATCH)):
        texts = [prompt.rendered.text for prompt in batch if prompt.rendered]
        encodings = iter(codec.backend.encode_batch(texts, add_special_tokens=False))
        for prompt in batch:
            if prompt.rendered is None:
                yield _unscored(prompt, prompt.status)
                continue
            ids, marks, num_names = _mark(next(encodings), prompt.rendered, codec)
            if num_names != prompt.rendered.text.count(codec.mark):
                yield _unscored(prompt, "unscorable")  # the tokenizer does not read what its template wrote
                continue
            context = np.full(len(opening), CONTEXT, dtype=np.uint8)
            yield _fit(prompt, np.concatenate([opening, ids]), np.concatenate([context, marks]), max_length, trim)


def _mark(encoding: Encoding, rendered: Rendered, codec: Codec) -> tuple[IntArray, npt.NDArray[np.uint8], int]:
    """Ids and marks of a text, and how many control tokens are in it.

    Several tokens may share one character (bytes of an emoji): all end where it ends. A control token that begins
    before a response may reach into it by swallowing white space, and stays context.
    """
    ids = np.array(encoding.ids, dtype=np.int64)
    starts, ends = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2).T
    is_control = codec.is_name[ids]
    marks = np.full(len(ids), CONTEXT, dtype=np.uint8)
    for response in rendered.responses:
        inside = (ends > response.start) & (ends <= response.stop) & ~(is_control & (starts < response.start))
        marks[inside] = SCORED
        closing = np.flatnonzero(is_control & (ends > response.stop) & (ends <= response.close))
        marks[closing[:1]] = END
    return codec.ids[ids], marks, int(is_control.sum())


def _fit(prompt: _Prompt, ids: IntArray, marks: npt.NDArray[np.uint8], max_length: int, trim: bool) -> Tokens:
    marks[:1] = CONTEXT
    needed = int(np.flatnonzero(marks)[-1]) + 1 if marks.any() else 0
    truncated = needed > max_length
    if truncated and not trim:
        return _unscored(prompt, "too_long")
    ids, marks = ids[:max_length], marks[:max_length]
    if not np.any(marks == SCORED):
        return _unscored(prompt, "unscorable", truncated=truncated)
    example = prompt.example
    return Tokens(
        example.row, example.id, "scored", truncated, ids.astype(np.int32), marks, control_hits=prompt.control_hits
    )


def _unscored(prompt: _Prompt, status: Status, *, truncated: bool = False) -> Tokens:
    nothing = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.uint8)
    return Tokens(prompt.example.row, prompt.example.id, status, truncated, *nothing, prompt.control_hits)


def length_limit(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """Return `own_max_length` as a whole number that an array of token ids can have."""
    return int(min(own_max_length(tokenizer, config), 1 << 31))
