"""Says whether TRL would make of a copy of the records exactly the token ids and labels that curate trains on.

Each function does what TRL's SFTTrainer does (`_prepare_dataset` of TRL 1.16), and compares the result.
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
    """Say whether prompts and completions, tokenised by TRL, give the ids and labels of the token set.

    They do not if the text of a record holds a control token, if its response was trimmed, or if the tokenizer appends
    anything to a text.

    Args:
        texts: file that `write_texts` wrote.
        token_set: folder that `write_token_set` wrote.
        tokenizer: tokenizer of the model.
    """
    if tokenizer.end is None:
        return False
    return _equal(_features_of_texts(_lines(texts), tokenizer), token_set)


def messages_agree(messages: Path, token_set: Path, tokenizer: SavedTokenizer) -> bool:
    """Say whether messages, tokenised by TRL, give the ids and labels of the token set.

    TRL takes the responses from the `{% generation %}` marks of the chat template. Without them the answer is False:
    TRL would refuse the template, or use another one. It is also False for a template that reads the clock, whose ids
    would agree today only.

    Args:
        messages: file that `write_messages` wrote.
        token_set: folder that `write_token_set` wrote.
        tokenizer: tokenizer of the model.
    """
    template = tokenizer.chat_template or ""
    if not re.search(r"\{%-?\s*generation\s*-?%\}", template) or reads_clock(template):
        return False
    return _equal(_features_of_messages(_lines(messages), tokenizer), token_set)


def _features_of_texts(lines: Iterator[Any], tokenizer: SavedTokenizer) -> Iterator[Feature]:
    """Yield the ids and labels that TRL makes of prompts and completions; it ends every completion once."""
    end = tokenizer.end
    assert end is not None, "texts_agree has answered without it"
    while batch := list(islice(lines, _BATCH)):
        prompts = tokenizer.encode([line["prompt"] for line in batch])
        closed = [line["completion"] + ("" if line["completion"].endswith(end) else end) for line in batch]
        texts = [line["prompt"] + text for line, text in zip(batch, closed, strict=True)]
        wholes = tokenizer.encode(texts)
        for prompt, ids in zip(prompts, wholes, strict=True):
            # The prompt ends where prompt and whole text are first tokenised differently: a token that spans the border
            # belongs to the completion.
            start = next((i for i, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b), len(prompt))
            yield ids, [_IGNORED] * start + ids[start:]


def _features_of_messages(lines: Iterator[Any], tokenizer: SavedTokenizer) -> Iterator[Feature]:
    """Yield the ids and labels that TRL makes of messages, by the marks of the chat template."""
    from transformers import AutoTokenizer

    whole = AutoTokenizer.from_pretrained(tokenizer.folder)
    for line in lines:
        coded = whole.apply_chat_template(
            line["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, marks = coded["input_ids"], coded["assistant_masks"]
        yield ids, [token if mark else _IGNORED for token, mark in zip(ids, marks, strict=True)]


def _equal(theirs: Iterator[Feature], token_set: Path) -> bool:
    # zip_longest: a record more or less on either side is a difference too.
    pairs = zip_longest(theirs, read_token_set(token_set))
    return all(a is not None and b is not None and list(a[0]) == b[0] and list(a[1]) == b[1] for a, b in pairs)


def _lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
