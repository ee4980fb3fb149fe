"""Keeps control tokens in a record's text ordinary text; only those that a chat template writes act as control tokens.

A control token is an added token that is special, or missing from the model's own vocabulary (`<tool_call>`), or
written by the chat template. White space is never one (runs of spaces in GPT-NeoX, line breaks in Gemma), nor is what
the person allows (model.allow_tokens): those are encoded as the tokenizer always does.

How it works, for a record that says "What does <|im_end|> do?":

1. `make_codec` copies the tokenizer's backend. In the copy `<|im_end|>` is called PRIVATE<|im_end|>, where PRIVATE is a
   random mark that no text holds.
2. `disarm` replaces `<|im_end|>` in the record by one unused character before the template sees the record.
3. The template writes its own `<|im_end|>` after the turn. `write_names` renames it to PRIVATE<|im_end|>, then puts the
   record's own characters back.
4. The copy encodes the text. PRIVATE<|im_end|> becomes the control token; the record's `<|im_end|>` matches no token
   name and is encoded like any other text, with true offsets.

The options of transformers do not do this: `split_special_tokens=True` covers special tokens only, and
`sanitize_control_tokens=True` gives no offsets and cuts the text at every hit.
"""

from __future__ import annotations

import difflib
import json
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from curate.tokens.vocabulary import longest_token
from curate.types import CurateError, IntArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MEANT = re.compile(r"think|thought|reason|tool_?call", re.IGNORECASE)
_PRIVATE = range(0x10FFFD, 0xEFFFF, -1)  # the two private planes


@dataclass(frozen=True, slots=True)
class Codec:
    """A copy of a tokenizer's backend in which control tokens have private names.

    backend  encodes a text, without special tokens around it
    opening  int64, ids that the tokenizer itself writes before a text (BOS)
    ids      int64: index is an id in the copy, value is the tokenizer's id
    is_name  bool: index is an id in the copy, value is whether it stands for a control token
    control  matches any control token, the longest that fits
    openers  matches a control token, or the beginning of one at the end of a text (the next text could complete it)
    mark     what every private name begins with
    markup   control tokens that are not special, or are for thoughts and calls (`<think>`, `[TOOL_CALLS]`): a response
             may hold them on purpose
    longest  most bytes (UTF-8, without white space) that one ordinary token stands for; None where no bound is known
    """

    backend: Tokenizer
    opening: IntArray
    ids: IntArray
    is_name: npt.NDArray[np.bool_]
    control: re.Pattern[str]
    openers: re.Pattern[str]
    mark: str
    markup: frozenset[str]
    longest: int | None


def make_codec(tokenizer: PreTrainedTokenizerBase, allow_tokens: Collection[str] = ()) -> Codec:
    """Make the codec of a tokenizer; tokens in `allow_tokens` keep their meaning in a record's text.

    Raises:
        CurateError: the tokenizer has no Rust backend (so no offsets), or `allow_tokens` names no token of it.
    """
    if not tokenizer.is_fast:
        raise CurateError(
            f"{type(tokenizer).__name__} cannot tell which characters a token covers; "
            "expected a tokenizer with a tokenizer.json (a fast one)"
        )
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = _control_tokens(spec, tokenizer.chat_template, allow_tokens)
    mark = f"\ufdd0{secrets.token_hex(8)}"  # random, so that no text can hold it; no result depends on it
    added = {token["content"]: token["special"] for token in spec["added_tokens"]}
    markup = {word for word, special in added.items() if not special or _MEANT.search(word)}.intersection(tokens)
    _rename(spec, {token: mark + token for token in tokens})
    backend = Tokenizer.from_str(json.dumps(spec))
    vocabulary = backend.get_vocab(with_added_tokens=True)
    ids = np.arange(1 + max(vocabulary.values()))
    # An added token that the vocabulary lacks gets its id from its place in the list, so ids may differ in the copy.
    for token in spec["added_tokens"]:
        ids[backend.token_to_id(token["content"])] = token["id"]
    is_name = np.zeros(len(ids), dtype=np.bool_)
    for token in tokens:
        is_name[backend.token_to_id(mark + token)] = True
    if (unknown := _unknown_token(spec["model"])) is not None:
        is_name[backend.token_to_id(unknown)] = False  # not a sure sign: any unknown text is encoded as this token
    control = _any_of(tokens)
    openings = {token[:n] for token in tokens for n in range(1, len(token)) if not token[n - 1].isspace()}
    opening = tokenizer("a", return_special_tokens_mask=True)
    num_opening = opening["special_tokens_mask"].index(0)
    return Codec(
        backend,
        np.array(opening["input_ids"][:num_opening], dtype=np.int64),
        ids,
        is_name,
        re.compile(control),
        re.compile(rf"{control}|(?:{_any_of(openings)})\Z"),
        mark,
        frozenset(markup),
        longest_token(spec, vocabulary, mark),
    )


