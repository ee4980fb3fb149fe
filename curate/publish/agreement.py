"""Whether TRL, given a copy of the records, would train on the very token ids and labels that curate trains on.

Each function does what TRL's SFTTrainer does (1.16, `_prepare_dataset`) with the tokenizer at hand, and compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from curate.publish.token_set import Feature, read_token_set
from curate.tokens.rendering import reads_clock
from curate.tokens.saved import SavedTokenizer

_BATCH = 256
_IGNORED = -100


def texts_agree(texts: Path, token_set: Path, tokenizer: SavedTokenizer) -> bool:
    """Say whether prompt and completion, tokenised as one text, give the ids and labels of the token set.

    They do not where a record's text holds a control token, where its response was trimmed, or where the tokenizer
    writes something after a text.
    """
    if tokenizer.end is None:
        return False
    return _equal(_features_of_texts(_lines(texts), tokenizer), token_set)


def messages_agree(messages: Path, token_set: Path, tokenizer: SavedTokenizer) -> bool:
    """Say whether the chat template's own generation marks give the ids and labels of the token set.

    A template without `{% generation %}` has no marks; TRL refuses it, or takes another template in its place. One that
    reads the clock gives them today only.
    """
    template = tokenizer.chat_template or ""
    if not re.search(r"\{%-?\s*generation\s*-?%\}", template) or reads_clock(template):
        return False
    return _equal(_features_of_messages(_lines(messages), tokenizer), token_set)


def _features_of_texts(lines: Iterator[Any], tokenizer: SavedTokenizer) -> Iterator[Feature]:
    end = tokenizer.end
    assert end is not None, "asked before"
    while batch := list(islice(lines, _BATCH)):
        prompts = tokenizer.encode([line["prompt"] for line in batch])
        closed = [line["completion"] + ("" if line["completion"].endswith(end) else end) for line in batch]
        texts = [line["prompt"] + text for line, text in zip(batch, closed, strict=True)]
        wholes = tokenizer.encode(texts)
        for prompt, ids in zip(prompts, wholes, strict=True):
            # A token that spans the end of the prompt belongs to the completion: the prompt counts up to there.
            start = next((i for i, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b), len(prompt))
            yield ids, [_IGNORED] * start + ids[start:]


def _features_of_messages(lines: Iterator[Any], tokenizer: SavedTokenizer) -> Iterator[Feature]:
    from transformers import AutoTokenizer

    whole = AutoTokenizer.from_pretrained(tokenizer.folder)
    for line in lines:
        coded = whole.apply_chat_template(
            line["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, marks = coded["input_ids"], coded["assistant_masks"]
        yield ids, [token if mark else _IGNORED for token, mark in zip(ids, marks, strict=True)]


def _equal(theirs: Iterator[Feature], token_set: Path) -> bool:
    pairs = zip_longest(theirs, read_token_set(token_set))
    return all(a is not None and b is not None and list(a[0]) == b[0] and list(a[1]) == b[1] for a, b in pairs)


def _lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