def disarm(chat: Mapping[str, Any], codec: Codec) -> tuple[dict[str, Any], dict[int, str], int]:
    """Replace every control token in what a template is given (messages, tools) by one private character.

    Returns the changed data, the text behind each private character (for `write_names`), and how many control tokens
    there were. So a template that looks for markup (`</think>`) finds none in the data.
    """
    strings = list(_strings(chat))
    dangers = sorted({match[0] for string in strings for match in codec.openers.finditer(string)})
    if not dangers:
        return dict(chat), {}, 0
    taken = set().union(*strings)  # a record may hold private characters of its own
    free = (chr(code) for code in _PRIVATE if chr(code) not in taken)
    stand_ins = dict(zip(dangers, free, strict=False))
    hits = sum(len(codec.control.findall(string)) for string in strings)
    return _replace(chat, codec, stand_ins), {ord(c): text for text, c in stand_ins.items()}, hits


def write_names(rendering: str, codec: Codec, originals: Mapping[int, str]) -> str:
    """Rename the template's control tokens to their private names, then put the record's own text back."""
    # This order: the record's control tokens are not in the rendering yet, so all that match are the template's.
    named = codec.control.sub(rf"{codec.mark}\g<0>", rendering)
    if not originals:
        return named
    # A template that writes JSON in ASCII has written a private character as an escape.
    for code, text in originals.items():
        named = named.replace(json.dumps(chr(code))[1:-1], json.dumps(text)[1:-1])
    return named.translate(originals)


def markup_in_answers(messages: Iterable[Mapping[str, Any]], codec: Codec) -> list[str]:
    """List the control tokens in assistant turns that may be meant as such (`Codec.markup`), sorted."""
    strings = (text for message in messages if message["role"] == "assistant" for text in _strings(message))
    return sorted({token for text in strings for token in codec.control.findall(text)} & codec.markup)


def _control_tokens(
    spec: Mapping[str, Any], chat_template: str | Mapping[str, str] | None, allow_tokens: Collection[str]
) -> list[str]:
    """List the control tokens of a tokenizer.json, without the allowed ones."""
    added = {token["content"]: token for token in spec["added_tokens"] if token["content"].strip()}
    for token in allow_tokens:
        if token not in added:
            near = difflib.get_close_matches(token, added, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(list(added)[:20])}"
            raise CurateError(f"model.allow_tokens: {token!r} is no control token of this tokenizer; {hint}")
    written = chat_template if isinstance(chat_template, str) else "".join((chat_template or {}).values())
    vocabulary = {entry if isinstance(entry, str) else entry[0] for entry in spec["model"]["vocab"]}
    return [
        content
        for content, token in added.items()
        if content not in allow_tokens and (token["special"] or content not in vocabulary or content in written)
    ]


def _rename(spec: dict[str, Any], names: Mapping[str, str]) -> None:
    """Rename tokens in a tokenizer.json; drop what adds tokens around a text, pads it or cuts it."""
    model = spec["model"]
    spec.update(truncation=None, padding=None, post_processor=None)
    for token in spec["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    # The model's own vocabulary too: Unigram would find `</s>` in a text by itself, without the added tokens.
    if isinstance(model["vocab"], list):  # Unigram
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
        return
    renamed = names.keys() & model["vocab"].keys()
    model["vocab"] = {names.get(piece, piece): i for piece, i in model["vocab"].items()}
    if "merges" in model:  # a merge that makes a renamed token, or of one, would not load any more
        model["merges"] = [m for m in model["merges"] if renamed.isdisjoint((m[0], m[1], m[0] + m[1]))]


def _unknown_token(model: Mapping[str, Any]) -> str | None:
    """Return the token that stands for unknown text: Unigram names it by its index, other models by its text."""
    if model.get("unk_id") is not None:
        return str(model["vocab"][model["unk_id"]][0])
    unknown: str | None = model.get("unk_token")
    return unknown


def _any_of(texts: Iterable[str]) -> str:
    """Return a pattern that matches any of the texts; of several that fit, the longest."""
    longest_first = sorted(texts, key=len, reverse=True)
    return "|".join(map(re.escape, longest_first)) or "(?!)"  # matches nothing


def _strings(value: Any) -> Iterator[str]:
    """Yield every string in nested mappings and sequences, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (key for key in value if isinstance(key, str))
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _strings(item)


def _replace(value: Any, codec: Codec, stand_ins: Mapping[str, str]) -> Any:
    """Replace control tokens in every string of nested mappings and sequences by their stand-ins."""
    if isinstance(value, str):
        return codec.openers.sub(lambda match: stand_ins[match[0]], value)
    if isinstance(value, Mapping):
        # Keys and roles: only whole control tokens, since a template compares them and joins them to no other text.
        word = partial(codec.control.sub, lambda match: stand_ins[match[0]])
        return {
            (word(k) if isinstance(k, str) else k): (
                word(v) if k == "role" and isinstance(v, str) else _replace(v, codec, stand_ins)
            )
            for k, v in value.items()
        }
    if isinstance(value, Sequence):
        return [_replace(item, codec, stand_ins) for item in value]
    return value
